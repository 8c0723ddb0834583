// The kernel of sparse-up.cc; see there.
#pragma once

#include <stdint.h>

namespace sluice {

/// Units that are taken together: a line of memory in float32.
constexpr int64_t kUnits = 16;

struct SparseUpSizes {
  int64_t tokens, size, units;
};

/// y[t, u] = gelu(gate[t, u]) sum_i x[t, i] weight[u, i], and 0 where the gate is 0, for the units [begin, end). T is
/// float, or uint16_t for bfloat16's bits.
template <class T>
void sparseUp(const SparseUpSizes& sizes, const T* gate, const float* x, const T* weight, T* y, int64_t begin,
              int64_t end);

}  // namespace sluice
