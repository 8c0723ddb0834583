// What few-rows.cc knows of products of bfloat16 on this processor.
#pragma once

#include <ATen/core/Tensor.h>

namespace sluice {

/// Whether libtorch's own products of bfloat16 are slow here: they need AVX-512.
bool isBf16Slow();

/// Adds grad weight to `sum`, which the first call makes: in float32 where products of bfloat16 are slow, else in grad's
/// dtype. @param grad [rows, out] @param weight [out, size] @param sum [rows, size], or undefined
void addProduct(at::Tensor& sum, const at::Tensor& grad, const at::Tensor& weight);

}  // namespace sluice
