// The kernels of attend.cc on tiles of one head; see there. T is what lies in memory: float, or uint16_t for bfloat16's bits.
// C is what products are computed in, likewise.
//
// A right operand [k, n] of a product lies row by row in float32; in bfloat16 two rows are interleaved, as processors with
// products of bfloat16 read them: (0, 0) (1, 0) (0, 1) (1, 1) ...
#pragma once

#include <stdint.h>

namespace sluice {

/// Keys of a tile, and the most queries of a block.
constexpr int64_t kTile = 64;

/// What queries see: query r the keys from first[r] up to last[r], and of those, with a mask, what it has at
/// mask[r * maskStride + key].
struct Sight {
  const int32_t *first, *last;
  const bool* mask;
  int64_t maskStride;

  /// Of the queries from `query` on.
  Sight from(int64_t query) const {
    return {first + query, last + query, mask ? mask + query * maskStride : nullptr, maskStride};
  }
};

/// The softmax so far of each of a block's queries.
struct Softmax {
  /// -infinity where nothing was seen yet, and 0.
  float most[kTile], total[kTile];
};

/// What the weights of queries and their slopes are made of in the backward pass.
struct Slopes {
  float scale;
  /// [queries]; queries that are not there have infinity and zero.
  const float *logSums, *dots;
  /// Null where every key is seen by every query.
  const Sight* sight;
};

template <class T, class C>
struct AttendKernels {
  /// to [padded, size], the rows after `rows` zero. @param stride from one row to the next
  void (*gatherRows)(const T* from, int64_t stride, int64_t rows, int64_t size, C* to, int64_t padded);

  /// to = from [rows, size] as a right operand; rows is even.
  void (*rightOperand)(const C* from, int64_t stride, int64_t rows, int64_t size, C* to);

  /// to = from^T [size, rows] as a right operand; both are multiples of 16.
  void (*turnedRightOperand)(const C* from, int64_t stride, int64_t rows, int64_t size, C* to);

  /// to = from^T [size, rows], row by row; both are multiples of 16. @param scratch [rows, size]
  void (*turn)(const C* from, int64_t rows, int64_t size, C* to, C* scratch);

  /// weights = e^(scale scores - most) of `keys` keys from `start` on, 0 where they are hidden, whatever the scores hold
  /// there. Where `most` grows, so that what was weighed before weighs less, the rows of `sums` [rows, size] shrink.
  /// @param stride of scores and weights @param sums null with the first keys
  void (*weigh)(const Sight& sight, int64_t start, int64_t keys, int64_t rows, float scale, float* scores, C* weights,
                int64_t stride, Softmax& softmax, float* sums, int64_t size);

  /// y = sums / total, zeros where nothing was seen. @param logSums log(sum(e^score)), infinity where nothing was seen; or
  /// null
  void (*finishRows)(const Softmax& softmax, const float* sums, int64_t rows, int64_t size, T* y, int64_t stride,
                     float* logSums);

  /// dots[r] = a[r] b[r]
  void (*rowDots)(const T* a, int64_t aStride, const T* b, int64_t bStride, int64_t rows, int64_t size, float* dots);

  /// Of each key from `start` on, `queries` numbers: weights = e^(scale scores - logSums) and
  /// slopes = weights (weightGrads - dots).
  void (*weightSlopes)(const Slopes& given, int64_t start, int64_t keys, int64_t queries, const float* scores,
                       const float* weightGrads, C* weights, C* slopes);

  /// y[r, i] = scale turned[i, r]. @param turned [size, rows rounded up to 16] @param scratch as large
  void (*turnBack)(const float* turned, int64_t rows, int64_t size, float scale, T* y, int64_t stride, float* scratch);

  /// y [rows, size] = scale times the sum of `count` such sums that lie `apart`.
  void (*addSums)(const float* sums, int64_t count, int64_t apart, int64_t rows, int64_t size, float scale, T* y,
                  int64_t stride);
};

/// Of T and C: float and float, uint16_t and float, uint16_t and uint16_t.
template <class B, class T, class C>
const AttendKernels<T, C>& attendKernels();

/// c [m, n] = a [m, k] b [k, n], or c + a b; m and n are multiples of 16. For processors without a better one.
void plainProduct(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                  int64_t ldc, bool adds);

}  // namespace sluice
