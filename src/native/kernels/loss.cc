// What the loss over a large vocabulary needs beyond libtorch:
//
//   sluice::capped_cross_entropy_(logits, targets, cap, wants_grad)
//     the loss of each row of logits [rows, vocab] under cap * tanh(logits / cap), cap 0 being none; writes its gradient
//     over the logits. On a CPU a row stays in its core's cache for all of this.
//   sluice::tie(value, input, gradient)
//     value, as a function of `input` that has the given gradient: for a gradient computed ahead. The scale that comes
//     from above is applied in float32 before the result is rounded to the input's dtype.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/tanh.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

#include "builds.h"
#include "loss-kernels.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor composed(Tensor& logits, const Tensor& targets, double cap, bool wantsGrad) {
  const Tensor wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  const Tensor tanh = cap > 0 ? at::tanh(wide / cap) : Tensor();
  const Tensor logProbs = at::log_softmax(cap > 0 ? tanh * cap : wide, -1);
  const Tensor columns = targets.unsqueeze(1);
  const Tensor losses = -logProbs.gather(1, columns).squeeze(1);
  if (!wantsGrad) return losses;
  Tensor grad = logProbs.exp();
  grad.scatter_add_(1, columns, at::empty(columns.sizes(), grad.options()).fill_(-1));
  if (cap > 0) grad.mul_(1 - tanh * tanh);
  logits.copy_(grad);
  return losses;
}

template <class T>
void runRows(Tensor& logits, const Tensor& targets, Tensor& losses, float cap, bool wantsGrad) {
  const int64_t rows = logits.size(0), vocab = logits.size(1), threads = numShares(rows, vocab);
  T* numbers = static_cast<T*>(logits.mutable_data_ptr());
  const int64_t* ids = targets.const_data_ptr<int64_t>();
  float* out = losses.mutable_data_ptr<float>();
  std::vector<float> scratch(threads * vocab);
  inShares(threads, rows, [&](int64_t part, int64_t begin, int64_t end) {
    SLUICE_BEST(cappedCrossEntropy, T)(numbers + begin * vocab, ids + begin, out + begin, scratch.data() + part * vocab,
                          end - begin, vocab, cap, wantsGrad);
  });
}

Tensor onCpu(Tensor& logits, const Tensor& targets, double cap, bool wantsGrad) {
  const auto dtype = logits.scalar_type();
  TORCH_CHECK(logits.dim() == 2 && targets.dim() == 1 && targets.size(0) == logits.size(0),
              "capped_cross_entropy_: expected logits [rows, vocab] and targets [rows]");
  const bool fits = (dtype == at::kFloat || dtype == at::kBFloat16) && logits.is_contiguous() && hasLanes() &&
                    targets.scalar_type() == at::kLong && targets.is_contiguous();
  if (!fits) return composed(logits, targets, cap, wantsGrad);
  Tensor losses = at::empty({logits.size(0)}, logits.options().dtype(at::kFloat));
  const auto run = dtype == at::kFloat ? runRows<float> : runRows<uint16_t>;
  run(logits, targets, losses, static_cast<float>(cap), wantsGrad);
  return losses;
}

class Tie : public torch::autograd::Function<Tie> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& value, const Tensor& input, const Tensor& gradient) {
    TORCH_CHECK(input.sizes() == gradient.sizes(), "tie: expected a gradient of the input's shape");
    context->save_for_backward({gradient});
    context->saved_data["dtype"] = input.scalar_type();
    return value.clone();
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("tie");
    const Tensor gradient = context->get_saved_variables()[0];
    const auto dtype = context->saved_data["dtype"].toScalarType();
    // A number on the CPU keeps its precision beside a tensor of another dtype; on other devices it needs a dim for that.
    Tensor scale = grads[0];
    if (scale.is_cpu()) return {grads[0], at::mul(gradient, scale).to(dtype), Tensor()};
    Tensor scaled = at::empty(gradient.sizes(), gradient.options().dtype(dtype));
    return {grads[0], at::mul_out(scaled, gradient, scale.reshape({1})), Tensor()};
  }
};

Tensor untied(const Tensor& value, const Tensor& /*input*/, const Tensor& /*gradient*/) { return value.clone(); }

Tensor tied(const Tensor& value, const Tensor& input, const Tensor& gradient) {
  return Tie::apply(value, input, gradient);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("capped_cross_entropy_(Tensor(a!) logits, Tensor targets, float cap, bool wants_grad) -> Tensor");
  m.def("tie(Tensor value, Tensor input, Tensor gradient) -> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeExplicitAutograd, m) {
  m.impl("capped_cross_entropy_", composed);
  m.impl("tie", untied);
}
TORCH_LIBRARY_IMPL(sluice, CPU, m) { m.impl("capped_cross_entropy_", onCpu); }
TORCH_LIBRARY_IMPL(sluice, Autograd, m) { m.impl("tie", tied); }

}  // namespace
}  // namespace sluice
