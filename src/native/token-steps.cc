// What a decoder layer does to each token between its products, a pass each where nothing learns, on a CPU:
//
//   sluice::rms_norm_add(x, weight, residual, eps)          residual + norm(x)
//   sluice::rms_norm_rotate(x, weight, cos, signed_sin, eps, heads)
//       [B, T, heads D] -> [B, heads, T, D]: each head's norm(x), its halves rotated against each other
//   sluice::sparse_gate(x, cutoff)                          relu(x - mean - cutoff std) of each row
//   sluice::altup_route(x, norm, router, coefs, eps, scale, addend)
//       tanh((norm(x) scale) router^T) coefs^T + addend
//   sluice::altup_innovate(activated, predicted, coefs, active, scale)
//       innovation = activated - predicted; first = (predicted + coefs_active innovation) scale
//
// One token has so little to compute that calling an operator costs as much as it does. Where something learns, and for
// whatever the kernels do not take, each is composed of libtorch's operators and the addon's own.

#include "token-steps-kernels.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/tanh.h>
#include <torch/library.h>

#include <cmath>

#include "composed.h"
#include "shares.h"

namespace sluice {
namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;
using Pair = std::tuple<Tensor, Tensor>;

/// Whether the kernels take these: one dtype, on the CPU, and nothing learns.
bool takes(std::initializer_list<Tensor> tensors) {
  const Tensor& first = *tensors.begin();
  const auto dtype = first.scalar_type();
  if (!hasTokenStepKernels() || (dtype != at::kFloat && dtype != at::kBFloat16) || first.dim() < 2) return false;
  if (first.numel() == 0) return false;
  const bool records = at::GradMode::is_enabled();
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    if (tensor.scalar_type() != dtype || !tensor.is_cpu() || (records && tensor.requires_grad())) return false;
  }
  return true;
}

bool isVector(const Tensor& weight, int64_t size) { return weight.dim() == 1 && weight.size(0) == size; }

template <class T>
const T* from(const Tensor& tensor) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) : nullptr;
}
template <class T>
T* to(const Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

/// run(T*) with the type that the kernels know the numbers by.
template <class Run>
void byDtype(const Tensor& tensor, Run&& run) {
  if (tensor.scalar_type() == at::kFloat) run(static_cast<float*>(nullptr));
  else run(static_cast<uint16_t*>(nullptr));
}

/// body(first, count) over shares of the rows.
template <class Body>
void overRows(int64_t rows, int64_t size, Body&& body) {
  inShares(numShares(rows, size), rows, [&](int64_t, int64_t begin, int64_t end) { body(begin, end - begin); });
}

Tensor normAddOf(const Tensor& given, const Tensor& weight, const Tensor& residual, double eps) {
  const int64_t size = given.size(-1);
  if (!takes({given, weight, residual}) || !isVector(weight, size) || given.sizes() != residual.sizes())
    return residual + rmsNorm(given, weight, eps);
  const Tensor x = given.contiguous(), w = weight.contiguous(), r = residual.contiguous();
  const Tensor y = at::empty(x.sizes(), x.options());
  byDtype(x, [&]<class T>(T*) {
    overRows(x.numel() / size, size, [&](int64_t first, int64_t count) {
      const int64_t at = first * size;
      normAdd<T>(from<T>(x) + at, from<T>(w), from<T>(r) + at, to<T>(y) + at, count, size, static_cast<float>(eps));
    });
  });
  return y;
}

Tensor normRotateComposed(const Tensor& x, const Maybe& weight, const Maybe& cos, const Maybe& signedSin, double eps,
                          int64_t heads) {
  const int64_t size = x.size(2) / heads, half = size / 2;
  const Tensor normed = rmsNorm(x.reshape({x.size(0), x.size(1), heads, size}), weight, eps);
  if (!has(cos)) return normed.transpose(1, 2);
  const Tensor swapped = at::cat({normed.narrow(3, half, half), normed.narrow(3, 0, half)}, 3);
  return (normed * *cos + swapped * *signedSin).transpose(1, 2);
}

Tensor normRotateOf(const Tensor& given, const Maybe& weight, const Maybe& cos, const Maybe& signedSin, double eps,
                    int64_t heads) {
  TORCH_CHECK(given.dim() == 3 && heads > 0 && given.size(2) % heads == 0 && has(cos) == has(signedSin),
              "expected x [batch, tokens, heads * size], and cos and signed_sin or neither");
  const int64_t batch = given.size(0), tokens = given.size(1), size = given.size(2) / heads;
  const auto all = {given, weight.value_or(Tensor()), cos.value_or(Tensor()), signedSin.value_or(Tensor())};
  if (!takes(all) || size > kMostHeadSize || size % 2 || (has(weight) && !isVector(*weight, size)))
    return normRotateComposed(given, weight, cos, signedSin, eps, heads);
  const Tensor x = given.contiguous(), w = has(weight) ? weight->contiguous() : Tensor();
  const Tensor c = has(cos) ? cos->contiguous() : Tensor(), s = has(cos) ? signedSin->contiguous() : Tensor();
  if (has(cos))
    TORCH_CHECK(c.sizes() == s.sizes() && c.dim() == 4 && (c.size(0) == 1 || c.size(0) == batch) &&
                    c.size(1) == tokens && c.size(2) == 1 && c.size(3) == size,
                "expected cos and signed_sin [batch or 1, tokens, 1, size]");
  const Tensor y = at::empty({batch, heads, tokens, size}, x.options());
  byDtype(x, [&]<class T>(T*) {
    overRows(batch * tokens, heads * size, [&](int64_t first, int64_t count) {
      for (int64_t token = first; token < first + count; ++token) {
        const int64_t row = token / tokens, place = token % tokens;
        const int64_t angle = has(cos) ? (c.size(0) == 1 ? place : token) * size : 0;
        for (int64_t head = 0; head < heads; ++head)
          normRotate<T>(from<T>(x) + (token * heads + head) * size, from<T>(w), has(cos) ? from<T>(c) + angle : nullptr,
                        has(cos) ? from<T>(s) + angle : nullptr,
                        to<T>(y) + ((row * heads + head) * tokens + place) * size, size, static_cast<float>(eps));
      }
    });
  });
  return y;
}

/// The deviation from a norm: libtorch's own takes ten times as long. The mean is left out of the derivative: its part
/// there is zero.
Tensor sparseGateComposed(const Tensor& x, double cutoff) {
  const Tensor mean = x.mean(-1, true);
  const Tensor norm = at::linalg_vector_norm(x - mean.detach(), 2, at::IntArrayRef{-1}, true);
  return at::relu(x - (mean + norm / std::sqrt(static_cast<double>(x.size(-1))) * cutoff));
}

Tensor sparseGateOf(const Tensor& given, double cutoff) {
  if (!takes({given})) return sparseGateComposed(given, cutoff);
  const Tensor x = given.contiguous(), y = at::empty(x.sizes(), x.options());
  const int64_t size = x.size(-1);
  byDtype(x, [&]<class T>(T*) {
    overRows(x.numel() / size, size, [&](int64_t first, int64_t count) {
      sparseGate<T>(from<T>(x) + first * size, to<T>(y) + first * size, count, size, static_cast<float>(cutoff));
    });
  });
  return y;
}

Tensor routeComposed(const Tensor& x, const Tensor& norm, const Tensor& router, const Tensor& coefs, double eps,
                     double scale, double addend) {
  const Tensor routed = productOf(rmsNorm(x, norm, eps) * scale, router).to(at::kFloat).tanh().to(x.scalar_type());
  const Tensor mixed = productOf(routed, coefs);
  return addend == 0 ? mixed : mixed + addend;
}

Tensor routeOf(const Tensor& given, const Tensor& norm, const Tensor& router, const Tensor& coefs, double eps,
               double scale, double addend) {
  const int64_t size = given.size(-1), num = router.size(0), outs = coefs.size(0);
  if (!takes({given, norm, router, coefs}) || num > kMostRouted || !isVector(norm, size) || router.dim() != 2 ||
      router.size(1) != size || coefs.dim() != 2 || coefs.size(1) != num)
    return routeComposed(given, norm, router, coefs, eps, scale, addend);
  const Tensor x = given.contiguous(), w = norm.contiguous(), r = router.contiguous(), c = coefs.contiguous();
  auto shape = x.sizes().vec();
  shape.back() = outs;
  const Tensor y = at::empty(shape, x.options());
  byDtype(x, [&]<class T>(T*) {
    overRows(x.numel() / size, size, [&](int64_t first, int64_t count) {
      altupRoute<T>(from<T>(x) + first * size, from<T>(w), from<T>(r), from<T>(c), to<T>(y) + first * outs, count, size,
                    num, outs, static_cast<float>(eps), static_cast<float>(scale), static_cast<float>(addend));
    });
  });
  return y;
}

Pair innovateComposed(const Tensor& activated, const Tensor& predicted, const Tensor& coefs, int64_t active,
                      const Maybe& scale) {
  const Tensor innovation = activated - predicted;
  const Tensor first = at::addcmul(predicted, coefs.narrow(-1, active, 1), innovation);
  return {innovation, has(scale) ? first * *scale : first};
}

Pair innovateOf(const Tensor& givenActivated, const Tensor& givenPredicted, const Tensor& givenCoefs, int64_t active,
                const Maybe& givenScale) {
  const int64_t size = givenActivated.size(-1), num = givenCoefs.size(-1), rows = givenActivated.numel() / size;
  if (!takes({givenActivated, givenPredicted, givenCoefs, givenScale.value_or(Tensor())}) ||
      givenActivated.sizes() != givenPredicted.sizes() || givenCoefs.numel() != rows * num ||
      (has(givenScale) && !isVector(*givenScale, size)))
    return innovateComposed(givenActivated, givenPredicted, givenCoefs, active, givenScale);
  TORCH_CHECK(active >= 0 && active < num, "expected an active copy below ", num, ", received ", active);
  const Tensor activated = givenActivated.contiguous(), predicted = givenPredicted.contiguous();
  const Tensor coefs = givenCoefs.contiguous(), scale = has(givenScale) ? givenScale->contiguous() : Tensor();
  const Tensor innovation = at::empty(activated.sizes(), activated.options()), first = at::empty_like(innovation);
  byDtype(activated, [&]<class T>(T*) {
    overRows(rows, size, [&](int64_t row, int64_t count) {
      const int64_t at = row * size;
      altupInnovate<T>(from<T>(activated) + at, from<T>(predicted) + at, from<T>(coefs) + row * num, from<T>(scale),
                       to<T>(innovation) + at, to<T>(first) + at, count, size, num, active);
    });
  });
  return {innovation, first};
}

// Composed of operators that record by themselves, so that one implementation serves every device and mode.
TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("rms_norm_add(Tensor x, Tensor weight, Tensor residual, float eps) -> Tensor", normAddOf);
  m.def("rms_norm_rotate(Tensor x, Tensor? weight, Tensor? cos, Tensor? signed_sin, float eps, int heads) -> Tensor",
        normRotateOf);
  m.def("sparse_gate(Tensor x, float cutoff) -> Tensor", sparseGateOf);
  m.def(
      "altup_route(Tensor x, Tensor norm, Tensor router, Tensor coefs, float eps, float scale, float addend) -> Tensor",
      routeOf);
  m.def(
      "altup_innovate(Tensor activated, Tensor predicted, Tensor coefs, int active, Tensor? scale) -> (Tensor, Tensor)",
      innovateOf);
}

}  // namespace
}  // namespace sluice
