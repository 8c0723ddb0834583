// The kernels behind sluice::gelu_mul. T is float, or uint16_t for bfloat16's bits.
#pragma once

#include <cstdint>

namespace sluice {

/// y = gelu(gate) up, gelu in its tanh form
template <class B, class T>
void geluMul(const T* gate, const T* up, T* y, int64_t count);

/// @param upGrad may be grad
template <class B, class T>
void geluMulBackward(const T* grad, const T* gate, const T* up, T* gateGrad, T* upGrad, int64_t count);

}  // namespace sluice
