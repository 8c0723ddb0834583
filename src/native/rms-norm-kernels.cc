// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// Eight numbers at a time in the compilers' vector types.

#include "rms-norm-kernels.h"

#include <math.h>
#include <string.h>

#define SLUICE_INLINE static inline __attribute__((always_inline))

namespace sluice {

bool hasRmsNormKernels() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

constexpr int64_t kLanes = 8;
typedef float Lanes __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(32)));
typedef uint16_t Halves __attribute__((vector_size(16)));

/// The first `count` of 8 numbers; the others are zero.
SLUICE_INLINE Lanes load(const float* p, int64_t count) {
  Lanes lanes = {};
  memcpy(&lanes, p, count == kLanes ? sizeof(lanes) : count * sizeof(*p));
  return lanes;
}
SLUICE_INLINE Lanes load(const uint16_t* p, int64_t count) {
  Halves halves = {};
  memcpy(&halves, p, count == kLanes ? sizeof(halves) : count * sizeof(*p));
  return (Lanes)(__builtin_convertvector(halves, Words) << 16);
}
SLUICE_INLINE void store(float* p, int64_t count, Lanes lanes) {
  memcpy(p, &lanes, count == kLanes ? sizeof(lanes) : count * sizeof(*p));
}
/// Rounds to the nearest, ties to even.
SLUICE_INLINE void store(uint16_t* p, int64_t count, Lanes lanes) {
  const Words bits = (Words)lanes;
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words isNumber = (Words)(lanes == lanes);
  const Halves halves = __builtin_convertvector((rounded & isNumber) | (~isNumber & 0x7fc0u), Halves);
  memcpy(p, &halves, count == kLanes ? sizeof(halves) : count * sizeof(*p));
}
SLUICE_INLINE float sum(Lanes lanes) {
  float total = 0;
  for (int64_t i = 0; i < kLanes; ++i) total += lanes[i];
  return total;
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

/// s in gelu(n) = n s: 1 / (1 + e^(-2 a (n + b n^3))), which is the tanh form.
SLUICE_INLINE Lanes geluGate(Lanes n) {
  return 1.0f / (1.0f + fastExp(n * (-2.0f * kGeluA) * (1.0f + kGeluB * n * n)));
}

SLUICE_INLINE Lanes geluSlope(Lanes n) {
  const Lanes s = geluGate(n);
  return s + n * s * (1.0f - s) * (2.0f * kGeluA) * (1.0f + 3.0f * kGeluB * n * n);
}

template <class T, Act act, bool scaled>
SLUICE_INLINE void forwardRow(const T* x, const T* w, T* y, float r, int64_t count) {
  Lanes n = load(x, count) * r;
  if constexpr (scaled) n *= load(w, count);
  if constexpr (act == Act::kGeluTanh) n *= geluGate(n);
  store(y, count, n);
}

template <class T, Act act, bool scaled>
static void forwardRows(const T* x, const T* w, T* y, float* inverse, int64_t rows, int64_t size, float eps) {
  const int64_t whole = size - size % kLanes, rest = size % kLanes;
  for (int64_t row = 0; row < rows; ++row, x += size, y += size) {
    Lanes squares = {};
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Lanes v = load(x + i, kLanes);
      squares += v * v;
    }
    if (rest) {
      const Lanes v = load(x + whole, rest);
      squares += v * v;
    }
    const float r = 1.0f / sqrtf(sum(squares) / (float)size + eps);
    inverse[row] = r;
    for (int64_t i = 0; i < whole; i += kLanes) forwardRow<T, act, scaled>(x + i, w + i, y + i, r, kLanes);
    if (rest) forwardRow<T, act, scaled>(x + whole, w + whole, y + whole, r, rest);
  }
}

/// Leaves d/d(x r) of the loss in `scratch`; returns its products with x.
template <class T, Act act, bool scaled, bool wantsW>
SLUICE_INLINE Lanes backwardRow(const T* grad, const T* x, const T* w, float r, float* wGrad, float* scratch,
                                int64_t count) {
  const Lanes v = load(x, count);
  Lanes g = load(grad, count);
  if constexpr (scaled) {
    const Lanes scale = load(w, count);
    if constexpr (act == Act::kGeluTanh) g *= geluSlope(v * r * scale);
    if constexpr (wantsW) store(wGrad, count, load(wGrad, count) + g * v * r);
    g *= scale;
  }
  store(scratch, count, g);
  return g * v;
}

template <class T, Act act, bool scaled, bool wantsW>
static void backwardRows(const T* grad, const T* x, const T* w, const float* inverse, T* xGrad, float* wGrad,
                         float* scratch, int64_t rows, int64_t size) {
  const int64_t whole = size - size % kLanes, rest = size % kLanes;
  for (int64_t row = 0; row < rows; ++row, x += size, grad += size, xGrad += size) {
    const float r = inverse[row];
    Lanes dots = {};
    for (int64_t i = 0; i < whole; i += kLanes)
      dots += backwardRow<T, act, scaled, wantsW>(grad + i, x + i, w + i, r, wGrad + i, scratch + i, kLanes);
    if (rest)
      dots += backwardRow<T, act, scaled, wantsW>(grad + whole, x + whole, w + whole, r, wGrad + whole,
                                                  scratch + whole, rest);
    const float mean = sum(dots) * r * r / (float)size;
    for (int64_t i = 0; i < whole; i += kLanes)
      store(xGrad + i, kLanes, r * (load(scratch + i, kLanes) - load(x + i, kLanes) * mean));
    if (rest) store(xGrad + whole, rest, r * (load(scratch + whole, rest) - load(x + whole, rest) * mean));
  }
}

template <class T>
void rmsNormForward(const T* x, const T* w, T* y, float* inverse, int64_t rows, int64_t size, float eps, Act act) {
  const auto kernel = !w                      ? forwardRows<T, Act::kNone, false>
                      : act == Act::kGeluTanh ? forwardRows<T, Act::kGeluTanh, true>
                                              : forwardRows<T, Act::kNone, true>;
  kernel(x, w ? w : x, y, inverse, rows, size, eps);
}

template <class T>
void rmsNormBackward(const T* grad, const T* x, const T* w, const float* inverse, T* xGrad, float* wGrad,
                     float* scratch, int64_t rows, int64_t size, Act act) {
  const bool gelu = act == Act::kGeluTanh;
  const auto kernel = !w      ? backwardRows<T, Act::kNone, false, false>
                      : wGrad ? (gelu ? backwardRows<T, Act::kGeluTanh, true, true>
                                      : backwardRows<T, Act::kNone, true, true>)
                              : (gelu ? backwardRows<T, Act::kGeluTanh, true, false>
                                      : backwardRows<T, Act::kNone, true, false>);
  kernel(grad, x, w ? w : x, inverse, xGrad, wGrad ? wGrad : scratch, scratch, rows, size);
}

template void rmsNormForward(const float*, const float*, float*, float*, int64_t, int64_t, float, Act);
template void rmsNormForward(const uint16_t*, const uint16_t*, uint16_t*, float*, int64_t, int64_t, float, Act);
template void rmsNormBackward(const float*, const float*, const float*, const float*, float*, float*, float*, int64_t,
                              int64_t, Act);
template void rmsNormBackward(const uint16_t*, const uint16_t*, const uint16_t*, const float*, uint16_t*, float*,
                              float*, int64_t, int64_t, Act);

}  // namespace sluice
