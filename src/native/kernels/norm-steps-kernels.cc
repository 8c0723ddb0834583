// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "norm-steps-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

template <class T>
SLUICE_INLINE float inverseRms(const T* x, int64_t size, float eps) {
  Lanes squares = {};
  forLanes(size, [&](int64_t at, int64_t n) {
    const Lanes v = load(x + at, n);
    squares += v * v;
  });
  return 1.0f / sqrtf(sum(squares) / (float)size + eps);
}

}  // namespace

template <class B, class T>
void normAdd(const T* x, const T* w, const T* residual, T* y, float* inverse, int64_t rows, int64_t size, float eps) {
  for (int64_t row = 0; row < rows; ++row, x += size, residual += size, y += size) {
    const float r = inverse[row] = inverseRms(x, size, eps);
    forLanes(size, [&](int64_t at, int64_t n) {
      store(y + at, load(residual + at, n) + load(x + at, n) * r * load(w + at, n), n);
    });
  }
}

template <class B, class T>
void normJoin(const T* a, const T* b, const T* x, const T* w, const T* z, const T* v, T* y, float* inverseX,
              float* inverseZ, int64_t rows, int64_t size, float eps, float scale) {
  for (int64_t row = 0; row < rows; ++row, a += size, b += size, x += size, z += size, y += size) {
    const float r = inverseX[row] = inverseRms(x, size, eps), s = inverseZ[row] = inverseRms(z, size, eps);
    forLanes(size, [&](int64_t at, int64_t n) {
      const Lanes plain = load(a + at, n) + load(b + at, n);
      const Lanes normed = load(x + at, n) * r * load(w + at, n) + load(z + at, n) * s * load(v + at, n);
      store(y + at, (plain + normed) * scale, n);
    });
  }
}

template <class B, class T>
void scaled(const T* x, T* y, int64_t count, float scale) {
  forLanes(count, [&](int64_t at, int64_t n) { store(y + at, load(x + at, n) * scale, n); });
}

template <class B, class T>
float normRotate(const T* x, const T* w, const T* cos, const T* signedSin, T* y, int64_t size, float eps) {
  const float r = inverseRms(x, size, eps);
  float normed[kMostHeadSize + kMostHeadSize / 2];  // its first half again at the end: swapped, they are from `half` on
  forLanes(size, [&](int64_t at, int64_t n) {
    Lanes v = load(x + at, n) * r;
    if (w) v *= load(w + at, n);
    store(normed + at, v, n);
  });
  if (!cos) {
    forLanes(size, [&](int64_t at, int64_t n) { store(y + at, load(normed + at, n), n); });
    return r;
  }
  const int64_t half = size / 2;
  memcpy(normed + size, normed, half * sizeof(float));
  forLanes(size, [&](int64_t at, int64_t n) {
    const Lanes swapped = load(normed + half + at, n);
    store(y + at, load(normed + at, n) * load(cos + at, n) + swapped * load(signedSin + at, n), n);
  });
  return r;
}

template <class B, class T>
void normRotateBackward(const T* grad, const T* x, const T* w, const T* cos, const T* signedSin, float inverse,
                        T* xGrad, float* wGrad, int64_t size) {
  float turned[kMostHeadSize + kMostHeadSize / 2], ofNormed[kMostHeadSize];
  const int64_t half = size / 2;
  if (cos) {
    forLanes(size, [&](int64_t at, int64_t n) { store(turned + at, load(grad + at, n) * load(signedSin + at, n), n); });
    memcpy(turned + size, turned, half * sizeof(float));
  }
  Lanes dots = {};
  forLanes(size, [&](int64_t at, int64_t n) {
    Lanes g = load(grad + at, n);
    if (cos) g = g * load(cos + at, n) + load(turned + half + at, n);
    const Lanes v = load(x + at, n);
    if (wGrad) store(wGrad + at, load(wGrad + at, n) + g * v * inverse, n);
    if (w) g *= load(w + at, n);
    dots += g * v;
    store(ofNormed + at, g, n);
  });
  const float mean = sum(dots) * inverse * inverse / (float)size;
  forLanes(size, [&](int64_t at, int64_t n) {
    store(xGrad + at, inverse * (load(ofNormed + at, n) - load(x + at, n) * mean), n);
  });
}

#define SLUICE_NORM_STEPS(T)                                                                                           \
  template void normAdd<Build>(const T*, const T*, const T*, T*, float*, int64_t, int64_t, float);                     \
  template void normJoin<Build>(const T*, const T*, const T*, const T*, const T*, const T*, T*, float*, float*,        \
                                int64_t, int64_t, float, float);                                                       \
  template void scaled<Build>(const T*, T*, int64_t, float);                                                           \
  template float normRotate<Build>(const T*, const T*, const T*, const T*, T*, int64_t, float);                        \
  template void normRotateBackward<Build>(const T*, const T*, const T*, const T*, const T*, float, T*, float*, int64_t);
SLUICE_NORM_STEPS(float)
SLUICE_NORM_STEPS(uint16_t)

}  // namespace sluice
