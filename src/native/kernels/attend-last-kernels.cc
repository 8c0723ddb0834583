// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "attend-last-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

constexpr float kHidden = -INFINITY;

/// scores[g, s] of `num` queries, `keys` apart.
template <class T, int num>
void score(const AttendLastSizes& n, const float* q, const T* k, float* scores) {
  for (int64_t s = 0; s < n.keys; ++s, k += n.keyStride) {
    Lanes dots[num] = {};
    forLanes(n.size, [&](int64_t at, int64_t count) {
      const Lanes key = load(k + at, count);
      for (int g = 0; g < num; ++g) dots[g] += key * load(q + g * n.size + at, count);
    });
    for (int g = 0; g < num; ++g) scores[g * n.keys + s] = sum(dots[g]) * n.scale;
  }
}

/// In place; returns 1 / the sum, or 0 where every key is hidden.
float weigh(float* scores, int64_t keys) {
  float most = kHidden;
  for (int64_t s = 0; s < keys; ++s) most = scores[s] > most || scores[s] != scores[s] ? scores[s] : most;
  if (most == kHidden) {
    memset(scores, 0, keys * sizeof(float));
    return 0;
  }
  Lanes total = {};
  forLanes(keys, [&](int64_t at, int64_t count) {
    const Lanes x = load(scores + at, count) - most;
    Lanes weights = x > -87.0f ? fastExp(x) : x == x ? Lanes{} : x;  // keeps NaN
    for (int64_t i = count; i < kLanes; ++i) weights[i] = 0;
    total += weights;
    store(scores + at, weights, count);
  });
  return 1.0f / sum(total);
}

/// Two lanes' width of y[g] for `num` queries at a time: their sums stay in registers.
template <class T, int num>
void gather(const AttendLastSizes& n, const float* weights, const T* v, const float* inverse, T* y) {
  constexpr int64_t wide = 2 * kLanes;
  for (int64_t at = 0; at < n.size; at += wide) {
    const int64_t count = n.size - at < wide ? n.size - at : wide;
    const int64_t first = count < kLanes ? count : kLanes, second = count - first;
    Lanes low[num] = {}, high[num] = {};
    const T* value = v + at;
    for (int64_t s = 0; s < n.keys; ++s, value += n.valueStride) {
      const Lanes left = load(value, first), right = second ? load(value + kLanes, second) : Lanes{};
      for (int g = 0; g < num; ++g) {
        low[g] += left * weights[g * n.keys + s];
        high[g] += right * weights[g * n.keys + s];
      }
    }
    for (int g = 0; g < num; ++g) {
      store(y + g * n.size + at, low[g] * inverse[g], first);
      if (second) store(y + g * n.size + at + kLanes, high[g] * inverse[g], second);
    }
  }
}

template <class T, int num>
void attend(const AttendLastSizes& n, const float* q, const T* k, const T* v, const bool* mask, T* y, float* scores) {
  score<T, num>(n, q, k, scores);
  float inverse[num];
  for (int g = 0; g < num; ++g) {
    float* row = scores + g * n.keys;
    if (mask)
      for (int64_t s = 0; s < n.keys; ++s) row[s] = mask[s] ? row[s] : kHidden;
    inverse[g] = weigh(row, n.keys);
  }
  gather<T, num>(n, scores, v, inverse, y);
}

}  // namespace

template <class T>
void attendLast(const AttendLastSizes& sizes, const T* q, const T* k, const T* v, const bool* mask, T* y,
                float* scratch) {
  constexpr decltype(&attend<T, 1>) kernels[] = {attend<T, 1>, attend<T, 2>, attend<T, 3>, attend<T, 4>};
  float* const wide = scratch + sizes.group * sizes.keys;
  forLanes(sizes.group * sizes.size, [&](int64_t at, int64_t count) { store(wide + at, load(q + at, count), count); });
  for (int64_t g = 0; g < sizes.group; g += 4) {
    const int64_t num = sizes.group - g < 4 ? sizes.group - g : 4, at = g * sizes.size;
    kernels[num - 1](sizes, wide + at, k, v, mask, y + at, scratch + g * sizes.keys);
  }
}

template void attendLast(const AttendLastSizes&, const float*, const float*, const float*, const bool*, float*, float*);
template void attendLast(const AttendLastSizes&, const uint16_t*, const uint16_t*, const uint16_t*, const bool*,
                         uint16_t*, float*);

}  // namespace sluice
