// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "sparse-gate-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

struct Spread {
  float mean, deviation;
};

template <class T>
SLUICE_INLINE Spread spreadOf(const T* x, int64_t size) {
  Lanes total = {}, squares = {};
  forLanes(size, [&](int64_t at, int64_t n) { total += load(x + at, n); });
  const float mean = sum(total) / (float)size;
  forLanes(size, [&](int64_t at, int64_t n) {
    Lanes off = load(x + at, n) - mean;
    for (int64_t i = n; i < kLanes; ++i) off[i] = 0;
    squares += off * off;
  });
  return {mean, sqrtf(sum(squares) / (float)size)};
}

}  // namespace

template <class B, class T>
void sparseGate(const T* x, T* y, int64_t rows, int64_t size, float cutoff) {
  for (int64_t row = 0; row < rows; ++row, x += size, y += size) {
    const Spread spread = spreadOf(x, size);
    const float floor = spread.mean + cutoff * spread.deviation;
    forLanes(size, [&](int64_t at, int64_t n) {
      const Lanes above = load(x + at, n) - floor;
      store(y + at, above < 0.0f ? Lanes{} : above, n);  // keeps NaN
    });
  }
}

template <class B, class T>
void sparseGateBackward(const T* grad, const T* x, T* xGrad, int64_t rows, int64_t size, float cutoff) {
  for (int64_t row = 0; row < rows; ++row, grad += size, x += size, xGrad += size) {
    const auto [mean, deviation] = spreadOf(x, size);
    const float floor = mean + cutoff * deviation;
    const auto passed = [&](int64_t at, int64_t n) __attribute__((always_inline)) {
      const Lanes g = load(grad + at, n);
      return load(x + at, n) > floor ? g : Lanes{};
    };
    Lanes open = {};
    forLanes(size, [&](int64_t at, int64_t n) { open += passed(at, n); });
    // What lies beyond the end of a row is zero in grad.
    const float ofMean = -sum(open) / (float)size;
    const float ofOff = deviation > 0 ? ofMean * cutoff / deviation : 0;
    forLanes(size, [&](int64_t at, int64_t n) {
      store(xGrad + at, passed(at, n) + ofMean + ofOff * (load(x + at, n) - mean), n);
    });
  }
}

#define SLUICE_SPARSE_GATE(T)                                                              \
  template void sparseGate<Build>(const T*, T*, int64_t, int64_t, float);                  \
  template void sparseGateBackward<Build>(const T*, const T*, T*, int64_t, int64_t, float);
SLUICE_SPARSE_GATE(float)
SLUICE_SPARSE_GATE(uint16_t)

}  // namespace sluice
