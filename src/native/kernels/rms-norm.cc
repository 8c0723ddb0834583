// Root mean square norm and the activation after it, in one pass over each row, forward and backward, on a CPU:
//
//   sluice::rms_norm(x, weight, eps, act) = act(x r weight), r = 1 / sqrt(mean(x^2) + eps), over the last dim
//
// libtorch composes the norm from half a dozen passes over memory and gelu is another; such norms follow every
// convolution of the image tower and most projections of the text tower. Everything that the kernels do not take (other
// devices, other dtypes) goes to libtorch's own operators. First derivatives only.

#include "rms-norm.h"

#include "builds.h"
#include "rows.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/rms_norm.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

namespace sluice {
namespace {

Act actOf(c10::string_view name) {
  if (name == "none") return Act::kNone;
  TORCH_CHECK(name == "gelu_tanh", "expected act 'none' or 'gelu_tanh', received '", name, "'");
  return Act::kGeluTanh;
}

int64_t numRows(const at::Tensor& x) { return x.numel() / std::max<int64_t>(x.size(-1), 1); }

/// Whether the kernels take these.
bool takes(const at::Tensor& x, const at::Tensor& weight, Act act) {
  const auto dtype = x.scalar_type();
  if (!hasLanes() || x.dim() == 0 || (dtype != at::kFloat && dtype != at::kBFloat16)) return false;
  if (!weight.defined()) return act == Act::kNone;
  return weight.scalar_type() == dtype && weight.dim() == 1 && weight.size(0) == x.size(-1) && weight.is_cpu();
}

at::Tensor composed(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, c10::string_view act) {
  const at::Tensor normed = at::rms_norm(x, {x.dim() > 0 ? x.size(-1) : 1}, weight, eps);
  return actOf(act) == Act::kGeluTanh ? at::gelu(normed, "tanh") : normed;
}

struct Computed {
  at::Tensor x, weight, y, inverse;
};

Computed compute(const at::Tensor& x, const at::Tensor& weight, double eps, Act act) {
  at::AutoDispatchBelowADInplaceOrView below;
  Computed result{x.contiguous(), weight.defined() ? weight.contiguous() : weight, {}, {}};
  result.y = at::empty(x.sizes(), x.options());
  result.inverse = at::empty({numRows(x)}, x.options().dtype(at::kFloat));
  const int64_t size = x.size(-1);
  byDtype(x, [&]<class T>(T*) {
    overRows(numRows(x), size, [&](int64_t first, int64_t count) {
      SLUICE_BEST(rmsNormForward, T)(from<T>(result.x, first * size), from<T>(result.weight),
                                     to<T>(result.y, first * size), to<float>(result.inverse, first), count, size,
                                     static_cast<float>(eps), act);
    });
  });
  return result;
}

class RmsNorm : public torch::autograd::Function<RmsNorm> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const std::optional<at::Tensor>& weight, double eps, int64_t act) {
    auto [input, scale, y, inverse] = compute(x, weight.value_or(at::Tensor()), eps, static_cast<Act>(act));
    context->save_for_backward({input, scale, inverse});
    context->saved_data["act"] = act;
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list grads) {
    refuseSecondDerivative("rms_norm");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const at::Tensor& weight = saved[1];
    const bool wantsWeight = weight.defined() && context->needs_input_grad(1);
    const NormGrads norm = normBackward(grads[0].contiguous(), saved[0], weight, saved[2], wantsWeight,
                                        static_cast<Act>(context->saved_data["act"].toInt()));
    return {norm.x, norm.weight, {}, {}};
  }
};

at::Tensor onCpu(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, c10::string_view act) {
  const at::Tensor w = weight.value_or(at::Tensor());
  return takes(x, w, actOf(act)) ? compute(x, w, eps, actOf(act)).y : composed(x, weight, eps, act);
}

at::Tensor withGrad(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps, c10::string_view act) {
  const at::Tensor w = weight.value_or(at::Tensor());
  if (!takes(x, w, actOf(act))) return composed(x, weight, eps, act);
  const bool learns = x.requires_grad() || (w.defined() && w.requires_grad());
  if (!learns || !at::GradMode::is_enabled()) return compute(x, w, eps, actOf(act)).y;
  return RmsNorm::apply(x, weight, eps, static_cast<int64_t>(actOf(act)));
}

TORCH_LIBRARY_FRAGMENT(sluice, m) { m.def("rms_norm(Tensor x, Tensor? weight, float eps, str act='none') -> Tensor"); }
TORCH_LIBRARY_IMPL(sluice, CompositeImplicitAutograd, m) { m.impl("rms_norm", composed); }
TORCH_LIBRARY_IMPL(sluice, CPU, m) { m.impl("rms_norm", onCpu); }
TORCH_LIBRARY_IMPL(sluice, AutogradCPU, m) { m.impl("rms_norm", withGrad); }

}  // namespace

NormGrads normBackward(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& inverse,
                       bool wantsWeight, Act act) {
  const at::Tensor xGrad = at::empty_like(x);
  const int64_t size = x.size(-1), rows = numRows(x), shares = numShares(rows, size);
  SharedGrad weightGrad(wantsWeight ? weight : at::Tensor(), shares);
  std::vector<float> scratch(shares * size);
  byDtype(x, [&]<class T>(T*) {
    inShares(shares, rows, [&](int64_t share, int64_t begin, int64_t end) {
      const int64_t at = begin * size;
      SLUICE_BEST(rmsNormBackward, T)(from<T>(grad, at), from<T>(x, at), from<T>(weight), from<float>(inverse, begin),
                                      to<T>(xGrad, at), weightGrad.of(share), scratch.data() + share * size,
                                      end - begin, size, act);
    });
  });
  return {xGrad, weightGrad.total()};
}

}  // namespace sluice
