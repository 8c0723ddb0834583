// The kernels of norm-steps.cc; see there. T is float, or uint16_t for bfloat16's bits. Rows lie one after another, `size`
// numbers each.
#pragma once

#include <stdint.h>

namespace sluice {

constexpr int64_t kMostHeadSize = 1024;

/// y = residual + x r w, inverse = r = 1 / sqrt(mean(x^2) + eps)
template <class B, class T>
void normAdd(const T* x, const T* w, const T* residual, T* y, float* inverse, int64_t rows, int64_t size, float eps);

/// y = scale (a + b + x r w + z s v), r and s as above, of x and z
template <class B, class T>
void normJoin(const T* a, const T* b, const T* x, const T* w, const T* z, const T* v, T* y, float* inverseX,
              float* inverseZ, int64_t rows, int64_t size, float eps, float scale);

/// y = x scale
template <class B, class T>
void scaled(const T* x, T* y, int64_t count, float scale);

/// y = n cos + swap(n) signedSin, n = x r w, of one head of one token; returns r. @param w, cos and signedSin may be null
template <class B, class T>
float normRotate(const T* x, const T* w, const T* cos, const T* signedSin, T* y, int64_t size, float eps);

/// @param wGrad [size], added to; null where it is not wanted
template <class B, class T>
void normRotateBackward(const T* grad, const T* x, const T* w, const T* cos, const T* signedSin, float inverse,
                        T* xGrad, float* wGrad, int64_t size);

}  // namespace sluice
