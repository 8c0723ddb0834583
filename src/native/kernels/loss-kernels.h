// The row kernels behind sluice::capped_cross_entropy_. T is float, or uint16_t for bfloat16's bits.
#pragma once

#include <cstdint>

namespace sluice {

/// Turns rows of logits into their gradients, if wanted. @param cap 0 for none
/// @param losses [rows] @param scratch [vocab]
template <class B, class T>
void cappedCrossEntropy(T* logits, const int64_t* targets, float* losses, float* scratch, int64_t rows, int64_t vocab,
                        float cap, bool wantsGrad);

}  // namespace sluice
