// A weight [rows, size] in NF4 or int8, seen as numbers a few rows or columns at a time: quantised.cc, quantise.cc.
#pragma once

#include <ATen/core/Tensor.h>

namespace sluice {

/// NF4: packed uint8 [ceil(rows size / 2)], absmax uint8 a block of 64, nested float32 a block of 256 of those, offset
/// float32 []. int8: packed int8 [rows, size], absmax float32 [rows], and neither of the others.
struct Quantised {
  at::Tensor packed, absmax, nested, offset;
  int64_t rows, size;

  bool isNf4() const { return packed.scalar_type() == at::kByte; }
  /// Rows [row, row + count) and columns [column, column + width), contiguous.
  at::Tensor numbers(int64_t row, int64_t count, int64_t column, int64_t width, at::ScalarType dtype) const;
};

/// @throws where tensors are of another shape or dtype than such a weight's
Quantised quantised(const at::Tensor& packed, const at::Tensor& absmax, const std::optional<at::Tensor>& nested,
                    const std::optional<at::Tensor>& offset, int64_t rows, int64_t size);

/// The 256 numbers of the dynamic type.
const float* dynamicMap();

}  // namespace sluice
