// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "altup-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

/// The gradient of copy i, by whichever way it was used.
template <class T>
SLUICE_INLINE Lanes gradOf(const T* grad, const T* activeGrad, const AltupSizes& s, int64_t i, int64_t at, int64_t n) {
  Lanes g = grad ? load(grad + i * s.size + at, n) : Lanes{};
  if (activeGrad && i == s.active) g += load(activeGrad + at, n);
  return g;
}

template <class T, int64_t num>
void predict(const AltupSizes& s, const T* copies, const T* mixing, T* predictions, T* active) {
  for (int64_t token = 0; token < s.tokens; ++token) {
    float m[num][num];
    for (int64_t i = 0; i < num; ++i)
      for (int64_t j = 0; j < num; ++j) m[i][j] = numberAt(mixing + i * num + j);
    forLanes(s.size, [&](int64_t at, int64_t n) {
      Lanes c[num];
      for (int64_t j = 0; j < num; ++j) c[j] = load(copies + j * s.size + at, n);
      for (int64_t i = 0; i < num; ++i) {
        if (!predictions && i != s.active) continue;
        Lanes p = c[i];
        for (int64_t j = 0; j < num; ++j) p += m[i][j] * c[j];
        if (predictions) store(predictions + i * s.size + at, p, n);
        if (i == s.active) store(active + at, p, n);
      }
    });
    if (predictions) predictions += num * s.size;
    copies += num * s.size, mixing += num * num, active += s.size;
  }
}

template <class T, int64_t num>
void predictBackward(const AltupSizes& s, const T* grad, const T* activeGrad, const T* copies, const T* mixing,
                     T* copiesGrad, T* mixingGrad) {
  for (int64_t token = 0; token < s.tokens; ++token) {
    float m[num][num];
    Lanes dots[num][num] = {};
    for (int64_t i = 0; i < num; ++i)
      for (int64_t j = 0; j < num; ++j) m[i][j] = numberAt(mixing + i * num + j);
    forLanes(s.size, [&](int64_t at, int64_t n) {
      Lanes g[num];
      for (int64_t i = 0; i < num; ++i) g[i] = gradOf(grad, activeGrad, s, i, at, n);
      for (int64_t j = 0; j < num; ++j) {
        const Lanes c = load(copies + j * s.size + at, n);
        Lanes d = g[j];
        for (int64_t i = 0; i < num; ++i) {
          d += m[i][j] * g[i];
          dots[i][j] += g[i] * c;
        }
        store(copiesGrad + j * s.size + at, d, n);
      }
    });
    for (int64_t i = 0; i < num; ++i)
      for (int64_t j = 0; j < num; ++j) setNumber(mixingGrad + i * num + j, sum(dots[i][j]));
    if (grad) grad += num * s.size;
    if (activeGrad) activeGrad += s.size;
    copies += num * s.size, copiesGrad += num * s.size, mixing += num * num, mixingGrad += num * num;
  }
}

template <class T, int64_t num>
void correct(const AltupSizes& s, const T* predictions, const T* innovation, const T* coefs, const T* addition,
             T* copies, T* active) {
  for (int64_t token = 0; token < s.tokens; ++token) {
    float k[num];
    for (int64_t i = 0; i < num; ++i) k[i] = numberAt(coefs + i);
    forLanes(s.size, [&](int64_t at, int64_t n) {
      const Lanes news = load(innovation + at, n), more = load(addition + at, n);
      for (int64_t i = 0; i < num; ++i) {
        Lanes c = load(predictions + i * s.size + at, n) + k[i] * news;
        if (i > 0) c += more;
        store(copies + i * s.size + at, c, n);
        if (i == s.active) store(active + at, c, n);
      }
    });
    predictions += num * s.size, copies += num * s.size, coefs += num;
    innovation += s.size, addition += s.size, active += s.size;
  }
}

template <class T, int64_t num>
void correctBackward(const AltupSizes& s, const T* grad, const T* activeGrad, const T* innovation, const T* coefs,
                     T* predictionsGrad, T* innovationGrad, T* coefsGrad, T* additionGrad) {
  for (int64_t token = 0; token < s.tokens; ++token) {
    float k[num];
    Lanes dots[num] = {};
    for (int64_t i = 0; i < num; ++i) k[i] = numberAt(coefs + i);
    forLanes(s.size, [&](int64_t at, int64_t n) {
      const Lanes news = load(innovation + at, n);
      Lanes newsGrad = {}, moreGrad = {};
      for (int64_t i = 0; i < num; ++i) {
        const Lanes g = gradOf(grad, activeGrad, s, i, at, n);
        newsGrad += k[i] * g;
        if (i > 0) moreGrad += g;
        dots[i] += g * news;
        store(predictionsGrad + i * s.size + at, g, n);
      }
      store(innovationGrad + at, newsGrad, n);
      store(additionGrad + at, moreGrad, n);
    });
    for (int64_t i = 0; i < num; ++i) setNumber(coefsGrad + i, sum(dots[i]));
    if (grad) grad += num * s.size;
    if (activeGrad) activeGrad += s.size;
    predictionsGrad += num * s.size, coefs += num, coefsGrad += num;
    innovation += s.size, innovationGrad += s.size, additionGrad += s.size;
  }
}

/// The kernel for the number of copies, which the compiler unrolls.
#define SLUICE_BY_COPIES(kernel, ...)                              \
  switch (sizes.num) {                                             \
    case 1: return kernel<T, 1>(sizes, __VA_ARGS__);               \
    case 2: return kernel<T, 2>(sizes, __VA_ARGS__);               \
    case 3: return kernel<T, 3>(sizes, __VA_ARGS__);               \
    case 4: return kernel<T, 4>(sizes, __VA_ARGS__);               \
    case 5: return kernel<T, 5>(sizes, __VA_ARGS__);               \
    case 6: return kernel<T, 6>(sizes, __VA_ARGS__);               \
    case 7: return kernel<T, 7>(sizes, __VA_ARGS__);               \
    default: return kernel<T, kMostCopies>(sizes, __VA_ARGS__);    \
  }

}  // namespace

template <class B, class T>
void altupPredict(const AltupSizes& sizes, const T* copies, const T* mixing, T* predictions, T* active) {
  SLUICE_BY_COPIES(predict, copies, mixing, predictions, active)
}

template <class B, class T>
void altupPredictBackward(const AltupSizes& sizes, const T* grad, const T* activeGrad, const T* copies,
                          const T* mixing, T* copiesGrad, T* mixingGrad) {
  SLUICE_BY_COPIES(predictBackward, grad, activeGrad, copies, mixing, copiesGrad, mixingGrad)
}

template <class B, class T>
void altupCorrect(const AltupSizes& sizes, const T* predictions, const T* innovation, const T* coefs,
                  const T* addition, T* copies, T* active) {
  SLUICE_BY_COPIES(correct, predictions, innovation, coefs, addition, copies, active)
}

template <class B, class T>
void altupCorrectBackward(const AltupSizes& sizes, const T* grad, const T* activeGrad, const T* innovation,
                          const T* coefs, T* predictionsGrad, T* innovationGrad, T* coefsGrad, T* additionGrad) {
  SLUICE_BY_COPIES(correctBackward, grad, activeGrad, innovation, coefs, predictionsGrad, innovationGrad, coefsGrad,
                   additionGrad)
}

#define SLUICE_ALTUP(T)                                                                                         \
  template void altupPredict<Build>(const AltupSizes&, const T*, const T*, T*, T*);                                    \
  template void altupPredictBackward<Build>(const AltupSizes&, const T*, const T*, const T*, const T*, T*, T*);        \
  template void altupCorrect<Build>(const AltupSizes&, const T*, const T*, const T*, const T*, T*, T*);                \
  template void altupCorrectBackward<Build>(const AltupSizes&, const T*, const T*, const T*, const T*, T*, T*, T*, T*);
SLUICE_ALTUP(float)
SLUICE_ALTUP(uint16_t)

}  // namespace sluice
