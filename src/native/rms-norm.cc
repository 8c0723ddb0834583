// Root mean square norm and the activation after it, in one pass over each row, forward and backward, on a CPU:
//
//   sluice::rms_norm(x, weight, eps, act) = act(x r weight), r = 1 / sqrt(mean(x^2) + eps), over the last dim
//
// libtorch composes the norm from half a dozen passes over memory and gelu is another; such norms follow every
// convolution of the image tower and most projections of the text tower. Everything that the kernels do not take (other
// devices, other dtypes) goes to libtorch's own operators. First derivatives only.

#include "builds.h"
#include "rms-norm.h"

#include "rms-norm-kernels.h"
#include "shares.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
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

bool isBf16(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16; }

int64_t numRows(const at::Tensor& x) { return x.numel() / std::max<int64_t>(x.size(-1), 1); }

template <class T>
const T* dataOf(const at::Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) : nullptr;
}
template <class T>
T* mutableDataOf(at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.mutable_data_ptr()) : nullptr;
}

template <class T>
void forwardAs(const at::Tensor& x, const at::Tensor& weight, Act act, float eps, at::Tensor& y, at::Tensor& inverse) {
  const int64_t size = x.size(-1), rows = numRows(x);
  const T *from = dataOf<T>(x), *w = dataOf<T>(weight);
  T* to = mutableDataOf<T>(y);
  float* r = mutableDataOf<float>(inverse);
  inShares(numShares(rows, size), rows, [&](int64_t, int64_t begin, int64_t end) {
    SLUICE_BEST(rmsNormForward, T)(from + begin * size, w, to + begin * size, r + begin, end - begin, size, eps, act);
  });
}

template <class T>
void backwardAs(const at::Tensor& grad, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& inverse,
                Act act, at::Tensor& xGrad, at::Tensor& weightGrad) {
  const int64_t size = x.size(-1), rows = numRows(x), threads = numShares(rows, size);
  const T *g = dataOf<T>(grad), *from = dataOf<T>(x), *w = dataOf<T>(weight);
  const float* r = dataOf<float>(inverse);
  T* to = mutableDataOf<T>(xGrad);
  const bool wanted = weightGrad.defined();
  std::vector<float> sums(wanted ? threads * size : 0), scratch(threads * size);
  inShares(threads, rows, [&](int64_t part, int64_t begin, int64_t end) {
    SLUICE_BEST(rmsNormBackward, T)(g + begin * size, from + begin * size, w, r + begin, to + begin * size,
                    wanted ? sums.data() + part * size : nullptr, scratch.data() + part * size, end - begin, size, act);
  });
  if (!wanted) return;
  for (int64_t part = 1; part < threads; ++part)
    for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * size + i];
  weightGrad.copy_(at::from_blob(sums.data(), {size}, at::kFloat));
}

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
  const auto run = isBf16(x) ? forwardAs<uint16_t> : forwardAs<float>;
  run(result.x, result.weight, act, static_cast<float>(eps), result.y, result.inverse);
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
    TORCH_CHECK(!at::GradMode::is_enabled(), "rms_norm: expected to be derived once, received a second derivative");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &inverse = saved[2];
    const at::Tensor grad = grads[0].contiguous();
    at::Tensor xGrad = at::empty_like(x);
    at::Tensor weightGrad;
    if (weight.defined() && context->needs_input_grad(1)) weightGrad = at::empty_like(weight);
    const auto run = isBf16(x) ? backwardAs<uint16_t> : backwardAs<float>;
    run(grad, x, weight, inverse, static_cast<Act>(context->saved_data["act"].toInt()), xGrad, weightGrad);
    return {xGrad, weightGrad, {}, {}};
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
                       bool wantsWeight) {
  NormGrads grads{at::empty_like(x), wantsWeight ? at::empty_like(weight) : at::Tensor()};
  const auto run = isBf16(x) ? backwardAs<uint16_t> : backwardAs<float>;
  run(grad, x, weight, inverse, Act::kNone, grads.x, grads.weight);
  return grads;
}

}  // namespace sluice
