// The kernels of token-steps.cc; see there. T is float, or uint16_t for bfloat16's bits. Rows lie one after another, `size`
// numbers each.
#pragma once

#include <stdint.h>

namespace sluice {

constexpr int64_t kMostHeadSize = 1024;
constexpr int64_t kMostRouted = 8;

bool hasTokenStepKernels();

/// y = residual + x r w, r = 1 / sqrt(mean(x^2) + eps)
template <class T>
void normAdd(const T* x, const T* w, const T* residual, T* y, int64_t rows, int64_t size, float eps);

/// y = n cos + swap(n) signedSin, n = x r w, of one head of one token. @param w, cos and signedSin may be null
template <class T>
void normRotate(const T* x, const T* w, const T* cos, const T* signedSin, T* y, int64_t size, float eps);

/// y = max(x - mean(x) - cutoff std(x), 0)
template <class T>
void sparseGate(const T* x, T* y, int64_t rows, int64_t size, float cutoff);

/// y[row, o] = addend + sum_n coefs[o, n] tanh(scale sum_i x_i r norm_i router[n, i]), for n < num, o < outs
template <class T>
void altupRoute(const T* x, const T* norm, const T* router, const T* coefs, T* y, int64_t rows, int64_t size,
                int64_t num, int64_t outs, float eps, float scale, float addend);

/// innovation = activated - predicted; first = (predicted + coefs[row, active] innovation) scale. @param scale may be null
template <class T>
void altupInnovate(const T* activated, const T* predicted, const T* coefs, const T* scale, T* innovation, T* first,
                   int64_t rows, int64_t size, int64_t num, int64_t active);

}  // namespace sluice
