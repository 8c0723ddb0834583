// The block kernels of quantised.cc; see there.
#pragma once

#include <stdint.h>

namespace sluice {

constexpr int64_t kNf4Block = 64;
constexpr int64_t kNestedBlock = 256;

bool hasQuantisedKernels();

/// Numbers [begin, end) of an NF4 weight in row-major order, as float or bfloat16 bits. `map` holds the 256 numbers of the
/// dynamic type.
template <class T>
void nf4Numbers(const uint8_t* packed, const uint8_t* absmax, const float* nested, float offset, const float* map,
                int64_t begin, int64_t end, T* to);

/// Numbers [begin, end) of one int8 row.
template <class T>
void int8Numbers(const int8_t* row, float absmax, int64_t begin, int64_t end, T* to);

}  // namespace sluice
