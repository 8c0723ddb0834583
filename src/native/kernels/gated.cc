// The gate of a feed-forward layer in one pass, forward and backward, on a CPU:
//
//   sluice::gelu_mul(gate, up) = gelu(gate, 'tanh') up
//
// It keeps two tensors for the backward pass where the two operators keep three. Whatever the kernels do not take goes
// to libtorch's own operators. First derivatives only.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "builds.h"
#include "gated-kernels.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool takes(const Tensor& gate, const Tensor& up) { return isForKernels({gate, up}) && gate.sizes() == up.sizes(); }

Tensor compute(const Tensor& gate, const Tensor& up) {
  const Tensor y = at::empty_like(gate, at::MemoryFormat::Contiguous);
  byDtype(gate, [&]<class T>(T*) {
    overRows(gate.numel(), 1, [&](int64_t at, int64_t count) {
      SLUICE_BEST(geluMul, T)(from<T>(gate, at), from<T>(up, at), to<T>(y, at), count);
    });
  });
  return y;
}

class GeluMul : public torch::autograd::Function<GeluMul> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor x = gate.contiguous(), u = up.contiguous();
    context->save_for_backward({x, u});
    return compute(x, u);
  }

  static variable_list backward(AutogradContext* context, variable_list& grads) {
    refuseSecondDerivative("gelu_mul");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1];
    const Tensor upGrad = inPlaceOf(grads[0]), grad = grads[0].contiguous(), gateGrad = at::empty_like(gate);
    byDtype(gate, [&]<class T>(T*) {
      overRows(gate.numel(), 1, [&](int64_t at, int64_t count) {
        SLUICE_BEST(geluMulBackward, T)(from<T>(grad, at), from<T>(gate, at), from<T>(up, at), to<T>(gateGrad, at),
                                        to<T>(upGrad, at), count);
      });
    });
    return {gateGrad, upGrad};
  }
};

Tensor composed(const Tensor& gate, const Tensor& up) { return at::gelu(gate, "tanh") * up; }

Tensor onCpu(const Tensor& gate, const Tensor& up) {
  return takes(gate, up) ? compute(gate.contiguous(), up.contiguous()) : composed(gate, up);
}

Tensor withGrad(const Tensor& gate, const Tensor& up) {
  if (!takes(gate, up)) return composed(gate, up);
  return isRecorded({gate, up}) ? GeluMul::apply(gate, up) : onCpu(gate, up);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) { m.def("gelu_mul(Tensor gate, Tensor up) -> Tensor"); }
TORCH_LIBRARY_IMPL(sluice, CompositeImplicitAutograd, m) { m.impl("gelu_mul", composed); }
TORCH_LIBRARY_IMPL(sluice, CPU, m) { m.impl("gelu_mul", onCpu); }
TORCH_LIBRARY_IMPL(sluice, AutogradCPU, m) { m.impl("gelu_mul", withGrad); }

}  // namespace
}  // namespace sluice
