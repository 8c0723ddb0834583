// A linear layer over a frozen weight in NF4 or int8:
//
//   sluice::quantised_linear(x, packed, absmax, nested, offset, rows, bias) = x W^T + bias
//
// W is never whole: a product takes some of its rows at a time as numbers of x's dtype, so that what comes out is the
// product with the dequantised weight; few rows of x take a row of W at a time, in the processor's cache. The backward pass
// takes some of its columns at a time, so that each gradient is one sum, and keeps x for nothing.

#include "quantised.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "composed.h"
#include "few-rows-kernels.h"
#include "quantised-kernels.h"
#include "shares.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Bias = std::optional<Tensor>;

/// Numbers of W at a time.
constexpr int64_t kStretch = int64_t{1} << 22;

/// Whether libtorch's own products of bfloat16 are slow here: they need AVX-512.
bool isBf16Slow() {
#if defined(__x86_64__)
  static const bool slow = !(__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                             __builtin_cpu_supports("avx512dq"));
  return slow;
#else
  return false;
#endif
}

/// Each thread makes a row of W and multiplies it, for its share of the rows.
template <class T>
void fewRows(const Tensor& x, const Quantised& weight, const Bias& bias, const Tensor& y) {
  const int64_t size = weight.size, columns = weight.rows, rows = x.numel() / size;
  std::vector<float> wide(rows * size);
  widen(static_cast<const T*>(x.const_data_ptr()), wide.data(), rows * size);
  const T* b = has(bias) ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  T* to = static_cast<T*>(y.mutable_data_ptr());
  const auto* packed = static_cast<const uint8_t*>(weight.packed.const_data_ptr());
  const void* absmax = weight.absmax.const_data_ptr();
  const bool isNf4 = weight.isNf4();
  const float* nested = isNf4 ? weight.nested.const_data_ptr<float>() : nullptr;
  const float offset = isNf4 ? *weight.offset.const_data_ptr<float>() : 0;
  inShares(numShares(columns, size), columns, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<T> row(size);
    for (int64_t n = begin; n < end; ++n) {
      if (isNf4) {
        nf4Numbers(packed, static_cast<const uint8_t*>(absmax), nested, offset, dynamicMap(), n * size, (n + 1) * size,
                   row.data());
      } else {
        int8Numbers(reinterpret_cast<const int8_t*>(packed) + n * size, static_cast<const float*>(absmax)[n], 0, size,
                    row.data());
      }
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
  const Tensor y = at::empty(shape, x.options());
  if (x.numel() == 0) return y;
  const auto dtype = x.scalar_type();
  const int64_t count = x.numel() / weight.size;
  const bool isKernels = x.is_cpu() && hasFewRowsKernels() && hasQuantisedKernels() && (!has(bias) || bias->is_contiguous());
  if (count <= kMostFewRows && isKernels && (dtype == at::kFloat || dtype == at::kBFloat16)) {
    const Tensor given = x.contiguous();
    if (dtype == at::kFloat) fewRows<float>(given, weight, bias, y);
    else fewRows<uint16_t>(given, weight, bias, y);
    return y;
  }
  const Tensor flat = x.reshape({count, weight.size}), to = y.view({count, weight.rows});
  const int64_t step = std::max<int64_t>(1, kStretch / weight.size);
  for (int64_t first = 0; first < weight.rows; first += step) {
    const int64_t rows = std::min(step, weight.rows - first);
    const Tensor part = weight.numbers(first, rows, 0, weight.size, dtype);
    to.narrow(1, first, rows).copy_(productOf(flat, part, has(bias) ? Bias(bias->narrow(0, first, rows)) : std::nullopt));
  }
  return y;
}

/// grad W
Tensor inputGrad(const Tensor& grad, const Quantised& weight) {
  const Tensor flat = grad.reshape({-1, weight.rows}), result = at::empty({flat.size(0), weight.size}, grad.options());
  const bool isWide = grad.is_cpu() && grad.scalar_type() == at::kBFloat16 && isBf16Slow();
  const Tensor from = isWide ? flat.to(at::kFloat) : flat;
  // Whole blocks, where rows begin with one.
  const int64_t step = std::max<int64_t>(kNf4Block, kStretch / weight.rows / kNf4Block * kNf4Block);
  for (int64_t first = 0; first < weight.size; first += step) {
    const int64_t width = std::min(step, weight.size - first);
    const Tensor part = weight.numbers(0, weight.rows, first, width, grad.scalar_type());
    result.narrow(1, first, width).copy_(at::mm(from, isWide ? part.to(at::kFloat) : part));
  }
  return result;
}

class QuantisedLinear : public torch::autograd::Function<QuantisedLinear> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& packed, const Tensor& absmax,
                        const Bias& nested, const Bias& offset, int64_t rows, const Bias& bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Quantised weight = quantised(packed, absmax, nested, offset, rows, x.size(-1));
    context->save_for_backward({packed, absmax, weight.nested, weight.offset});
    context->saved_data["rows"] = rows;
    context->saved_data["shape"] = x.sizes().vec();
    context->saved_data["hasBias"] = has(bias);
    return product(x, weight, bias);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "quantised_linear: expected to be derived once, received a second derivative");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const auto shape = context->saved_data["shape"].toIntVector();
    const int64_t rows = context->saved_data["rows"].toInt();
    Tensor xGrad, biasGrad;
    if (context->needs_input_grad(0))
      xGrad = inputGrad(grads[0], quantised(saved[0], saved[1], saved[2], saved[3], rows, shape.back())).view(shape);
    // What is no tensor has no edge to ask for: the bias is the last edge.
    if (context->saved_data["hasBias"].toBool())
      biasGrad = grads[0].reshape({-1, rows}).sum({0}, false, at::kFloat).to(grads[0].scalar_type());
    return {xGrad, Tensor(), Tensor(), Tensor(), Tensor(), Tensor(), biasGrad};
  }
};

Tensor linearOf(const Tensor& x, const Tensor& packed, const Tensor& absmax, const Bias& nested, const Bias& offset,
                int64_t rows, const Bias& bias) {
  TORCH_CHECK(x.dim() > 0, "quantised_linear: expected [..., features], received a scalar");
  return product(x, quantised(packed, absmax, nested, offset, rows, x.size(-1)), bias);
}

Tensor withGrad(const Tensor& x, const Tensor& packed, const Tensor& absmax, const Bias& nested, const Bias& offset,
                int64_t rows, const Bias& bias) {
  if (at::GradMode::is_enabled() && (x.requires_grad() || (has(bias) && bias->requires_grad())))
    return QuantisedLinear::apply(x, packed, absmax, nested, offset, rows, bias);
  at::AutoDispatchBelowADInplaceOrView below;
  return linearOf(x, packed, absmax, nested, offset, rows, bias);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("quantised_linear(Tensor x, Tensor packed, Tensor absmax, Tensor? nested, Tensor? offset, int rows, "
        "Tensor? bias=None) -> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeExplicitAutograd, m) { m.impl("quantised_linear", linearOf); }
TORCH_LIBRARY_IMPL(sluice, Autograd, m) { m.impl("quantised_linear", withGrad); }

}  // namespace
}  // namespace sluice
