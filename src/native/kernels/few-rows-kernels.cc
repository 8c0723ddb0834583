// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "few-rows-kernels.h"

#include "lanes.h"

namespace sluice {

template <class T>
void widen(const T* x, float* y, int64_t count) {
  forLanes(count, [&](int64_t at, int64_t n) { store(y + at, load(x + at, n), n); });
}

/// One row of the weight against `num` rows of x. It is read as one stream, which the processor fetches ahead; few sums
/// would each wait for the one before, so that a few rows have several sums each.
template <class T, int num>
void rowsOf(const float* x, const T* weight, const T* bias, T* y, int64_t size, int64_t stride, int64_t columns,
            int64_t begin, int64_t end) {
  constexpr int steps = num == 1 ? 4 : num < 4 ? 2 : 1;
  const int64_t whole = size - size % (steps * kLanes);
  for (int64_t n = begin; n < end; ++n) {
    const T* w = weight + n * stride;
    Lanes sums[steps][num] = {};
    for (int64_t k = 0; k < whole; k += steps * kLanes) {
      for (int step = 0; step < steps; ++step) {
        const Lanes lanes = load(w + k + step * kLanes, kLanes);
        for (int m = 0; m < num; ++m) sums[step][m] += lanes * load(x + m * size + k + step * kLanes, kLanes);
      }
    }
    for (int64_t k = whole; k < size; k += kLanes) {
      const int64_t count = size - k < kLanes ? size - k : kLanes;
      const Lanes lanes = load(w + k, count);
      for (int m = 0; m < num; ++m) sums[0][m] += lanes * load(x + m * size + k, count);
    }
    for (int m = 0; m < num; ++m) {
      for (int step = 1; step < steps; ++step) sums[0][m] += sums[step][m];
      setNumber(y + m * columns + n, sum(sums[0][m]) + (bias ? numberAt(bias + n) : 0.0f));
    }
  }
}

template <class T>
void fewRowsProduct(const float* x, const T* weight, const T* bias, T* y, int64_t rows, int64_t size, int64_t stride,
                    int64_t columns, int64_t begin, int64_t end) {
  constexpr decltype(&rowsOf<T, 1>) kernels[kMostFewRows] = {rowsOf<T, 1>, rowsOf<T, 2>, rowsOf<T, 3>, rowsOf<T, 4>,
                                                             rowsOf<T, 5>, rowsOf<T, 6>, rowsOf<T, 7>, rowsOf<T, 8>};
  kernels[rows - 1](x, weight, bias, y, size, stride, columns, begin, end);
}

template void widen(const float*, float*, int64_t);
template void widen(const uint16_t*, float*, int64_t);
template void fewRowsProduct(const float*, const float*, const float*, float*, int64_t, int64_t, int64_t, int64_t,
                             int64_t, int64_t);
template void fewRowsProduct(const float*, const uint16_t*, const uint16_t*, uint16_t*, int64_t, int64_t, int64_t,
                             int64_t, int64_t, int64_t);

}  // namespace sluice
