// The block kernels of quantised.cc; see there.
#pragma once

#include <stdint.h>

namespace sluice {

constexpr int64_t kNestedBlock = 256;

/// The largest magnitudes of an NF4 weight's blocks: as they are, or in the dynamic type.
struct Nf4Scales {
  /// Numbers of a block.
  int64_t block;
  /// As they are, or nullptr.
  const float* absmax;
  /// Codes of a block each, the largest of every kNestedBlock of them, and what is added; `map` holds the 256 numbers of the
  /// dynamic type.
  const uint8_t* codes;
  const float* nested;
  float offset;
  const float* map;
};

/// Numbers [begin, end) of an NF4 weight in row-major order, as float or bfloat16 bits.
template <class T>
void nf4Numbers(const uint8_t* packed, const Nf4Scales& scales, int64_t begin, int64_t end, T* to);

/// Numbers [begin, end) of one int8 row.
template <class T>
void int8Numbers(const int8_t* row, float absmax, int64_t begin, int64_t end, T* to);

}  // namespace sluice
