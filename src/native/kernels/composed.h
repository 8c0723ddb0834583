// The addon's own operators for those composed of them, called through the dispatcher, so that they record.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace sluice {

inline bool has(const std::optional<at::Tensor>& tensor) { return tensor.has_value() && tensor->defined(); }

/// rms-norm.cc
inline at::Tensor rmsNorm(const at::Tensor& x, const std::optional<at::Tensor>& weight, double eps) {
  using Norm = at::Tensor(const at::Tensor&, const std::optional<at::Tensor>&, double, c10::string_view);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("sluice::rms_norm", "").typed<Norm>();
  return op.call(x, weight, eps, "none");
}

/// few-rows.cc
inline at::Tensor productOf(const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias = std::nullopt) {
  using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("sluice::linear", "").typed<Linear>();
  return op.call(x, weight, bias);
}

/// gated.cc
inline at::Tensor geluMul(const at::Tensor& gate, const at::Tensor& up) {
  using Gate = at::Tensor(const at::Tensor&, const at::Tensor&);
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("sluice::gelu_mul", "").typed<Gate>();
  return op.call(gate, up);
}

}  // namespace sluice
