// What operators over rows of numbers share: whether kernels take their tensors, and the kernels' views of them.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <initializer_list>
#include <vector>

#include "builds.h"
#include "shares.h"

namespace sluice {

/// Whether kernels take these: one dtype, on the CPU. Undefined ones do not count, the first is defined.
inline bool isForKernels(std::initializer_list<at::Tensor> tensors) {
  const auto dtype = tensors.begin()->scalar_type();
  if (!hasLanes() || (dtype != at::kFloat && dtype != at::kBFloat16) || tensors.begin()->numel() == 0) return false;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined() && (tensor.scalar_type() != dtype || !tensor.is_cpu())) return false;
  return true;
}

/// Whether a gradient is recorded for any of these.
inline bool isRecorded(std::initializer_list<at::Tensor> tensors) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& tensor : tensors)
    if (tensor.defined() && tensor.requires_grad()) return true;
  return false;
}

/// @throws in a backward pass that is recorded itself: the kernels have first derivatives only
inline void refuseSecondDerivative(const char* name) {
  TORCH_CHECK(!at::GradMode::is_enabled(), name, ": expected to be derived once, received a second derivative");
}

inline bool isVector(const at::Tensor& weight, int64_t size) { return weight.dim() == 1 && weight.size(0) == size; }

inline at::Tensor dense(const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; }

template <class T>
const T* from(const at::Tensor& tensor, int64_t offset = 0) {
  return tensor.defined() ? static_cast<const T*>(tensor.const_data_ptr()) + offset : nullptr;
}
template <class T>
T* to(const at::Tensor& tensor, int64_t offset = 0) {
  return tensor.defined() ? static_cast<T*>(tensor.mutable_data_ptr()) + offset : nullptr;
}

/// run(T*) with the type that the kernels know the numbers by.
template <class Run>
void byDtype(const at::Tensor& tensor, Run&& run) {
  if (tensor.scalar_type() == at::kFloat) run(static_cast<float*>(nullptr));
  else run(static_cast<uint16_t*>(nullptr));
}

/// Memory for a gradient of the same shape and dtype: the incoming one's own, where a backward pass alone holds it and no
/// longer needs it.
inline at::Tensor inPlaceOf(const at::Tensor& grad) {
  const bool isOwned = grad.use_count() == 1 && grad.storage().use_count() == 1 && grad.is_contiguous() &&
                       !grad.requires_grad();
  return isOwned ? grad : at::empty(grad.sizes(), grad.options());
}

/// body(first, count) over shares of the rows.
template <class Body>
void overRows(int64_t rows, int64_t size, Body&& body) {
  inShares(numShares(rows, size), rows, [&](int64_t, int64_t begin, int64_t end) { body(begin, end - begin); });
}

/// A gradient that all rows add to, such as a weight's: each share of them into float32 numbers of its own, which are added
/// in the shares' order.
class SharedGrad {
 public:
  /// @param like undefined where the gradient is not wanted
  SharedGrad(const at::Tensor& like, int64_t shares) : like_(like), shares_(shares) {
    if (like.defined()) sums_.resize(static_cast<size_t>(like.numel() * shares));
  }

  /// A share's numbers, or nullptr where none are wanted.
  float* of(int64_t share) { return sums_.empty() ? nullptr : sums_.data() + share * like_.numel(); }

  /// In the tensor's shape and dtype; undefined where it was not wanted.
  at::Tensor total() {
    if (!like_.defined()) return {};
    const int64_t size = like_.numel();
    for (int64_t share = 1; share < shares_; ++share)
      for (int64_t i = 0; i < size; ++i) sums_[i] += sums_[share * size + i];
    const at::Tensor grad = at::empty(like_.sizes(), like_.options());
    return grad.copy_(at::from_blob(sums_.data(), like_.sizes(), at::kFloat));
  }

 private:
  at::Tensor like_;
  int64_t shares_;
  std::vector<float> sums_;
};

}  // namespace sluice
