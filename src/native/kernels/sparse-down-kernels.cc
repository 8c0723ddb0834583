// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "sparse-down-kernels.h"

#include "lanes.h"

namespace sluice {

template <class T>
int64_t countNonZero(const T* x, int64_t count) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) found += numberAt(x + i) != 0.0f;
  return found;
}

template <class T>
int64_t gatherNonZero(const T* x, int64_t count, float* values, int32_t* places) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float value = numberAt(x + i);
    values[found] = value;  // kept where the next line counts it
    places[found] = (int32_t)i;
    found += value != 0.0f;
  }
  return found;
}

template <class T>
void turn(const T* weight, int64_t size, int64_t columns, float* slice) {
  constexpr int64_t block = 16;  // a line of memory of each row at a time
  if (columns < kSlice) memset(slice, 0, size * kSlice * sizeof(float));
  for (int64_t first = 0; first < size; first += block) {
    const int64_t last = first + block < size ? first + block : size;
    for (int64_t c = 0; c < columns; ++c)
      for (int64_t i = first; i < last; ++i) slice[i * kSlice + c] = numberAt(weight + c * size + i);
  }
}

template <class T>
void sparseProduct(const float* values, const int32_t* places, int64_t num, const float* slice, const T* bias, T* y,
                   int64_t columns) {
  Lanes sums[kSlice / kLanes] = {};
  for (int64_t n = 0; n < num; ++n) {
    const float* from = slice + places[n] * kSlice;
    for (int64_t l = 0; l < kSlice / kLanes; ++l) sums[l] += values[n] * load(from + l * kLanes);
  }
  for (int64_t l = 0; l * kLanes < columns; ++l) {
    const int64_t at = l * kLanes, count = columns - at < kLanes ? columns - at : kLanes;
    if (bias) sums[l] += load(bias + at, count);
    store(y + at, sums[l], count);
  }
}

#define SLUICE_SPARSE_DOWN(T)                                                             \
  template int64_t countNonZero(const T*, int64_t);                                       \
  template int64_t gatherNonZero(const T*, int64_t, float*, int32_t*);                    \
  template void turn(const T*, int64_t, int64_t, float*);                                 \
  template void sparseProduct(const float*, const int32_t*, int64_t, const float*, const T*, T*, int64_t);
SLUICE_SPARSE_DOWN(float)
SLUICE_SPARSE_DOWN(uint16_t)

}  // namespace sluice
