// The kernels of altup-steps.cc; see there. T is float, or uint16_t for bfloat16's bits. Rows lie one after another, `size`
// numbers each. Gradients of weights are added to, and null where they are not wanted.
#pragma once

#include <stdint.h>

namespace sluice {

constexpr int64_t kMostRouted = 8;

/// y[row, o] = addend + sum_n coefs[o, n] routed[row, n], o < outs, with
/// routed[row, n] = tanh(scale sum_i x_i r norm_i router[n, i]), n < num, and inverse[row] = r = 1 / sqrt(mean(x^2) + eps)
template <class B, class T>
void altupRoute(const T* x, const T* norm, const T* router, const T* coefs, T* y, float* inverse, float* routed,
                int64_t rows, int64_t size, int64_t num, int64_t outs, float eps, float scale, float addend);

/// Of the same.
struct RouteGrads {
  float *norm, *router, *coefs;
};

/// @param scratch [size]
template <class B, class T>
void altupRouteBackward(const T* grad, const T* x, const T* norm, const T* router, const T* coefs,
                        const float* inverse, const float* routed, T* xGrad, const RouteGrads& grads, float* scratch,
                        int64_t rows, int64_t size, int64_t num, int64_t outs, float scale);

/// innovation = activated - predicted; first = (predicted + coefs[row, active] innovation) scale. @param scale may be null
template <class B, class T>
void altupInnovate(const T* activated, const T* predicted, const T* coefs, const T* scale, T* innovation, T* first,
                   int64_t rows, int64_t size, int64_t num, int64_t active);

/// @param innovationGrad and firstGrad, either may be null
template <class B, class T>
void altupInnovateBackward(const T* innovationGrad, const T* firstGrad, const T* innovation, const T* predicted,
                           const T* coefs, const T* scale, T* activatedGrad, T* predictedGrad, T* coefsGrad,
                           float* scaleGrad, int64_t rows, int64_t size, int64_t num, int64_t active);

}  // namespace sluice
