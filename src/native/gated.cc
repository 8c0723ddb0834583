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
#include "shares.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

bool takes(const Tensor& gate, const Tensor& up) {
  const auto dtype = gate.scalar_type();
  return hasLanes() && (dtype == at::kFloat || dtype == at::kBFloat16) && up.scalar_type() == dtype &&
         up.is_cpu() && gate.sizes() == up.sizes();
}

template <class T>
void forwardAs(const Tensor& gate, const Tensor& up, const Tensor& y) {
  const auto *x = static_cast<const T*>(gate.const_data_ptr()), *u = static_cast<const T*>(up.const_data_ptr());
  T* out = static_cast<T*>(y.mutable_data_ptr());
  inShares(numShares(gate.numel(), 1), gate.numel(), [&](int64_t, int64_t begin, int64_t end) {
    SLUICE_BEST(geluMul, T)(x + begin, u + begin, out + begin, end - begin);
  });
}

template <class T>
void backwardAs(const Tensor& grad, const Tensor& gate, const Tensor& up, const Tensor& gateGrad,
                const Tensor& upGrad) {
  const auto *g = static_cast<const T*>(grad.const_data_ptr()), *x = static_cast<const T*>(gate.const_data_ptr()),
             *u = static_cast<const T*>(up.const_data_ptr());
  T *gx = static_cast<T*>(gateGrad.mutable_data_ptr()), *gu = static_cast<T*>(upGrad.mutable_data_ptr());
  inShares(numShares(gate.numel(), 1), gate.numel(), [&](int64_t, int64_t begin, int64_t end) {
    SLUICE_BEST(geluMulBackward, T)(g + begin, x + begin, u + begin, gx + begin, gu + begin, end - begin);
  });
}

Tensor compute(const Tensor& gate, const Tensor& up) {
  const Tensor y = at::empty_like(gate, at::MemoryFormat::Contiguous);
  const auto run = gate.scalar_type() == at::kFloat ? forwardAs<float> : forwardAs<uint16_t>;
  run(gate, up, y);
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

  static variable_list backward(AutogradContext* context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "gelu_mul: expected to be derived once, received a second derivative");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1], grad = grads[0].contiguous();
    const Tensor gateGrad = at::empty_like(gate), upGrad = at::empty_like(up);
    const auto run = gate.scalar_type() == at::kFloat ? backwardAs<float> : backwardAs<uint16_t>;
    run(grad, gate, up, gateGrad, upGrad);
    return {gateGrad, upGrad};
  }
};

Tensor composed(const Tensor& gate, const Tensor& up) { return at::gelu(gate, "tanh") * up; }

Tensor onCpu(const Tensor& gate, const Tensor& up) {
  return takes(gate, up) ? compute(gate.contiguous(), up.contiguous()) : composed(gate, up);
}

Tensor withGrad(const Tensor& gate, const Tensor& up) {
  if (!takes(gate, up)) return composed(gate, up);
  const bool learns = at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad());
  return learns ? GeluMul::apply(gate, up) : onCpu(gate, up);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) { m.def("gelu_mul(Tensor gate, Tensor up) -> Tensor"); }
TORCH_LIBRARY_IMPL(sluice, CompositeImplicitAutograd, m) { m.impl("gelu_mul", composed); }
TORCH_LIBRARY_IMPL(sluice, CPU, m) { m.impl("gelu_mul", onCpu); }
TORCH_LIBRARY_IMPL(sluice, AutogradCPU, m) { m.impl("gelu_mul", withGrad); }

}  // namespace
}  // namespace sluice
