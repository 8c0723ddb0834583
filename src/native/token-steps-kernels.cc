// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "token-steps-kernels.h"

#include "lanes.h"

namespace sluice {

bool hasTokenStepKernels() { return hasLanes(); }

template <class T>
SLUICE_INLINE float inverseRms(const T* x, int64_t size, float eps) {
  Lanes squares = {};
  forLanes(size, [&](int64_t at, int64_t n) {
    const Lanes v = load(x + at, n);
    squares += v * v;
  });
  return 1.0f / sqrtf(sum(squares) / (float)size + eps);
}

template <class T>
void normAdd(const T* x, const T* w, const T* residual, T* y, int64_t rows, int64_t size, float eps) {
  for (int64_t row = 0; row < rows; ++row, x += size, residual += size, y += size) {
    const float r = inverseRms(x, size, eps);
    forLanes(size, [&](int64_t at, int64_t n) {
      store(y + at, load(residual + at, n) + load(x + at, n) * r * load(w + at, n), n);
    });
  }
}

template <class T>
void normRotate(const T* x, const T* w, const T* cos, const T* signedSin, T* y, int64_t size, float eps) {
  const float r = inverseRms(x, size, eps);
  float normed[kMostHeadSize + kMostHeadSize / 2];  // its first half again at the end: swapped, they are from `half` on
  forLanes(size, [&](int64_t at, int64_t n) {
    Lanes v = load(x + at, n) * r;
    if (w) v *= load(w + at, n);
    store(normed + at, v, n);
  });
  if (!cos) return forLanes(size, [&](int64_t at, int64_t n) { store(y + at, load(normed + at, n), n); });
  const int64_t half = size / 2;
  memcpy(normed + size, normed, half * sizeof(float));
  forLanes(size, [&](int64_t at, int64_t n) {
    const Lanes swapped = load(normed + half + at, n);
    store(y + at, load(normed + at, n) * load(cos + at, n) + swapped * load(signedSin + at, n), n);
  });
}

template <class T>
void sparseGate(const T* x, T* y, int64_t rows, int64_t size, float cutoff) {
  for (int64_t row = 0; row < rows; ++row, x += size, y += size) {
    Lanes total = {}, squares = {};
    forLanes(size, [&](int64_t at, int64_t n) { total += load(x + at, n); });
    const float mean = sum(total) / (float)size;
    forLanes(size, [&](int64_t at, int64_t n) {
      Lanes off = load(x + at, n) - mean;
      for (int64_t i = n; i < kLanes; ++i) off[i] = 0;
      squares += off * off;
    });
    const float floor = mean + cutoff * sqrtf(sum(squares) / (float)size);
    forLanes(size, [&](int64_t at, int64_t n) {
      const Lanes above = load(x + at, n) - floor;
      store(y + at, above < 0.0f ? Lanes{} : above, n);  // keeps NaN
    });
  }
}

template <class T>
void altupRoute(const T* x, const T* norm, const T* router, const T* coefs, T* y, int64_t rows, int64_t size,
                int64_t num, int64_t outs, float eps, float scale, float addend) {
  for (int64_t row = 0; row < rows; ++row, x += size, y += outs) {
    const float r = inverseRms(x, size, eps) * scale;
    Lanes routed = {};
    for (int64_t i = 0; i < num; ++i) {
      Lanes dots = {};
      const T* to = router + i * size;
      forLanes(size, [&](int64_t at, int64_t n) { dots += load(x + at, n) * load(norm + at, n) * load(to + at, n); });
      routed[i] = sum(dots) * r;
    }
    routed = fastTanh(routed);
    for (int64_t out = 0; out < outs; ++out) {
      float total = addend;
      for (int64_t i = 0; i < num; ++i) total += numberAt(coefs + out * num + i) * routed[i];
      setNumber(y + out, total);
    }
  }
}

template <class T>
void altupInnovate(const T* activated, const T* predicted, const T* coefs, const T* scale, T* innovation, T* first,
                   int64_t rows, int64_t size, int64_t num, int64_t active) {
  for (int64_t row = 0; row < rows; ++row) {
    const float own = numberAt(coefs + row * num + active);
    const int64_t start = row * size;
    forLanes(size, [&](int64_t at, int64_t n) {
      const Lanes before = load(predicted + start + at, n), news = load(activated + start + at, n) - before;
      store(innovation + start + at, news, n);
      const Lanes after = before + own * news;
      store(first + start + at, scale ? after * load(scale + at, n) : after, n);
    });
  }
}

#define SLUICE_TOKEN_STEPS(T)                                                                                          \
  template void normAdd(const T*, const T*, const T*, T*, int64_t, int64_t, float);                                    \
  template void normRotate(const T*, const T*, const T*, const T*, T*, int64_t, float);                                \
  template void sparseGate(const T*, T*, int64_t, int64_t, float);                                                     \
  template void altupRoute(const T*, const T*, const T*, const T*, T*, int64_t, int64_t, int64_t, int64_t, float,      \
                           float, float);                                                                              \
  template void altupInnovate(const T*, const T*, const T*, const T*, T*, T*, int64_t, int64_t, int64_t, int64_t);
SLUICE_TOKEN_STEPS(float)
SLUICE_TOKEN_STEPS(uint16_t)

}  // namespace sluice
