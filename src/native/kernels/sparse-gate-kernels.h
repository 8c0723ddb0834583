// The kernels of sparse-gate.cc; see there. T is float, or uint16_t for bfloat16's bits. Rows lie one after another, `size`
// numbers each.
#pragma once

#include <stdint.h>

namespace sluice {

/// y = max(x - mean(x) - cutoff std(x), 0)
template <class B, class T>
void sparseGate(const T* x, T* y, int64_t rows, int64_t size, float cutoff);

template <class B, class T>
void sparseGateBackward(const T* grad, const T* x, T* xGrad, int64_t rows, int64_t size, float cutoff);

}  // namespace sluice
