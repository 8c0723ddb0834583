// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "rms-norm-kernels.h"

#include "lanes.h"

namespace sluice {

template <class T, Act act, bool scaled>
SLUICE_INLINE void forwardRow(const T* x, const T* w, T* y, float r, int64_t count) {
  Lanes n = load(x, count) * r;
  if constexpr (scaled) n *= load(w, count);
  if constexpr (act == Act::kGeluTanh) n *= geluGate(n);
  store(y, n, count);
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
    if constexpr (act == Act::kGeluTanh) {
      const Lanes n = v * r * scale;
      g *= geluSlope(n, geluGate(n));
    }
    if constexpr (wantsW) store(wGrad, load(wGrad, count) + g * v * r, count);
    g *= scale;
  }
  store(scratch, g, count);
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
      store(xGrad + i, r * (load(scratch + i) - load(x + i) * mean));
    if (rest) store(xGrad + whole, r * (load(scratch + whole, rest) - load(x + whole, rest) * mean), rest);
  }
}

template <class B, class T>
void rmsNormForward(const T* x, const T* w, T* y, float* inverse, int64_t rows, int64_t size, float eps, Act act) {
  const auto kernel = !w                      ? forwardRows<T, Act::kNone, false>
                      : act == Act::kGeluTanh ? forwardRows<T, Act::kGeluTanh, true>
                                              : forwardRows<T, Act::kNone, true>;
  kernel(x, w ? w : x, y, inverse, rows, size, eps);
}

template <class B, class T>
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

template void rmsNormForward<Build>(const float*, const float*, float*, float*, int64_t, int64_t, float, Act);
template void rmsNormForward<Build>(const uint16_t*, const uint16_t*, uint16_t*, float*, int64_t, int64_t, float, Act);
template void rmsNormBackward<Build>(const float*, const float*, const float*, const float*, float*, float*, float*, int64_t,
                              int64_t, Act);
template void rmsNormBackward<Build>(const uint16_t*, const uint16_t*, const uint16_t*, const float*, uint16_t*, float*,
                              float*, int64_t, int64_t, Act);

}  // namespace sluice
