// A weight [rows, size] in NF4 or int8, seen as numbers a few rows or columns at a time: quantised.cc, quantise.cc.
#pragma once

#include <ATen/core/Tensor.h>

#include "quantised-kernels.h"

namespace sluice {

/// NF4: packed uint8 [ceil(rows size / 2)]; absmax float32 a block, or uint8 a block with nested float32 a block of 256 of
/// those, and offset float32 []. int8: packed int8 [rows, size], absmax float32 [rows], and no block.
struct Quantised {
  at::Tensor packed, absmax, nested, offset;
  int64_t rows, size, block;

  bool isNf4() const { return packed.scalar_type() == at::kByte; }
  bool isNested() const { return absmax.scalar_type() == at::kByte; }
  /// Rows [row, row + count) and columns [column, column + width), contiguous.
  at::Tensor numbers(int64_t row, int64_t count, int64_t column, int64_t width, at::ScalarType dtype) const;
};

/// @throws where tensors are of another shape or dtype than such a weight's
Quantised quantised(const at::Tensor& packed, const at::Tensor& absmax, const std::optional<at::Tensor>& nested,
                    const std::optional<at::Tensor>& offset, int64_t rows, int64_t size, int64_t block);

/// The 256 numbers of the dynamic type.
const float* dynamicMap();

/// Some columns of a row, by kernels.
class RowReader {
 public:
  explicit RowReader(const Quantised& weight);

  template <class T>
  void read(int64_t row, int64_t column, int64_t width, T* to) const {
    const int64_t first = row * size_ + column;
    if (isNf4_) nf4Numbers(packed_, scales_, first, first + width, to);
    else int8Numbers(reinterpret_cast<const int8_t*>(packed_) + row * size_, scales_.absmax[row], column, column + width, to);
  }

 private:
  bool isNf4_;
  int64_t size_;
  const uint8_t* packed_;
  Nf4Scales scales_;
};

}  // namespace sluice
