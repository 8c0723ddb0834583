// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "sparse-up-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

/// Tokens that are taken together: their x stays in the processor's second cache.
constexpr int64_t kTokens = 64;

template <class T>
float dot(const float* x, const T* w, int64_t size) {
  constexpr int64_t steps = 4;
  Lanes sums[steps] = {};
  int64_t i = 0;
  for (; i + steps * kLanes <= size; i += steps * kLanes)
    for (int64_t step = 0; step < steps; ++step)
      sums[step] += load(x + i + step * kLanes) * load(w + i + step * kLanes);
  for (; i < size; i += kLanes) {
    const int64_t count = size - i < kLanes ? size - i : kLanes;
    sums[0] += load(x + i, count) * load(w + i, count);
  }
  return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
void gateUnits(const T* gate, const float* x, const T* weight, T* y, int64_t size, int64_t count) {
  float ups[kUnits] = {};
  for (int64_t u = 0; u < count; ++u)
    if (numberAt(gate + u) != 0.0f) ups[u] = dot(x, weight + u * size, size);
  forLanes(count, [&](int64_t at, int64_t n) {
    const Lanes g = load(gate + at, n);
    store(y + at, g * geluGate(g) * load(ups + at, n), n);
  });
}

}  // namespace

template <class T>
void sparseUp(const SparseUpSizes& sizes, const T* gate, const float* x, const T* weight, T* y, int64_t begin,
              int64_t end) {
  const auto [tokens, size, units] = sizes;
  for (int64_t first = 0; first < tokens; first += kTokens) {
    const int64_t last = first + kTokens < tokens ? first + kTokens : tokens;
    for (int64_t unit = begin; unit < end; unit += kUnits) {
      const int64_t count = end - unit < kUnits ? end - unit : kUnits;
      for (int64_t token = first; token < last; ++token) {
        const int64_t at = token * units + unit;
        gateUnits(gate + at, x + token * size, weight + unit * size, y + at, size, count);
      }
    }
  }
}

template void sparseUp(const SparseUpSizes&, const float*, const float*, const float*, float*, int64_t, int64_t);
template void sparseUp(const SparseUpSizes&, const uint16_t*, const float*, const uint16_t*, uint16_t*, int64_t,
                       int64_t);

}  // namespace sluice
