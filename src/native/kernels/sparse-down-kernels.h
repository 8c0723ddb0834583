// The kernels of sparse-down.cc; see there. T is float, or uint16_t for bfloat16's bits.
#pragma once

#include <stdint.h>

namespace sluice {

/// Columns of the result that are computed together: their sums stay in registers, their weights in the second cache.
constexpr int64_t kSlice = 64;

/// How many of `count` numbers are not 0.
template <class T>
int64_t countNonZero(const T* x, int64_t count);

/// Puts down the numbers of a row that are not 0, and their places; returns how many.
template <class T>
int64_t gatherNonZero(const T* x, int64_t count, float* values, int32_t* places);

/// slice[i * kSlice + c] = weight[c * size + i] for c < columns, and 0 beyond.
template <class T>
void turn(const T* weight, int64_t size, int64_t columns, float* slice);

/// y[c] = sum_n values[n] slice[places[n] * kSlice + c] + bias[c] for c < columns. @param bias may be null
template <class T>
void sparseProduct(const float* values, const int32_t* places, int64_t num, const float* slice, const T* bias, T* y,
                   int64_t columns);

}  // namespace sluice
