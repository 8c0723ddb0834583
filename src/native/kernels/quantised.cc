// A linear layer over a frozen weight in NF4 or int8, with or without a low-rank update that learns (lora.cc):
//
//   sluice::quantised_linear(x, packed, absmax, nested, offset, rows, block, bias) = x W^T + bias
//   sluice::quantised_lora(x, packed, absmax, nested, offset, rows, block, bias, a, b, scale, gain, output)
//     = gain (x W^T + scale (x a^T) b^T) + bias; with `output`, which is what it gives without a gain, it makes the graph
//     and no product
//   sluice::quantised_product(x, packed, absmax, nested, offset, size, block) = x W
//
// W is never whole: a product takes some of its rows at a time as numbers of x's dtype, so that what comes out is the
// product with the dequantised weight; few rows of x take a row of W at a time, in the processor's cache. The backward pass
// takes some of its columns at a time, so that each gradient is one sum, and of x keeps what the update needs alone.

#include "quantised.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "builds.h"
#include "composed.h"
#include "few-rows-kernels.h"
#include "few-rows.h"
#include "known-output.h"
#include "quantised-kernels.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Bias = std::optional<Tensor>;

/// Numbers of W at a time.
constexpr int64_t kStretch = int64_t{1} << 22;

/// Each thread makes a row of W and multiplies it, for its share of the rows.
template <class T>
void fewRows(const Tensor& x, const Quantised& weight, const Bias& bias, const Tensor& y) {
  const int64_t size = weight.size, columns = weight.rows, rows = x.numel() / size;
  std::vector<float> wide(rows * size);
  widen(static_cast<const T*>(x.const_data_ptr()), wide.data(), rows * size);
  const T* b = has(bias) ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  T* to = static_cast<T*>(y.mutable_data_ptr());
  const RowReader reader(weight);
  inShares(numShares(columns, size), columns, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<T> row(size);
    for (int64_t n = begin; n < end; ++n) {
      reader.read(n, 0, size, row.data());
      fewRowsProduct<T>(wide.data(), row.data(), b ? b + n : nullptr, to + n, rows, size, size, columns, 0, 1);
    }
  });
}

Tensor product(const Tensor& x, const Quantised& weight, const Bias& bias) {
  TORCH_CHECK(x.dim() > 0 && x.size(-1) == weight.size && x.is_floating_point(), "quantised_linear: expected floats [..., ",
              weight.size, "], received ", x.scalar_type(), " ", x.sizes());
  TORCH_CHECK(!has(bias) || (bias->dim() == 1 && bias->size(0) == weight.rows && bias->scalar_type() == x.scalar_type()),
              "quantised_linear: expected a bias of ", weight.rows, " numbers of x's dtype");
  auto shape = x.sizes().vec();
  shape.back() = weight.rows;
  if (x.numel() == 0) return at::empty(shape, x.options());
  const auto dtype = x.scalar_type();
  const int64_t count = x.numel() / weight.size;
  const bool isKernels = x.is_cpu() && hasLanes() && (!has(bias) || bias->is_contiguous());
  if (count <= kMostFewRows && isKernels && (dtype == at::kFloat || dtype == at::kBFloat16)) {
    const Tensor given = x.contiguous(), y = at::empty(shape, x.options());
    if (dtype == at::kFloat) fewRows<float>(given, weight, bias, y);
    else fewRows<uint16_t>(given, weight, bias, y);
    return y;
  }
  const Tensor flat = x.reshape({count, weight.size});
  const int64_t step = std::max<int64_t>(1, kStretch / weight.size);
  if (step >= weight.rows)
    return productOf(flat, weight.numbers(0, weight.rows, 0, weight.size, dtype), bias).view(shape);
  const Tensor y = at::empty(shape, x.options()), to = y.view({count, weight.rows});
  for (int64_t first = 0; first < weight.rows; first += step) {
    const int64_t rows = std::min(step, weight.rows - first);
    const Tensor part = weight.numbers(first, rows, 0, weight.size, dtype);
    to.narrow(1, first, rows).copy_(productOf(flat, part, has(bias) ? Bias(bias->narrow(0, first, rows)) : std::nullopt));
  }
  return y;
}

/// grad W
Tensor inputGrad(const Tensor& grad, const Quantised& weight) {
  const Tensor flat = grad.reshape({-1, weight.rows});
  const bool isWide = grad.is_cpu() && grad.scalar_type() == at::kBFloat16 && isBf16Slow();
  const Tensor from = isWide ? flat.to(at::kFloat) : flat;
  const auto columns = [&](int64_t first, int64_t width) {
    const Tensor part = weight.numbers(0, weight.rows, first, width, grad.scalar_type());
    return at::mm(from, isWide ? part.to(at::kFloat) : part).to(grad.scalar_type());
  };
  // Whole blocks, where rows begin with one.
  const int64_t together = std::max<int64_t>(64, weight.block);
  const int64_t step = std::max(together, kStretch / weight.rows / together * together);
  if (step >= weight.size) return columns(0, weight.size);
  const Tensor result = at::empty({flat.size(0), weight.size}, grad.options());
  for (int64_t first = 0; first < weight.size; first += step) {
    const int64_t width = std::min(step, weight.size - first);
    result.narrow(1, first, width).copy_(columns(first, width));
  }
  return result;
}

/// What learns beside the weight. In x's dtype, and b times the scale.
struct Update {
  Tensor a, b, gain;
};

Update updateOf(const Tensor& a, const Tensor& b, double scale, const Bias& gain, at::ScalarType dtype) {
  return {a.to(dtype), (b * scale).to(dtype), has(gain) ? gain->to(dtype) : Tensor()};
}

struct Sum {
  Tensor y, sum, down;
};

/// y, and what its gradients need: the sum before the gain, x a^T. @param output y where that is known
Sum updated(const Tensor& x, const Quantised& weight, const Bias& bias, const Update& update, const Bias& output) {
  if (has(output)) {
    checkKnownOutput("quantised_lora", *output, x, weight.rows, update.gain.defined());
    return {output->view(output->sizes()), Tensor(), at::mm(x.reshape({-1, weight.size}), update.a.t())};
  }
  const bool isGained = update.gain.defined();
  const Tensor y = product(x, weight, isGained ? std::nullopt : bias), sum = y.view({-1, weight.rows});
  const Tensor down = at::mm(x.reshape({-1, weight.size}), update.a.t());
  sum.addmm_(down, update.b.t());
  if (!isGained) return {y, Tensor(), down};
  const Tensor whole = y * update.gain;
  return {has(bias) ? whole.add_(*bias) : whole, sum, down};
}

class QuantisedLinear : public torch::autograd::Function<QuantisedLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Bias& bias, const Quantised& weight) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({weight.packed, weight.absmax, weight.nested, weight.offset});
    context->saved_data["rows"] = weight.rows;
    context->saved_data["block"] = weight.block;
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["hasBias"] = has(bias);
    return product(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("quantised_linear");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const auto shape = context->saved_data["shape"].toIntVector();
    const int64_t rows = context->saved_data["rows"].toInt(), block = context->saved_data["block"].toInt();
    Tensor xGrad, biasGrad;
    if (context->needs_input_grad(0)) {
      const Quantised weight = quantised(saved[0], saved[1], saved[2], saved[3], rows, shape.back(), block);
      xGrad = inputGrad(grads[0], weight).view(shape);
    }
    // What is no tensor has no edge to ask for: a bias is the second.
    if (context->saved_data["hasBias"].toBool() && context->needs_input_grad(1))
      biasGrad = grads[0].reshape({-1, rows}).sum({0}, false, at::kFloat).to(grads[0].scalar_type());
    return {xGrad, biasGrad, Tensor()};
  }
};

class QuantisedLora : public torch::autograd::Function<QuantisedLora> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& a, const Tensor& b, const Bias& gain,
                        double scale, const Bias& bias, const Quantised& weight, const c10::List<Tensor>& known) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Update update = updateOf(a, b, scale, gain, x.scalar_type());
    const auto [y, sum, down] = updated(x, weight, bias, update, known.empty() ? Bias() : Bias(known.get(0)));
    context->save_for_backward({weight.packed, weight.absmax, weight.nested, weight.offset, x, update.a, update.b,
                                update.gain, sum, down});
    context->saved_data["rows"] = weight.rows;
    context->saved_data["block"] = weight.block;
    context->saved_data["scale"] = scale;
    context->saved_data["dtype"] = a.scalar_type();
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("quantised_lora");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &given = saved[4], &a = saved[5], &b = saved[6], &gain = saved[7], &sum = saved[8], &down = saved[9];
    const int64_t rows = context->saved_data["rows"].toInt(), block = context->saved_data["block"].toInt();
    const auto dtype = context->saved_data["dtype"].toScalarType();
    const Tensor x = given.reshape({-1, given.size(-1)}), from = grads[0].reshape({-1, rows}).contiguous();
    Tensor xGrad, aGrad, bGrad, gainGrad, grad = from;
    if (gain.defined()) {
      if (context->needs_input_grad(3)) gainGrad = (from * sum).sum({0}, false, dtype);
      grad = from * gain;
    }
    if (context->needs_input_grad(2))
      bGrad = at::mm(grad.t(), down).to(dtype).mul_(context->saved_data["scale"].toDouble());
    const bool wantsX = context->needs_input_grad(0), wantsA = context->needs_input_grad(1);
    if (wantsX || wantsA) {
      const Tensor downGrad = at::mm(grad, b);
      if (wantsA) aGrad = at::mm(downGrad.t(), x).to(dtype);
      if (wantsX) {
        const Quantised weight = quantised(saved[0], saved[1], saved[2], saved[3], rows, given.size(-1), block);
        xGrad = inputGrad(grad, weight).addmm_(downGrad, a).view(given.sizes());
      }
    }
    return {xGrad, aGrad, bGrad, gainGrad, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

bool learns(const Bias& tensor) { return has(tensor) && tensor->requires_grad(); }

Tensor linearOf(const Tensor& x, const Tensor& packed, const Tensor& absmax, const Bias& nested, const Bias& offset,
                int64_t rows, int64_t block, const Bias& bias) {
  TORCH_CHECK(x.dim() > 0, "quantised_linear: expected [..., features], received a scalar");
  return product(x, quantised(packed, absmax, nested, offset, rows, x.size(-1), block), bias);
}

Tensor linearWithGrad(const Tensor& x, const Tensor& packed, const Tensor& absmax, const Bias& nested, const Bias& offset,
                      int64_t rows, int64_t block, const Bias& bias) {
  if (x.dim() > 0 && at::GradMode::is_enabled() && (x.requires_grad() || learns(bias)))
    return QuantisedLinear::apply(x, bias, quantised(packed, absmax, nested, offset, rows, x.size(-1), block));
  at::AutoDispatchBelowADInplaceOrView below;
  return linearOf(x, packed, absmax, nested, offset, rows, block, bias);
}

Tensor loraOf(const Tensor& x, const Tensor& packed, const Tensor& absmax, const Bias& nested, const Bias& offset,
              int64_t rows, int64_t block, const Bias& bias, const Tensor& a, const Tensor& b, double scale,
              const Bias& gain, const Bias& output) {
  TORCH_CHECK(x.dim() > 0, "quantised_lora: expected [..., features], received a scalar");
  const Quantised weight = quantised(packed, absmax, nested, offset, rows, x.size(-1), block);
  return updated(x, weight, bias, updateOf(a, b, scale, gain, x.scalar_type()), output).y;
}

Tensor loraWithGrad(const Tensor& x, const Tensor& packed, const Tensor& absmax, const Bias& nested, const Bias& offset,
                    int64_t rows, int64_t block, const Bias& bias, const Tensor& a, const Tensor& b, double scale,
                    const Bias& gain, const Bias& output) {
  const bool isRecorded = at::GradMode::is_enabled() && x.dim() > 0;
  if (isRecorded && learns(bias)) {
    const auto dtype = x.scalar_type();
    const Tensor sum = linearWithGrad(x, packed, absmax, nested, offset, rows, block, has(gain) ? std::nullopt : bias) +
                       at::linear(at::linear(x, a.to(dtype)), (b * scale).to(dtype));
    return has(gain) ? sum * gain->to(dtype) + *bias : sum;
  }
  if (isRecorded && (x.requires_grad() || a.requires_grad() || b.requires_grad() || learns(gain))) {
    const Quantised weight = quantised(packed, absmax, nested, offset, rows, x.size(-1), block);
    const auto known = has(output) ? c10::List<Tensor>({*output}) : c10::List<Tensor>();
    return QuantisedLora::apply(x, a, b, gain, scale, bias, weight, known);
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return loraOf(x, packed, absmax, nested, offset, rows, block, bias, a, b, scale, gain, output);
}

Tensor productWith(const Tensor& x, const Tensor& packed, const Tensor& absmax, const Bias& nested, const Bias& offset,
                   int64_t size, int64_t block) {
  TORCH_CHECK(x.dim() > 0, "quantised_product: expected [..., rows], received a scalar");
  auto shape = x.sizes().vec();
  const Quantised weight = quantised(packed, absmax, nested, offset, shape.back(), size, block);
  shape.back() = size;
  return inputGrad(x, weight).view(shape);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("quantised_linear(Tensor x, Tensor packed, Tensor absmax, Tensor? nested, Tensor? offset, int rows, int block, "
        "Tensor? bias=None) -> Tensor");
  m.def("quantised_lora(Tensor x, Tensor packed, Tensor absmax, Tensor? nested, Tensor? offset, int rows, int block, "
        "Tensor? bias, Tensor a, Tensor b, float scale, Tensor? gain=None, Tensor? output=None) -> Tensor");
  m.def("quantised_product(Tensor x, Tensor packed, Tensor absmax, Tensor? nested, Tensor? offset, int size, int block) "
        "-> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeExplicitAutograd, m) {
  m.impl("quantised_linear", linearOf);
  m.impl("quantised_lora", loraOf);
  m.impl("quantised_product", productWith);
}
TORCH_LIBRARY_IMPL(sluice, Autograd, m) {
  m.impl("quantised_linear", linearWithGrad);
  m.impl("quantised_lora", loraWithGrad);
}

}  // namespace
}  // namespace sluice
