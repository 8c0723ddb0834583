// Root mean square norms of rows, for operators that have one inside: rms-norm.cc.
#pragma once

#include <ATen/core/Tensor.h>

#include "rms-norm-kernels.h"

namespace sluice {

struct NormGrads {
  /// Undefined where it was not wanted.
  at::Tensor x, weight;
};

/// The gradients of act(x r weight). @param grad, x dense [..., size] @param weight dense [size], or undefined
/// @param inverse r of each row, float32 @param wantsWeight whether the weight's is wanted
NormGrads normBackward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& inverse,
                       bool wantsWeight, Act act = Act::kNone);

}  // namespace sluice
