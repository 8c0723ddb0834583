// The kernels of products with a matrix of few rows, which general products spend on packing and padding; see lora.cc and
// few-rows.cc. T is float, or uint16_t for bfloat16's bits; x and y [rows, size] lie row by row, m [rank, size] and
// d [rows, rank] are float32, d's rows `stride` numbers apart.
#pragma once

#include <stdint.h>

namespace sluice {

/// d = x m^T
template <class B, class T>
void lowRankDown(const T* x, const float* m, float* d, int64_t rows, int64_t size, int64_t rank, int64_t stride);

/// y += d m, or y = d m where `adds` is false
template <class B, class T>
void lowRankUp(const float* d, const float* m, T* y, int64_t rows, int64_t size, int64_t rank, int64_t stride, bool adds);

/// Columns [begin, end) of m = d^T x
template <class B, class T>
void lowRankOuter(const float* d, const T* x, float* m, int64_t rows, int64_t size, int64_t rank, int64_t stride,
                  int64_t begin, int64_t end);

}  // namespace sluice
