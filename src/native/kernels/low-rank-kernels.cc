// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "low-rank-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

/// Rows of x that stay in the nearest cache while all of m meets their columns.
constexpr int64_t kRowBlock = 64;
constexpr int64_t kTile = 2 * kLanes;

template <class T, int numRows, int numRanks>
void downTile(const T* x, const float* m, float* d, int64_t size, int64_t stride) {
  Lanes sums[numRows][numRanks] = {};
  forLanes(size, [&](int64_t at, int64_t n) {
    Lanes lanes[numRows];
    for (int r = 0; r < numRows; ++r) lanes[r] = load(x + r * size + at, n);
    for (int k = 0; k < numRanks; ++k) {
      const Lanes other = load(m + k * size + at, n);
      for (int r = 0; r < numRows; ++r) sums[r][k] += lanes[r] * other;
    }
  });
  for (int r = 0; r < numRows; ++r)
    for (int k = 0; k < numRanks; ++k) d[r * stride + k] = sum(sums[r][k]);
}

template <class T, int numRows>
void downRows(const T* x, const float* m, float* d, int64_t size, int64_t rank, int64_t stride) {
  int64_t k = 0;
  for (; k + 4 <= rank; k += 4) downTile<T, numRows, 4>(x, m + k * size, d + k, size, stride);
  for (; k < rank; ++k) downTile<T, numRows, 1>(x, m + k * size, d + k, size, stride);
}

template <class T, int numRows, bool adds>
void upRows(const float* d, const float* m, T* y, int64_t size, int64_t rank, int64_t stride) {
  int64_t at = 0;
  for (; at + kTile <= size; at += kTile) {
    Lanes sums[numRows][2] = {};
    for (int64_t k = 0; k < rank; ++k) {
      const Lanes left = load(m + k * size + at), right = load(m + k * size + at + kLanes);
      for (int r = 0; r < numRows; ++r) {
        const Lanes factor = Lanes{} + d[r * stride + k];
        sums[r][0] += factor * left;
        sums[r][1] += factor * right;
      }
    }
    for (int r = 0; r < numRows; ++r) {
      T* to = y + r * size + at;
      store(to, adds ? load(to) + sums[r][0] : sums[r][0]);
      store(to + kLanes, adds ? load(to + kLanes) + sums[r][1] : sums[r][1]);
    }
  }
  for (; at < size; at += kLanes) {
    const int64_t n = size - at < kLanes ? size - at : kLanes;
    for (int r = 0; r < numRows; ++r) {
      Lanes total = {};
      for (int64_t k = 0; k < rank; ++k) total += d[r * stride + k] * load(m + k * size + at, n);
      T* to = y + r * size + at;
      store(to, adds ? load(to, n) + total : total, n);
    }
  }
}

template <class T, bool adds>
void upAll(const float* d, const float* m, T* y, int64_t rows, int64_t size, int64_t rank, int64_t stride) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) upRows<T, 4, adds>(d + row * stride, m, y + row * size, size, rank, stride);
  for (; row < rows; ++row) upRows<T, 1, adds>(d + row * stride, m, y + row * size, size, rank, stride);
}

/// Adds a block of rows to numRanks rows of m, at one tile of columns.
template <class T, int numRanks>
void outerTile(const float* d, const T* x, float* m, int64_t rows, int64_t size, int64_t stride) {
  Lanes sums[numRanks][2];
  for (int k = 0; k < numRanks; ++k) sums[k][0] = load(m + k * size), sums[k][1] = load(m + k * size + kLanes);
  for (int64_t row = 0; row < rows; ++row) {
    const Lanes left = load(x + row * size), right = load(x + row * size + kLanes);
    for (int k = 0; k < numRanks; ++k) {
      const Lanes factor = Lanes{} + d[row * stride + k];
      sums[k][0] += factor * left;
      sums[k][1] += factor * right;
    }
  }
  for (int k = 0; k < numRanks; ++k) store(m + k * size, sums[k][0]), store(m + k * size + kLanes, sums[k][1]);
}

/// The same for fewer columns than a tile.
template <class T>
void outerRest(const float* d, const T* x, float* m, int64_t rows, int64_t size, int64_t rank, int64_t stride,
               int64_t count) {
  for (int64_t k = 0; k < rank; ++k) {
    for (int64_t at = 0; at < count; at += kLanes) {
      const int64_t n = count - at < kLanes ? count - at : kLanes;
      Lanes total = load(m + k * size + at, n);
      for (int64_t row = 0; row < rows; ++row) total += d[row * stride + k] * load(x + row * size + at, n);
      store(m + k * size + at, total, n);
    }
  }
}

}  // namespace

template <class B, class T>
void lowRankDown(const T* x, const float* m, float* d, int64_t rows, int64_t size, int64_t rank, int64_t stride) {
  int64_t row = 0;
  for (; row + 2 <= rows; row += 2) downRows<T, 2>(x + row * size, m, d + row * stride, size, rank, stride);
  if (row < rows) downRows<T, 1>(x + row * size, m, d + row * stride, size, rank, stride);
}

template <class B, class T>
void lowRankUp(const float* d, const float* m, T* y, int64_t rows, int64_t size, int64_t rank, int64_t stride,
               bool adds) {
  const auto run = adds ? upAll<T, true> : upAll<T, false>;
  run(d, m, y, rows, size, rank, stride);
}

template <class B, class T>
void lowRankOuter(const float* d, const T* x, float* m, int64_t rows, int64_t size, int64_t rank, int64_t stride,
                  int64_t begin, int64_t end) {
  for (int64_t k = 0; k < rank; ++k)
    for (int64_t i = begin; i < end; ++i) m[k * size + i] = 0;
  for (int64_t row = 0; row < rows; row += kRowBlock) {
    const int64_t count = rows - row < kRowBlock ? rows - row : kRowBlock;
    const float* factors = d + row * stride;
    const T* from = x + row * size;
    int64_t at = begin;
    for (; at + kTile <= end; at += kTile) {
      int64_t k = 0;
      for (; k + 4 <= rank; k += 4)
        outerTile<T, 4>(factors + k, from + at, m + k * size + at, count, size, stride);
      for (; k < rank; ++k) outerTile<T, 1>(factors + k, from + at, m + k * size + at, count, size, stride);
    }
    if (at < end) outerRest(factors, from + at, m + at, count, size, rank, stride, end - at);
  }
}

#define SLUICE_LOW_RANK(T)                                                                                             \
  template void lowRankDown<Build>(const T*, const float*, float*, int64_t, int64_t, int64_t, int64_t);                       \
  template void lowRankUp<Build>(const float*, const float*, T*, int64_t, int64_t, int64_t, int64_t, bool);                   \
  template void lowRankOuter<Build>(const float*, const T*, float*, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
SLUICE_LOW_RANK(float)
SLUICE_LOW_RANK(uint16_t)

}  // namespace sluice
