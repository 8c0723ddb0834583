// Eight numbers at a time in the compilers' vector types, for kernel files compiled for newer processors than the rest:
// plain C++ without libtorch or the standard library's templates. Arithmetic is float32; bfloat16 is read and rounded
// on the way, as its bits in uint16_t.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define SLUICE_INLINE static inline __attribute__((always_inline))

namespace sluice {

constexpr int64_t kLanes = 8;
typedef float Lanes __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(32)));
typedef uint16_t Halves __attribute__((vector_size(16)));

/// Whether this processor has what kernel files are compiled for ("cxxflags[x64]: -mavx2 -mfma").
SLUICE_INLINE bool hasLanes() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

/// The first `count` of 8 numbers; the others are zero.
SLUICE_INLINE Lanes load(const float* p, int64_t count = kLanes) {
  Lanes lanes = {};
  memcpy(&lanes, p, count == kLanes ? sizeof(lanes) : count * sizeof(*p));
  return lanes;
}
SLUICE_INLINE Lanes load(const uint16_t* p, int64_t count = kLanes) {
  Halves halves = {};
  memcpy(&halves, p, count == kLanes ? sizeof(halves) : count * sizeof(*p));
#if defined(__AVX2__)  // GCC makes four instructions of the conversion
  return (Lanes)((Words)_mm256_cvtepu16_epi32((__m128i)halves) << 16);
#else
  return (Lanes)(__builtin_convertvector(halves, Words) << 16);
#endif
}

SLUICE_INLINE void store(float* p, Lanes lanes, int64_t count = kLanes) {
  memcpy(p, &lanes, count == kLanes ? sizeof(lanes) : count * sizeof(*p));
}
/// Rounds to the nearest, ties to even.
SLUICE_INLINE void store(uint16_t* p, Lanes lanes, int64_t count = kLanes) {
  const Words bits = (Words)lanes;
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words isNumber = (Words)(lanes == lanes);
  const Halves halves = __builtin_convertvector((rounded & isNumber) | (~isNumber & 0x7fc0u), Halves);
  memcpy(p, &halves, count == kLanes ? sizeof(halves) : count * sizeof(*p));
}

SLUICE_INLINE float numberAt(const float* p) { return *p; }
SLUICE_INLINE float numberAt(const uint16_t* p) {
  const uint32_t bits = (uint32_t)*p << 16;
  float number;
  memcpy(&number, &bits, sizeof(number));
  return number;
}
SLUICE_INLINE void setNumber(float* p, float number) { *p = number; }
SLUICE_INLINE void setNumber(uint16_t* p, float number) { store(p, Lanes{} + number, 1); }

SLUICE_INLINE float sum(Lanes lanes) {
  float total = 0;
  for (int64_t i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
}

/// The same, the halves added at once: for short sums.
SLUICE_INLINE float sumInPairs(Lanes lanes) {
  typedef float Half __attribute__((vector_size(16)));
  Half halves[2];
  memcpy(halves, &lanes, sizeof(lanes));
  const Half both = halves[0] + halves[1];
  return (both[0] + both[1]) + (both[2] + both[3]);
}

/// e^x of x held to [-87, 88] (-87 for NaN), to 2 units in the last place.
SLUICE_INLINE Lanes fastExp(Lanes x) {
  const Lanes magic = Lanes{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  x = x > -87.0f ? x : Lanes{} - 87.0f;
  x = x < 88.0f ? x : Lanes{} + 88.0f;
  const Lanes shifted = x * 1.44269504f + magic;
  const Lanes n = shifted - magic;
  const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return (Lanes)((Ints)p + (((Ints)shifted - (Ints)magic) << 23));
}

constexpr float kGeluA = 0.7978845608f;  // sqrt(2 / pi)
constexpr float kGeluB = 0.044715f;

/// s in gelu(x) = x s: 1 / (1 + e^(-2 a (x + b x^3))), which is the tanh form.
SLUICE_INLINE Lanes geluGate(Lanes x) {
  return 1.0f / (1.0f + fastExp(x * (-2.0f * kGeluA) * (1.0f + kGeluB * x * x)));
}

/// gelu'(x), given s.
SLUICE_INLINE Lanes geluSlope(Lanes x, Lanes s) {
  return s + x * s * (1.0f - s) * (2.0f * kGeluA) * (1.0f + 3.0f * kGeluB * x * x);
}

/// To 2 units in the last place: a polynomial near zero, where 1 - 2 / (e^2x + 1) would cancel.
SLUICE_INLINE Lanes fastTanh(Lanes x) {
  const Lanes square = x * x;
  Lanes p = square * -5.70498872745e-3f + 2.06390887954e-2f;
  p = p * square - 5.37397155531e-2f;
  p = p * square + 1.33314422036e-1f;
  p = p * square - 3.33332819422e-1f;
  const Lanes near = p * square * x + x;
  const Lanes far = 1.0f - 2.0f / (fastExp(x + x) + 1.0f);
  return square >= 0.390625f ? far : near;  // near keeps NaN
}

/// body(offset, count) over the lanes of [0, size).
template <class Body>
SLUICE_INLINE void forLanes(int64_t size, Body&& body) {
  int64_t at = 0;
  for (; at + kLanes <= size; at += kLanes) body(at, kLanes);
  if (at < size) body(at, size - at);
}

}  // namespace sluice
