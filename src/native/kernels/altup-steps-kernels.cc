// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "altup-steps-kernels.h"

#include "lanes.h"

namespace sluice {

template <class B, class T>
void altupRoute(const T* x, const T* norm, const T* router, const T* coefs, T* y, float* inverse, float* routed,
                int64_t rows, int64_t size, int64_t num, int64_t outs, float eps, float scale, float addend) {
  for (int64_t row = 0; row < rows; ++row, x += size, y += outs, routed += num) {
    Lanes squares = {};
    forLanes(size, [&](int64_t at, int64_t n) {
      const Lanes v = load(x + at, n);
      squares += v * v;
    });
    const float r = inverse[row] = 1.0f / sqrtf(sum(squares) / (float)size + eps);
    Lanes sums = {};
    for (int64_t i = 0; i < num; ++i) {
      Lanes dots = {};
      const T* to = router + i * size;
      forLanes(size, [&](int64_t at, int64_t n) { dots += load(x + at, n) * load(norm + at, n) * load(to + at, n); });
      sums[i] = sum(dots) * (r * scale);
    }
    store(routed, fastTanh(sums), num);
    for (int64_t out = 0; out < outs; ++out) {
      float total = addend;
      for (int64_t i = 0; i < num; ++i) total += numberAt(coefs + out * num + i) * routed[i];
      setNumber(y + out, total);
    }
  }
}

template <class B, class T>
void altupRouteBackward(const T* grad, const T* x, const T* norm, const T* router, const T* coefs,
                        const float* inverse, const float* routed, T* xGrad, const RouteGrads& grads, float* scratch,
                        int64_t rows, int64_t size, int64_t num, int64_t outs, float scale) {
  for (int64_t row = 0; row < rows; ++row, x += size, xGrad += size, grad += outs, routed += num) {
    const float r = inverse[row];
    float ofSums[kMostRouted];
    for (int64_t i = 0; i < num; ++i) {
      float total = 0;
      for (int64_t out = 0; out < outs; ++out) {
        total += numberAt(grad + out) * numberAt(coefs + out * num + i);
        if (grads.coefs) grads.coefs[out * num + i] += numberAt(grad + out) * routed[i];
      }
      ofSums[i] = total * (1.0f - routed[i] * routed[i]) * scale;
    }
    Lanes dots = {};
    forLanes(size, [&](int64_t at, int64_t n) {
      const Lanes v = load(x + at, n), w = load(norm + at, n);
      Lanes g = {};
      for (int64_t i = 0; i < num; ++i) {
        g += ofSums[i] * load(router + i * size + at, n);
        if (grads.router) {
          float* to = grads.router + i * size + at;
          store(to, load(to, n) + ofSums[i] * r * v * w, n);
        }
      }
      if (grads.norm) store(grads.norm + at, load(grads.norm + at, n) + g * v * r, n);
      g *= w;
      dots += g * v;
      store(scratch + at, g, n);
    });
    const float mean = sum(dots) * r * r / (float)size;
    forLanes(size, [&](int64_t at, int64_t n) {
      store(xGrad + at, r * (load(scratch + at, n) - load(x + at, n) * mean), n);
    });
  }
}

template <class B, class T>
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

template <class B, class T>
void altupInnovateBackward(const T* innovationGrad, const T* firstGrad, const T* innovation, const T* predicted,
                           const T* coefs, const T* scale, T* activatedGrad, T* predictedGrad, T* coefsGrad,
                           float* scaleGrad, int64_t rows, int64_t size, int64_t num, int64_t active) {
  for (int64_t row = 0; row < rows; ++row, coefs += num, coefsGrad += num) {
    const float own = numberAt(coefs + active);
    const int64_t start = row * size;
    Lanes dots = {};
    forLanes(size, [&](int64_t at, int64_t n) {
      const Lanes news = load(innovation + start + at, n);
      Lanes ofFirst = firstGrad ? load(firstGrad + start + at, n) : Lanes{};
      if (scaleGrad) {
        const Lanes after = load(predicted + start + at, n) + own * news;
        store(scaleGrad + at, load(scaleGrad + at, n) + ofFirst * after, n);
      }
      if (scale) ofFirst *= load(scale + at, n);
      dots += ofFirst * news;
      Lanes ofNews = own * ofFirst;
      if (innovationGrad) ofNews += load(innovationGrad + start + at, n);
      store(activatedGrad + start + at, ofNews, n);
      store(predictedGrad + start + at, ofFirst - ofNews, n);
    });
    for (int64_t i = 0; i < num; ++i) setNumber(coefsGrad + i, 0.0f);
    setNumber(coefsGrad + active, sum(dots));
  }
}

#define SLUICE_ALTUP_STEPS(T)                                                                                          \
  template void altupRoute<Build>(const T*, const T*, const T*, const T*, T*, float*, float*, int64_t, int64_t,        \
                                  int64_t, int64_t, float, float, float);                                              \
  template void altupRouteBackward<Build>(const T*, const T*, const T*, const T*, const T*, const float*,              \
                                          const float*, T*, const RouteGrads&, float*, int64_t, int64_t, int64_t,      \
                                          int64_t, float);                                                             \
  template void altupInnovate<Build>(const T*, const T*, const T*, const T*, T*, T*, int64_t, int64_t, int64_t,        \
                                     int64_t);                                                                         \
  template void altupInnovateBackward<Build>(const T*, const T*, const T*, const T*, const T*, const T*, T*, T*, T*,   \
                                             float*, int64_t, int64_t, int64_t, int64_t);
SLUICE_ALTUP_STEPS(float)
SLUICE_ALTUP_STEPS(uint16_t)

}  // namespace sluice
