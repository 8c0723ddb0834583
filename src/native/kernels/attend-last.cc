// Attention of one query a sequence, as in generation, on a CPU where nothing learns:
//
//   sluice::attend_last(q, k, v, mask, scale) = softmax(scale q k^T) v in each head, [B, N, 1, D]
//
// q [B, N, 1, D], k and v [B, K, S, D], K dividing N; mask bool [B or 1, 1, 1, S] or none, true takes part. Queries that
// share keys read them once. libtorch's kernel repeats keys and values for every head first. A query that may see
// nothing yields zeros. Whatever the kernel does not take goes to libtorch's own.
//
//   sluice::put_(whole, part, dim, start)                   whole.narrow(dim, start, ..).copy_(part), in one call

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

#include <vector>

#include "attend-last-kernels.h"
#include "builds.h"
#include "composed.h"
#include "shares.h"

namespace sluice {
namespace {

using at::Tensor;
using Maybe = std::optional<Tensor>;

bool takes(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask) {
  const auto dtype = q.scalar_type();
  if (!hasLanes() || (dtype != at::kFloat && dtype != at::kBFloat16) || !q.is_cpu()) return false;
  if (q.dim() != 4 || k.dim() != 4 || q.size(2) != 1 || k.sizes() != v.sizes() || k.numel() == 0) return false;
  if (q.size(0) != k.size(0) || q.size(3) != k.size(3) || q.size(1) % k.size(1) != 0) return false;
  for (const Tensor& tensor : {q, k, v}) {
    if (tensor.scalar_type() != dtype || !tensor.is_cpu()) return false;
    if (at::GradMode::is_enabled() && tensor.requires_grad()) return false;
  }
  if (k.stride(3) != 1 || v.stride(3) != 1 || q.size(1) / k.size(1) > kMostGroup) return false;
  return !has(mask) || (mask->scalar_type() == at::kBool && mask->is_cpu() && mask->dim() == 4 &&
                        mask->numel() == mask->size(0) * k.size(2) && mask->size(3) == k.size(2) &&
                        (mask->size(0) == 1 || mask->size(0) == q.size(0)));
}

template <class T>
void attendAs(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, double scale, const Tensor& y) {
  const int64_t heads = k.size(1), tasks = k.size(0) * heads;
  const AttendLastSizes sizes{q.size(1) / heads, k.size(2), k.size(3), k.stride(2), v.stride(2),
                              static_cast<float>(scale)};
  const auto *queries = static_cast<const T*>(q.const_data_ptr()), *keys = static_cast<const T*>(k.const_data_ptr()),
             *values = static_cast<const T*>(v.const_data_ptr());
  const bool* sees = has(mask) ? static_cast<const bool*>(mask->const_data_ptr()) : nullptr;
  T* to = static_cast<T*>(y.mutable_data_ptr());
  const int64_t width = sizes.group * sizes.size;
  inShares(numShares(tasks, sizes.keys * width), tasks, [&](int64_t, int64_t begin, int64_t end) {
    static thread_local std::vector<float> scratch;
    scratch.resize(sizes.group * (sizes.keys + sizes.size));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t row = task / heads, head = task % heads;
      attendLast<T>(sizes, queries + task * width, keys + row * k.stride(0) + head * k.stride(1),
                    values + row * v.stride(0) + head * v.stride(1),
                    sees && mask->size(0) > 1 ? sees + row * sizes.keys : sees, to + task * width, scratch.data());
    }
  });
}

Tensor attendLastOf(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, double scale) {
  if (!takes(q, k, v, mask)) {
    const bool grouped = q.size(1) != k.size(1);
    return at::scaled_dot_product_attention(q, k, v, mask, 0, false, scale, grouped);
  }
  const Tensor queries = q.contiguous(), y = at::empty(q.sizes(), q.options());
  const Maybe sees = has(mask) ? Maybe(mask->contiguous()) : std::nullopt;
  const auto run = q.scalar_type() == at::kFloat ? attendAs<float> : attendAs<uint16_t>;
  run(queries, k, v, sees, scale, y);
  return y;
}

Tensor put(Tensor whole, const Tensor& part, int64_t dim, int64_t start) {
  whole.narrow(dim, start, part.size(dim)).copy_(part);
  return whole;
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("attend_last(Tensor q, Tensor k, Tensor v, Tensor? mask, float scale) -> Tensor", attendLastOf);
  m.def("put_(Tensor(a!) whole, Tensor part, int dim, int start) -> Tensor(a!)", put);
}

}  // namespace
}  // namespace sluice
