// The kernel of attend-last.cc; see there.
#pragma once

#include <stdint.h>

namespace sluice {

constexpr int64_t kMostGroup = 16;

struct AttendLastSizes {
  /// Queries of this key/value head, keys, and numbers of each.
  int64_t group, keys, size;
  /// From one key, or value, to the next.
  int64_t keyStride, valueStride;
  float scale;
};

/// y[g] = sum_s softmax_s(scale q[g] k[s]) v[s] over keys with mask[s]; zeros where none has. T is float, or uint16_t for
/// bfloat16's bits.
/// @param mask may be null  @param scratch [group * (keys + size)]
template <class T>
void attendLast(const AttendLastSizes& sizes, const T* q, const T* k, const T* v, const bool* mask, T* y,
                float* scratch);

}  // namespace sluice
