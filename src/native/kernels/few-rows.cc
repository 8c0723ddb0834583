// A linear layer of few rows, as in generation, where a forward has one new token a sequence:
//
//   sluice::linear(x, weight, bias) = x weight^T + bias
//
// Such a product is bound by reading the weight: each of its numbers is read once, in order, for all rows. libtorch's
// products of few rows come to half of the memory's speed in float32, and far less in bfloat16 on processors without
// instructions for it. There, more rows of bfloat16 are multiplied in float32, a stretch of the weight at a time, also in a
// backward pass: that is eight times as fast as libtorch's product, and closer. A weight of few outputs or few inputs, as
// LAuReL's and the routers', has the kernels of low ranks. Everything else is libtorch's own.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "builds.h"
#include "composed.h"
#include "few-rows-kernels.h"
#include "few-rows.h"
#include "low-rank.h"
#include "rows.h"

namespace sluice {

bool isBf16Slow() {
#if defined(__x86_64__)
  static const bool slow = !(__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                             __builtin_cpu_supports("avx512dq"));
  return slow;
#else
  return false;
#endif
}

namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Bias = std::optional<Tensor>;

bool isLinear(const Tensor& x, const Tensor& weight, const Bias& bias) {
  if (x.dim() == 0 || x.numel() == 0 || weight.dim() != 2 || weight.size(1) != x.size(-1)) return false;
  const auto dtype = x.scalar_type();
  return weight.scalar_type() == dtype && weight.is_cpu() &&
         (!has(bias) || (bias->scalar_type() == dtype && bias->is_cpu() && bias->dim() == 1 &&
                         bias->size(0) == weight.size(0) && bias->is_contiguous()));
}

bool takes(const Tensor& x, const Tensor& weight, const Bias& bias) {
  const auto dtype = x.scalar_type();
  return (dtype == at::kFloat || dtype == at::kBFloat16) && hasLanes() && isLinear(x, weight, bias) &&
         x.numel() <= kMostFewRows * x.size(-1) && weight.stride(1) == 1;
}

template <class T>
void productAs(const Tensor& x, const Tensor& weight, const Bias& bias, const Tensor& y) {
  const int64_t size = x.size(-1), columns = weight.size(0), rows = x.numel() / size;
  const T *w = static_cast<const T*>(weight.const_data_ptr()), *from = static_cast<const T*>(x.const_data_ptr());
  const T* b = has(bias) ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  T* to = static_cast<T*>(y.mutable_data_ptr());
  static thread_local std::vector<float> wide;
  wide.resize(std::max<size_t>(wide.size(), rows * size));
  float* const in = wide.data();
  widen(from, in, rows * size);
  inShares(numShares(columns, size / 4 + 1), columns, [&](int64_t, int64_t begin, int64_t end) {
    fewRowsProduct<T>(in, w, b, to, rows, size, weight.stride(0), columns, begin, end);
  });
}

/// Whether float32 is faster than the dtype.
bool isWide(const Tensor& x, const Tensor& weight, const Bias& bias) {
  return x.scalar_type() == at::kBFloat16 && isBf16Slow() && isLinear(x, weight, bias);
}

/// How many of the weight's rows are widened at a time: their copy stays in the processor's cache.
int64_t stretchOf(const Tensor& weight) { return std::max<int64_t>(1, (1 << 20) / weight.size(1)); }

/// x [rows, size] bfloat16 by float32 products with some of the weight's rows at a time.
Tensor inFloat(const Tensor& x, const Tensor& weight, const Bias& bias) {
  const int64_t columns = weight.size(0), step = stretchOf(weight);
  const Tensor wide = x.to(at::kFloat), y = at::empty({x.size(0), columns}, x.options());
  for (int64_t first = 0; first < columns; first += step) {
    const int64_t count = std::min(step, columns - first);
    const Tensor part = at::mm(wide, weight.narrow(0, first, count).to(at::kFloat).t());
    y.narrow(1, first, count).copy_(has(bias) ? part + bias->narrow(0, first, count) : part);
  }
  return y;
}

/// Where general products spend most of their time on packing.
constexpr int64_t kNarrow = 32;

bool isNarrow(const Tensor& x, const Tensor& weight, const Bias& bias) {
  return isLinear(x, weight, bias) && !has(bias) && weight.is_contiguous() && x.is_cpu() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && hasLanes() &&
         std::min(weight.size(0), weight.size(1)) <= kNarrow && x.numel() > kMostFewRows * x.size(-1);
}

bool hasFewOutputs(const Tensor& weight) { return weight.size(0) <= weight.size(1); }

Tensor narrowProduct(const Tensor& x, const Tensor& weight) {
  const Tensor wide = weight.to(at::kFloat);
  if (hasFewOutputs(weight)) return lowRankDown(x, wide).to(x.scalar_type());
  return lowRankUp(x.to(at::kFloat), wide.t().contiguous(), x.scalar_type());
}

Tensor onCpu(const Tensor& x, const Tensor& weight, const Bias& bias) {
  if (isNarrow(x, weight, bias)) {
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return narrowProduct(x.reshape({-1, x.size(-1)}).contiguous(), weight).view(shape);
  }
  if (!takes(x, weight, bias)) {
    if (!isWide(x, weight, bias)) return at::linear(x, weight, bias);
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return inFloat(x.reshape({-1, x.size(-1)}), weight, bias).view(shape);
  }
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  const Tensor y = at::empty(shape, x.options());
  const auto run = x.scalar_type() == at::kFloat ? productAs<float> : productAs<uint16_t>;
  run(x.contiguous(), weight, bias, y);
  return y;
}

/// The same with a backward pass in float32.
class WideLinear : public torch::autograd::Function<WideLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Bias& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    context->saved_data["hasBias"] = has(bias);
    return onCpu(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("linear");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &given = saved[0], &weight = saved[1];
    const int64_t columns = weight.size(0), size = weight.size(1), step = stretchOf(weight);
    const Tensor grad = grads[0].reshape({-1, columns}), x = given.reshape({-1, size});
    const bool wantsX = context->needs_input_grad(0), wantsWeight = context->needs_input_grad(1);
    Tensor wide, xGrad, weightGrad, biasGrad;
    if (wantsX) addProduct(xGrad, grad, weight);
    if (wantsWeight) wide = x.to(at::kFloat), weightGrad = at::empty({columns, size}, weight.options());
    for (int64_t first = 0; wantsWeight && first < columns; first += step) {
      const int64_t count = std::min(step, columns - first);
      const Tensor part = grad.narrow(1, first, count).to(at::kFloat);
      weightGrad.narrow(0, first, count).copy_(at::mm(part.t(), wide));
    }
    // What is no tensor has no edge to ask for.
    const bool wantsBias = context->saved_data["hasBias"].toBool() && context->needs_input_grad(2);
    if (wantsBias) biasGrad = grad.sum({0}, false, at::kFloat).to(grad.scalar_type());
    return {wantsX ? xGrad.to(given.scalar_type()).view(given.sizes()) : xGrad, weightGrad, biasGrad};
  }
};

/// Of a weight of few outputs or few inputs.
class NarrowLinear : public torch::autograd::Function<NarrowLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({x, weight});
    return onCpu(x, weight, std::nullopt);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("linear");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &given = saved[0], &weight = saved[1];
    const auto dtype = given.scalar_type();
    const Tensor grad = grads[0].reshape({-1, weight.size(0)}).contiguous();
    const Tensor x = given.reshape({-1, weight.size(1)}).contiguous();
    const bool isDown = hasFewOutputs(weight);
    Tensor xGrad, weightGrad;
    if (context->needs_input_grad(0)) {
      const Tensor wide = weight.to(at::kFloat);
      xGrad = isDown ? lowRankUp(grad.to(at::kFloat), wide, dtype)
                     : lowRankDown(grad, wide.t().contiguous()).to(dtype);
      xGrad = xGrad.view(given.sizes());
    }
    if (context->needs_input_grad(1)) {
      weightGrad = isDown ? lowRankOuter(grad.to(at::kFloat), x) : lowRankOuter(x.to(at::kFloat), grad).t();
      weightGrad = weightGrad.to(dtype);
    }
    return {xGrad, weightGrad};
  }
};

Tensor composed(const Tensor& x, const Tensor& weight, const Bias& bias) { return at::linear(x, weight, bias); }

Tensor withGrad(const Tensor& x, const Tensor& weight, const Bias& bias) {
  const bool learns = at::GradMode::is_enabled() &&
                      (x.requires_grad() || weight.requires_grad() || (has(bias) && bias->requires_grad()));
  if (!learns) return onCpu(x, weight, bias);
  if (isNarrow(x, weight, bias)) return NarrowLinear::apply(x, weight);
  return isWide(x, weight, bias) ? WideLinear::apply(x, weight, bias) : at::linear(x, weight, bias);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) { m.def("linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor"); }
TORCH_LIBRARY_IMPL(sluice, CompositeImplicitAutograd, m) { m.impl("linear", composed); }
TORCH_LIBRARY_IMPL(sluice, CPU, m) { m.impl("linear", onCpu); }
TORCH_LIBRARY_IMPL(sluice, AutogradCPU, m) { m.impl("linear", withGrad); }

}  // namespace

void addProduct(Tensor& sum, const Tensor& grad, const Tensor& weight) {
  if (!isWide(grad, weight.t(), std::nullopt)) {
    if (sum.defined()) sum.addmm_(grad, weight);
    else sum = at::mm(grad, weight);
    return;
  }
  const int64_t step = stretchOf(weight);
  if (!sum.defined()) sum = at::zeros({grad.size(0), weight.size(1)}, grad.options().dtype(at::kFloat));
  for (int64_t first = 0; first < weight.size(0); first += step) {
    const int64_t count = std::min(step, weight.size(0) - first);
    sum.addmm_(grad.narrow(1, first, count).to(at::kFloat), weight.narrow(0, first, count).to(at::kFloat));
  }
}

}  // namespace sluice
