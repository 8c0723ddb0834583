// The gate of a sparse feed-forward layer, on a CPU where nothing learns:
//
//   sluice::sparse_gelu_up(gate, x, weight) = gelu(gate, 'tanh') (x weight^T)
//
// Of a gate that is zero nearly everywhere, only the other units' products are computed: a sparsity of 0.95 leaves one in
// twenty, and as much of the weight to read for one token. Where something learns, and for whatever the kernel does not
// take, it is the product and sluice::gelu_mul.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "builds.h"
#include "composed.h"
#include "shares.h"
#include "sparse-up-kernels.h"

namespace sluice {
namespace {

using at::Tensor;

bool takes(const Tensor& gate, const Tensor& x, const Tensor& weight) {
  const auto dtype = gate.scalar_type();
  if (!hasLanes() || (dtype != at::kFloat && dtype != at::kBFloat16)) return false;
  for (const Tensor& tensor : {gate, x, weight}) {
    if (tensor.scalar_type() != dtype || !tensor.is_cpu()) return false;
    if (at::GradMode::is_enabled() && tensor.requires_grad()) return false;
  }
  if (x.dim() == 0 || gate.dim() != x.dim() || weight.dim() != 2 || x.numel() == 0) return false;
  return weight.size(1) == x.size(-1) && weight.size(0) == gate.size(-1) && weight.is_contiguous() &&
         gate.numel() == x.numel() / x.size(-1) * gate.size(-1);
}

template <class T>
void computeAs(const Tensor& gate, const Tensor& x, const Tensor& weight, const Tensor& y) {
  const SparseUpSizes sizes{x.numel() / x.size(-1), x.size(-1), gate.size(-1)};
  const auto *g = static_cast<const T*>(gate.const_data_ptr()), *w = static_cast<const T*>(weight.const_data_ptr());
  const float* wide = static_cast<const float*>(x.const_data_ptr());
  T* to = static_cast<T*>(y.mutable_data_ptr());
  const int64_t blocks = (sizes.units + kUnits - 1) / kUnits;
  inShares(numShares(blocks, sizes.tokens * sizes.size), blocks, [&](int64_t, int64_t begin, int64_t end) {
    sparseUp<T>(sizes, g, wide, w, to, begin * kUnits, std::min(end * kUnits, sizes.units));
  });
}

Tensor sparseGeluUp(const Tensor& given, const Tensor& x, const Tensor& weight) {
  if (!takes(given, x, weight)) return geluMul(given, productOf(x, weight));
  const Tensor gate = given.contiguous(), wide = x.to(at::kFloat).contiguous();
  const Tensor y = at::empty(gate.sizes(), gate.options());
  const auto run = gate.scalar_type() == at::kFloat ? computeAs<float> : computeAs<uint16_t>;
  run(gate, wide, weight, y);
  return y;
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("sparse_gelu_up(Tensor gate, Tensor x, Tensor weight) -> Tensor", sparseGeluUp);
}

}  // namespace
}  // namespace sluice
