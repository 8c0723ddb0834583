// The products of few-rows.cc; see there.
#pragma once

#include <stdint.h>

namespace sluice {

/// Rows of x that a call may have.
constexpr int64_t kMostFewRows = 8;

/// Numbers as float32.
template <class T>
void widen(const T* x, float* y, int64_t count);

/// y[m * columns + n] = sum_k x[m * size + k] weight[n * stride + k] + bias[n], for n in [begin, end); bias may be null.
template <class T>
void fewRowsProduct(const float* x, const T* weight, const T* bias, T* y, int64_t rows, int64_t size, int64_t stride,
                    int64_t columns, int64_t begin, int64_t end);

}  // namespace sluice
