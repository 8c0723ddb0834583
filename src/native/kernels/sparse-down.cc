// A linear layer of rows that are zero nearly everywhere, as behind a sparse gate, on a CPU where nothing learns:
//
//   sluice::sparse_linear(x, weight, bias) = x weight^T + bias
//
// The weight is turned a slice of its rows at a time, so that a number of x meets its column in one stretch; numbers that
// are 0 are left out. Few rows, which do not pay for the turning, rows that are not sparse, and whatever the kernels do
// not take go to sluice::linear.

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "builds.h"
#include "composed.h"
#include "shares.h"
#include "sparse-down-kernels.h"

namespace sluice {
namespace {

using at::Tensor;
using Bias = std::optional<Tensor>;

constexpr int64_t kFewestRows = 64;
/// Of the numbers that are not 0, where the dense product is as fast.
constexpr double kMostDense = 0.15;

bool takes(const Tensor& x, const Tensor& weight, const Bias& bias) {
  const auto dtype = x.scalar_type();
  if (!hasLanes() || (dtype != at::kFloat && dtype != at::kBFloat16) || x.dim() == 0) return false;
  const int64_t size = x.size(-1);
  if (size == 0 || weight.dim() != 2 || weight.size(1) != size || x.numel() < kFewestRows * size) return false;
  for (const Tensor& tensor : {x, weight, bias.value_or(Tensor())}) {
    if (!tensor.defined()) continue;
    if (tensor.scalar_type() != dtype || !tensor.is_cpu()) return false;
    if (at::GradMode::is_enabled() && tensor.requires_grad()) return false;
  }
  return weight.is_contiguous() && (!has(bias) || (bias->is_contiguous() && bias->numel() == weight.size(0)));
}

/// The numbers that are not 0: row r's lie in [starts[r], starts[r + 1]).
struct Sparse {
  std::vector<int64_t> starts;
  std::vector<float> values;
  std::vector<int32_t> places;
};

/// False where too many are not 0.
template <class T>
bool compress(const T* x, int64_t rows, int64_t size, Sparse& sparse) {
  sparse.starts.resize(rows + 1);
  for (int64_t row = 0; row < rows; ++row)
    sparse.starts[row + 1] = sparse.starts[row] + countNonZero(x + row * size, size);
  if (static_cast<double>(sparse.starts[rows]) > kMostDense * static_cast<double>(rows * size)) return false;
  sparse.values.resize(sparse.starts[rows] + 1);  // gathering writes one beyond
  sparse.places.resize(sparse.starts[rows] + 1);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t start = sparse.starts[row];
    gatherNonZero(x + row * size, size, sparse.values.data() + start, sparse.places.data() + start);
  }
  return true;
}

template <class T>
bool computeAs(const Tensor& x, const Tensor& weight, const Bias& bias, const Tensor& y) {
  const int64_t size = x.size(-1), rows = x.numel() / size, columns = weight.size(0);
  Sparse sparse;
  if (!compress(static_cast<const T*>(x.const_data_ptr()), rows, size, sparse)) return false;
  const T* w = static_cast<const T*>(weight.const_data_ptr());
  const T* b = has(bias) ? static_cast<const T*>(bias->const_data_ptr()) : nullptr;
  T* to = static_cast<T*>(y.mutable_data_ptr());
  const int64_t slices = (columns + kSlice - 1) / kSlice;
  inShares(numShares(slices, size * kSlice), slices, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<float> turned(size * kSlice);
    for (int64_t slice = begin; slice < end; ++slice) {
      const int64_t first = slice * kSlice, count = std::min(kSlice, columns - first);
      turn(w + first * size, size, count, turned.data());
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t start = sparse.starts[row];
        sparseProduct<T>(sparse.values.data() + start, sparse.places.data() + start, sparse.starts[row + 1] - start,
                         turned.data(), b ? b + first : nullptr, to + row * columns + first, count);
      }
    }
  });
  return true;
}

Tensor sparseLinear(const Tensor& given, const Tensor& weight, const Bias& bias) {
  if (takes(given, weight, bias)) {
    const Tensor x = given.contiguous();
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    const Tensor y = at::empty(shape, x.options());
    const auto run = x.scalar_type() == at::kFloat ? computeAs<float> : computeAs<uint16_t>;
    if (run(x, weight, bias, y)) return y;
  }
  return productOf(given, weight, bias);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("sparse_linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor", sparseLinear);
}

}  // namespace
}  // namespace sluice
