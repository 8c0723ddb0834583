// A linear layer whose weight is frozen, with a low-rank update that learns, and DoRA's gain on its outputs:
//
//   sluice::lora(x, weight, bias, a, b, scale, gain) = gain (x weight^T + scale (x a^T) b^T) + bias
//
// The update is added to the product in place, and its part of x's gradient likewise; of the weight nothing is computed. a, b
// and gain may be wider than x, and are used in x's dtype. Backward makes what is asked for and no more, once.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;

bool has(const Maybe& tensor) { return tensor.has_value() && tensor->defined(); }

/// sluice::linear, which knows what is best for few rows.
Tensor productOf(const Tensor& x, const Tensor& weight, const Maybe& bias) {
  static const auto linear = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("sluice::linear", "")
                                 .typed<Tensor(const Tensor&, const Tensor&, const Maybe&)>();
  return linear.call(x, weight, bias);
}

/// The parts in x's dtype: x as a matrix, a, scale b.
struct Parts {
  Tensor x, a, b;
};

Parts partsOf(const Tensor& x, const Tensor& a, const Tensor& b, double scale) {
  const auto dtype = x.scalar_type();
  return {x.reshape({-1, x.size(-1)}), a.to(dtype), (b * scale).to(dtype)};
}

std::vector<int64_t> shapeOf(const Tensor& x, const Tensor& weight) {
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return shape;
}

/// What is there before gain and bias, [rows, out], and x a^T.
std::pair<Tensor, Tensor> sumOf(const Parts& parts, const Tensor& weight, const Maybe& bias) {
  const Tensor sum = productOf(parts.x, weight, bias), down = at::mm(parts.x, parts.a.t());
  sum.addmm_(down, parts.b.t());
  return {sum, down};
}

Tensor gained(const Tensor& sum, const Tensor& gain, const Maybe& bias) {
  const Tensor y = sum * gain.to(sum.scalar_type());
  return has(bias) ? y.add_(*bias) : y;
}

Tensor onCpu(const Tensor& x, const Tensor& weight, const Maybe& bias, const Tensor& a, const Tensor& b, double scale,
             const Maybe& gain) {
  const auto sum = sumOf(partsOf(x, a, b, scale), weight, has(gain) ? Maybe() : bias).first;
  return (has(gain) ? gained(sum, *gain, bias) : sum).view(shapeOf(x, weight));
}

class Lora : public torch::autograd::Function<Lora> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Maybe& bias, const Tensor& a,
                        const Tensor& b, double scale, const Maybe& gain) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Parts parts = partsOf(x, a, b, scale);
    const auto [sum, down] = sumOf(parts, weight, has(gain) ? Maybe() : bias);
    context->save_for_backward({x, weight, parts.a, parts.b, down, has(gain) ? sum : Tensor(), has(gain) ? *gain : Tensor()});
    context->saved_data["scale"] = scale;
    context->saved_data["dtype"] = a.scalar_type();
    context->saved_data["hasBias"] = has(bias);
    return (has(gain) ? gained(sum, *gain, bias) : sum).view(shapeOf(x, weight));
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "lora: expected to be derived once, received a second derivative");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &given = saved[0], &weight = saved[1], &a = saved[2], &b = saved[3], &down = saved[4], &sum = saved[5];
    const auto dtype = context->saved_data["dtype"].toScalarType();
    // What is no tensor has no edge to ask for: without a bias, those behind it are numbered one lower.
    const bool hasBias = context->saved_data["hasBias"].toBool();
    const int after = hasBias ? 0 : -1;
    const bool wantsX = context->needs_input_grad(0), wantsA = context->needs_input_grad(3 + after);
    const bool wantsB = context->needs_input_grad(4 + after);
    const Tensor x = given.reshape({-1, given.size(-1)}), rows = grads[0].reshape({-1, weight.size(0)}).contiguous();
    Tensor xGrad, aGrad, bGrad, gainGrad, grad = rows;
    if (sum.defined()) {
      if (context->needs_input_grad(5 + after)) gainGrad = (rows * sum).sum({0}, false, dtype);
      grad = rows * saved[6].to(rows.scalar_type());
    }
    if (wantsB) bGrad = at::mm(grad.t(), down).to(dtype).mul_(context->saved_data["scale"].toDouble());
    if (wantsX || wantsA) {
      const Tensor downGrad = at::mm(grad, b);
      if (wantsA) aGrad = at::mm(downGrad.t(), x).to(dtype);
      if (wantsX) xGrad = at::mm(grad, weight).addmm_(downGrad, a).view(given.sizes());
    }
    return {xGrad, {}, {}, aGrad, bGrad, {}, gainGrad};
  }
};

Tensor composed(const Tensor& x, const Tensor& weight, const Maybe& bias, const Tensor& a, const Tensor& b, double scale,
                const Maybe& gain) {
  const Tensor up = (b * scale).to(x.scalar_type());
  const Tensor update = at::linear(at::linear(x, a.to(x.scalar_type())), up);
  if (!has(gain)) return at::linear(x, weight, bias) + update;
  const Tensor y = (at::linear(x, weight) + update) * gain->to(x.scalar_type());
  return has(bias) ? y + *bias : y;
}

Tensor withGrad(const Tensor& x, const Tensor& weight, const Maybe& bias, const Tensor& a, const Tensor& b, double scale,
                const Maybe& gain) {
  if (weight.requires_grad() || (has(bias) && bias->requires_grad())) return composed(x, weight, bias, a, b, scale, gain);
  const bool learns = at::GradMode::is_enabled() && (x.requires_grad() || a.requires_grad() || b.requires_grad() ||
                                                     (has(gain) && gain->requires_grad()));
  return learns ? Lora::apply(x, weight, bias, a, b, scale, gain) : onCpu(x, weight, bias, a, b, scale, gain);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("lora(Tensor x, Tensor weight, Tensor? bias, Tensor a, Tensor b, float scale, Tensor? gain=None) -> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeImplicitAutograd, m) { m.impl("lora", composed); }
TORCH_LIBRARY_IMPL(sluice, CPU, m) { m.impl("lora", onCpu); }
TORCH_LIBRARY_IMPL(sluice, AutogradCPU, m) { m.impl("lora", withGrad); }

}  // namespace
}  // namespace sluice
