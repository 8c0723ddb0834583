// The output of a layer with a low-rank update where it is known before: lora.cc and quantised.cc make its graph alone.
#pragma once

#include <ATen/core/Tensor.h>

namespace sluice {

/// @throws unless it may be what x gives: [.., rows] in x's dtype, without a gain
inline void checkKnownOutput(const char* name, const at::Tensor& output, const at::Tensor& x, int64_t rows, bool hasGain) {
  auto shape = x.sizes().vec();
  shape.back() = rows;
  TORCH_CHECK(!hasGain && output.scalar_type() == x.scalar_type() && output.sizes() == shape, name,
              ": expected an output of x's dtype and shape ", at::IntArrayRef(shape), ", and no gain, received ",
              output.sizes(), " of ", output.scalar_type(), hasGain ? " and a gain" : "");
}

}  // namespace sluice
