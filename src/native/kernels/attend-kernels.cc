// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "attend-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

constexpr float kHidden = -INFINITY;

/// e^x of x up to 0, or slightly above by rounding; 0 below -87, and NaN of NaN.
SLUICE_INLINE Lanes fadingExp(Lanes x) {
  const Exponential e = exponentialOf(x);
  const Ints power = (e.n + 127) << 23;  // 2^n: a factor keeps NaN, where an added exponent may not
  const Ints fades = x < -87.0f;
  return (Lanes)((Ints)(e.p * (Lanes)power) & ~fades);
}

SLUICE_INLINE Lanes most(Lanes a, Lanes b) { return a > b ? a : b; }

SLUICE_INLINE float most(Lanes lanes) {
  float number = lanes[0];
  for (int64_t i = 1; i < kLanes; ++i) number = lanes[i] > number ? lanes[i] : number;
  return number;
}

/// All bits where the mask has true.
SLUICE_INLINE Ints seen(const bool* mask, int64_t count = kLanes) {
  typedef uint8_t Bytes __attribute__((vector_size(SLUICE_LANES)));
  Bytes bytes = {};
  memcpy(&bytes, mask, count);
  return __builtin_convertvector(bytes, Ints) != 0;
}

int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

/// Eight rows of eight words each become columns.
SLUICE_INLINE void turnEight(const uint32_t* from, int64_t fromStride, uint32_t* to, int64_t toStride) {
#if defined(__AVX2__)
  __m256 rows[8], pairs[8], fours[8];
  for (int i = 0; i < 8; ++i) rows[i] = _mm256_loadu_ps(reinterpret_cast<const float*>(from + i * fromStride));
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i) {
    const __m256* of = pairs + 4 * i;
    fours[4 * i] = _mm256_shuffle_ps(of[0], of[2], 0x44);
    fours[4 * i + 1] = _mm256_shuffle_ps(of[0], of[2], 0xee);
    fours[4 * i + 2] = _mm256_shuffle_ps(of[1], of[3], 0x44);
    fours[4 * i + 3] = _mm256_shuffle_ps(of[1], of[3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    float* const near = reinterpret_cast<float*>(to + i * toStride);
    _mm256_storeu_ps(near, _mm256_permute2f128_ps(fours[i], fours[4 + i], 0x20));
    _mm256_storeu_ps(near + 4 * toStride, _mm256_permute2f128_ps(fours[i], fours[4 + i], 0x31));
  }
#else
  for (int i = 0; i < 8; ++i)
    for (int j = 0; j < 8; ++j) to[j * toStride + i] = from[i * fromStride + j];
#endif
}

/// to [columns, rows] = from [rows, columns]^T, in multiples of eight.
void turnWords(const void* from, int64_t stride, int64_t rows, int64_t columns, void* to) {
  const auto* words = static_cast<const uint32_t*>(from);
  auto* turned = static_cast<uint32_t*>(to);
  for (int64_t i = 0; i < rows; i += 8)
    for (int64_t j = 0; j < columns; j += 8) turnEight(words + i * stride + j, stride, turned + j * rows + i, rows);
}

SLUICE_INLINE Words wordsOf(const uint16_t* p) {
  Halves halves;
  memcpy(&halves, p, sizeof(halves));
  return __builtin_convertvector(halves, Words);
}

template <class T, class C>
void gatherRows(const T* from, int64_t stride, int64_t rows, int64_t size, C* to, int64_t padded) {
  for (int64_t row = 0; row < rows; ++row, from += stride, to += size) {
    if constexpr (sizeof(T) == sizeof(C))
      memcpy(to, from, size * sizeof(C));
    else
      forLanes(size, [&](int64_t at, int64_t count) { store(to + at, load(from + at, count), count); });
  }
  memset(to, 0, (padded - rows) * size * sizeof(C));
}

void rightOperand(const float* from, int64_t stride, int64_t rows, int64_t size, float* to) {
  for (int64_t row = 0; row < rows; ++row) memcpy(to + row * size, from + row * stride, size * sizeof(float));
}
void rightOperand(const uint16_t* from, int64_t stride, int64_t rows, int64_t size, uint16_t* to) {
  for (int64_t row = 0; row < rows; row += 2, from += 2 * stride)
    for (int64_t at = 0; at < size; at += kLanes, to += 2 * kLanes) {
      const Words pair = wordsOf(from + at) | wordsOf(from + stride + at) << 16;
      memcpy(to, &pair, sizeof(pair));
    }
}

template <class C>
void turnedRightOperand(const C* from, int64_t stride, int64_t rows, int64_t size, C* to) {
  constexpr int64_t perWord = sizeof(uint32_t) / sizeof(C);
  turnWords(from, stride / perWord, rows, size / perWord, to);
}

void turn(const float* from, int64_t rows, int64_t size, float* to, float*) { turnWords(from, size, rows, size, to); }
void turn(const uint16_t* from, int64_t rows, int64_t size, uint16_t* to, uint16_t* scratch) {
  turnWords(from, size / 2, rows, size / 2, scratch);
  for (int64_t i = 0; i < size; i += 2, to += 2 * rows, scratch += 2 * rows)
    for (int64_t at = 0; at < rows; at += kLanes) {
      Words pair;
      memcpy(&pair, scratch + 2 * at, sizeof(pair));
      const Halves low = __builtin_convertvector(pair & 0xffffu, Halves);
      const Halves high = __builtin_convertvector(pair >> 16, Halves);
      memcpy(to + at, &low, sizeof(low));
      memcpy(to + rows + at, &high, sizeof(high));
    }
}

template <class C>
void weigh(const Sight& sight, int64_t start, int64_t keys, int64_t rows, float scale, float* scores, C* weights,
           int64_t stride, Softmax& softmax, float* sums, int64_t size) {
  for (int64_t row = 0; row < rows; ++row, scores += stride, weights += stride) {
    const int64_t first = clamp(sight.first[row] - start, 0, keys), last = clamp(sight.last[row] - start, first, keys);
    const int64_t begin = first / kLanes * kLanes, end = (last + kLanes - 1) / kLanes * kLanes;
    for (int64_t s = begin; s < first; ++s) scores[s] = kHidden;
    for (int64_t s = last; s < end; ++s) scores[s] = kHidden;
    if (sight.mask) {
      const bool* mask = sight.mask + row * sight.maskStride + start;
      for (int64_t s = begin; s < last; s += kLanes) {
        const int64_t count = last - s < kLanes ? last - s : kLanes;
        store(scores + s, seen(mask + s, count) ? load(scores + s) : Lanes{} + kHidden);
      }
    }

    Lanes highest[2] = {Lanes{} + kHidden, Lanes{} + kHidden};
    int64_t s = begin;
    for (; s + 2 * kLanes <= end; s += 2 * kLanes)
      for (int i = 0; i < 2; ++i) highest[i] = most(load(scores + s + i * kLanes), highest[i]);
    if (s < end) highest[0] = most(load(scores + s), highest[0]);
    const float before = softmax.most[row], here = scale * most(most(highest[0], highest[1]));
    const float now = here > before ? here : before;
    const float base = now == kHidden ? 0 : now;  // so that hidden ones weigh nothing, and NaN stays

    Lanes total = {};
    for (s = begin; s < end; s += kLanes) {
      const Lanes weight = fadingExp(load(scores + s) * scale - base);
      total += weight;
      store(weights + s, weight);
    }
    memset(weights, 0, begin * sizeof(C));
    memset(weights + end, 0, (keys - end) * sizeof(C));

    const float kept = before == kHidden || before == now ? 1 : fadingExp(Lanes{} + before - now)[0];
    softmax.most[row] = now;
    softmax.total[row] = softmax.total[row] * kept + sum(total);
    if (sums && kept != 1)
      for (int64_t at = 0; at < size; at += kLanes) store(sums + row * size + at, load(sums + row * size + at) * kept);
  }
}

template <class T>
void finishRows(const Softmax& softmax, const float* sums, int64_t rows, int64_t size, T* y, int64_t stride,
                float* logSums) {
  for (int64_t row = 0; row < rows; ++row, sums += size, y += stride) {
    const float total = softmax.total[row];
    if (logSums) logSums[row] = total == 0 ? INFINITY : softmax.most[row] + logf(total);
    if (total == 0) {
      memset(y, 0, size * sizeof(T));
      continue;
    }
    const float inverse = 1 / total;
    forLanes(size, [&](int64_t at, int64_t count) { store(y + at, load(sums + at, count) * inverse, count); });
  }
}

template <class T>
void rowDots(const T* a, int64_t aStride, const T* b, int64_t bStride, int64_t rows, int64_t size, float* dots) {
  for (int64_t row = 0; row < rows; ++row, a += aStride, b += bStride) {
    Lanes total = {};
    forLanes(size, [&](int64_t at, int64_t count) { total += load(a + at, count) * load(b + at, count); });
    dots[row] = sum(total);
  }
}

template <class C>
void weightSlopes(const Slopes& given, int64_t start, int64_t keys, int64_t queries, const float* scores,
                  const float* weightGrads, C* weights, C* slopes) {
  const Sight* sight = given.sight;
  for (int64_t key = 0; key < keys; ++key)
    for (int64_t at = 0; at < queries; at += kLanes) {
      const int64_t i = key * queries + at;
      Lanes weight = fadingExp(load(scores + i) * given.scale - load(given.logSums + at));
      Lanes slope = weight * (load(weightGrads + i) - load(given.dots + at));
      if (sight) {
        const Ints place = Ints{} + static_cast<int32_t>(start + key);
        Ints first, last;
        memcpy(&first, sight->first + at, sizeof(first));
        memcpy(&last, sight->last + at, sizeof(last));
        Ints sees = (first <= place) & (place < last);
        if (sight->mask)
          for (int64_t r = 0; r < kLanes; ++r)
            if (sees[r] && !sight->mask[(at + r) * sight->maskStride + start + key]) sees[r] = 0;
        weight = (Lanes)((Ints)weight & sees);
        slope = (Lanes)((Ints)slope & sees);
      }
      store(weights + i, weight);
      store(slopes + i, slope);
    }
}

template <class T>
void turnBack(const float* turned, int64_t rows, int64_t size, float scale, T* y, int64_t stride, float* scratch) {
  const int64_t width = (rows + 15) / 16 * 16;
  turnWords(turned, width, size, width, scratch);
  for (int64_t row = 0; row < rows; ++row, scratch += size, y += stride)
    for (int64_t at = 0; at < size; at += kLanes) store(y + at, load(scratch + at) * scale);
}

template <class T>
void addSums(const float* sums, int64_t count, int64_t apart, int64_t rows, int64_t size, float scale, T* y,
             int64_t stride) {
  for (int64_t row = 0; row < rows; ++row, sums += size, y += stride)
    for (int64_t at = 0; at < size; at += kLanes) {
      Lanes total = load(sums + at);
      for (int64_t i = 1; i < count; ++i) total += load(sums + i * apart + at);
      store(y + at, total * scale);
    }
}

template <class T, class C>
constexpr AttendKernels<T, C> kKernels = {gatherRows<T, C>, rightOperand,  turnedRightOperand<C>, turn,
                                          weigh<C>,         finishRows<T>, rowDots<T>,            weightSlopes<C>,
                                          turnBack<T>,      addSums<T>};

}  // namespace

template <class B, class T, class C>
const AttendKernels<T, C>& attendKernels() {
  return kKernels<T, C>;
}
template const AttendKernels<float, float>& attendKernels<Build>();
template const AttendKernels<uint16_t, float>& attendKernels<Build>();
template const AttendKernels<uint16_t, uint16_t>& attendKernels<Build>();

#if !defined(SLUICE_WIDE)
void plainProduct(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                  int64_t ldc, bool adds) {
  constexpr int tall = 4;
  for (int64_t i = 0; i < m; i += tall)
    for (int64_t j = 0; j < n; j += 2 * kLanes) {
      Lanes left[tall] = {}, right[tall] = {};
      for (int r = 0; adds && r < tall; ++r) {
        left[r] = load(c + (i + r) * ldc + j);
        right[r] = load(c + (i + r) * ldc + j + kLanes);
      }
      for (int64_t at = 0; at < k; ++at) {
        const Lanes near = load(b + at * ldb + j), far = load(b + at * ldb + j + kLanes);
        for (int r = 0; r < tall; ++r) {
          const float factor = a[(i + r) * lda + at];
          left[r] += factor * near;
          right[r] += factor * far;
        }
      }
      for (int r = 0; r < tall; ++r) {
        store(c + (i + r) * ldc + j, left[r]);
        store(c + (i + r) * ldc + j + kLanes, right[r]);
      }
    }
}

#endif

}  // namespace sluice
