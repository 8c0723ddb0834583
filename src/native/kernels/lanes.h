// Eight numbers at a time, or sixteen in a wide build, in the compilers' vector types, for kernel files compiled for newer
// processors than the rest: plain C++ without libtorch or the standard library's templates. Arithmetic is float32; bfloat16
// is read and rounded on the way, as its bits in uint16_t.
//
// What a file compiled in several builds (builds.h) defines besides its kernels is in an unnamed namespace: the linker would
// take one build's for all.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "builds.h"

#define SLUICE_INLINE static inline __attribute__((always_inline))

namespace sluice {

#if defined(SLUICE_WIDE)
typedef Wide Build;
#define SLUICE_LANES 16
#else
typedef Narrow Build;
#define SLUICE_LANES 8
#endif

constexpr int64_t kLanes = SLUICE_LANES;
typedef float Lanes __attribute__((vector_size(4 * SLUICE_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * SLUICE_LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * SLUICE_LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * SLUICE_LANES)));

/// The first `count` of kLanes numbers; the others are zero.
SLUICE_INLINE Lanes load(const float* p, int64_t count = kLanes) {
  Lanes lanes = {};
  memcpy(&lanes, p, count == kLanes ? sizeof(lanes) : count * sizeof(*p));
  return lanes;
}
SLUICE_INLINE Lanes load(const uint16_t* p, int64_t count = kLanes) {
  Halves halves = {};
  memcpy(&halves, p, count == kLanes ? sizeof(halves) : count * sizeof(*p));
#if defined(SLUICE_WIDE)
  return (Lanes)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)halves), 16);
#elif defined(__AVX2__)  // GCC makes four instructions of the conversion
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
#if defined(SLUICE_WIDE)
  const __m256bh halves = _mm512_cvtneps_pbh((__m512)lanes);
#else
  const Words bits = (Words)lanes;
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words isNumber = (Words)(lanes == lanes);
  const Halves halves = __builtin_convertvector((rounded & isNumber) | (~isNumber & 0x7fc0u), Halves);
#endif
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

/// In pairs: halves added at once.
SLUICE_INLINE float sum(Lanes lanes) {
  typedef float Quarter __attribute__((vector_size(16)));
  Quarter parts[kLanes / 4];
  memcpy(parts, &lanes, sizeof(lanes));
  Quarter all = parts[0] + parts[1];
#if defined(SLUICE_WIDE)
  all += parts[2] + parts[3];
#endif
  return (all[0] + all[1]) + (all[2] + all[3]);
}

/// e^x = p 2^n.
struct Exponential {
  Lanes p;
  Ints n;
};

SLUICE_INLINE Exponential exponentialOf(Lanes x) {
  const Lanes magic = Lanes{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Lanes shifted = x * 1.44269504f + magic;
  const Lanes n = shifted - magic;
  const Lanes r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Lanes p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {p * r * r + r + 1.0f, (Ints)shifted - (Ints)magic};
}

/// e^x of x held to [-87, 88] (-87 for NaN), to 2 units in the last place.
SLUICE_INLINE Lanes fastExp(Lanes x) {
  x = x > -87.0f ? x : Lanes{} - 87.0f;
  x = x < 88.0f ? x : Lanes{} + 88.0f;
  const Exponential e = exponentialOf(x);
  return (Lanes)((Ints)e.p + (e.n << 23));
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
