// The gate of a sparse feed-forward layer, a pass forward and one backward, on a CPU:
//
//   sluice::sparse_gate(x, cutoff) = relu(x - mean - cutoff std) of each row
//
// Whatever the kernels do not take is composed of libtorch's operators. First derivatives only.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/relu.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "builds.h"
#include "rows.h"
#include "sparse-gate-kernels.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The deviation from a norm: libtorch's own takes ten times as long. The mean is left out of the derivative: its part
/// there is zero.
Tensor composed(const Tensor& x, double cutoff) {
  const Tensor mean = x.mean(-1, true);
  const Tensor norm = at::linalg_vector_norm(x - mean.detach(), 2, at::IntArrayRef{-1}, true);
  return at::relu(x - (mean + norm / std::sqrt(static_cast<double>(x.size(-1))) * cutoff));
}

Tensor compute(const Tensor& x, double cutoff) {
  const Tensor y = at::empty(x.sizes(), x.options());
  const int64_t size = x.size(-1);
  byDtype(x, [&]<class T>(T*) {
    overRows(x.numel() / size, size, [&](int64_t first, int64_t count) {
      SLUICE_BEST(sparseGate, T)(from<T>(x, first * size), to<T>(y, first * size), count, size,
                                 static_cast<float>(cutoff));
    });
  });
  return y;
}

class Gate : public torch::autograd::Function<Gate> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& given, double cutoff) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor x = given.contiguous();
    context->save_for_backward({x});
    context->saved_data["cutoff"] = cutoff;
    return compute(x, cutoff);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("sparse_gate");
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor x = context->get_saved_variables()[0], grad = grads[0].contiguous(), xGrad = at::empty_like(x);
    const int64_t size = x.size(-1);
    const float cutoff = static_cast<float>(context->saved_data["cutoff"].toDouble());
    byDtype(x, [&]<class T>(T*) {
      overRows(x.numel() / size, size, [&](int64_t first, int64_t count) {
        const int64_t at = first * size;
        SLUICE_BEST(sparseGateBackward, T)(from<T>(grad, at), from<T>(x, at), to<T>(xGrad, at), count, size, cutoff);
      });
    });
    return {xGrad, {}};
  }
};

Tensor sparseGateOf(const Tensor& x, double cutoff) {
  if (x.dim() == 0 || !isForKernels({x})) return composed(x, cutoff);
  return isRecorded({x}) ? Gate::apply(x, cutoff) : compute(x.contiguous(), cutoff);
}

// Composed of operators that record by themselves, so that one implementation serves every device and mode.
TORCH_LIBRARY_FRAGMENT(sluice, m) { m.def("sparse_gate(Tensor x, float cutoff) -> Tensor", sparseGateOf); }

}  // namespace
}  // namespace sluice
