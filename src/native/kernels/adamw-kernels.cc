// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "adamw-kernels.h"

#include "lanes.h"

namespace sluice {

SLUICE_INLINE Lanes root(Lanes x) {
#if defined(__AVX2__)
  return (Lanes)_mm256_sqrt_ps((__m256)x);
#else
  for (int64_t i = 0; i < kLanes; ++i) x[i] = sqrtf(x[i]);
  return x;
#endif
}

SLUICE_INLINE Lanes magnitude(Lanes x) { return (Lanes)((Words)x & 0x7fffffffu); }

/// Well mixed bits of a number: two rounds of multiply and shift.
SLUICE_INLINE Words mixed(Words x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

/// The random numbers of eight neighbouring places.
SLUICE_INLINE Words randomAt(int64_t place, uint32_t key) {
  const Words places = Words{0, 1, 2, 3, 4, 5, 6, 7} + (uint32_t)place;
  return mixed(mixed(places) ^ key);
}

SLUICE_INLINE void storeStochastic(uint16_t* p, Lanes lanes, Words random, int64_t count) {
  const Words bits = (Words)lanes;
  const Words isFinite = (Words)((bits & 0x7f800000u) != 0x7f800000u);
  const Words rounded = (bits + (isFinite & random & 0xffffu)) >> 16;
  const Words isNumber = (Words)(lanes == lanes);
  const Halves halves = __builtin_convertvector((rounded & isNumber) | (~isNumber & 0x7fc0u), Halves);
  memcpy(p, &halves, count == kLanes ? sizeof(halves) : count * sizeof(*p));
}

/// Writes updated weights to where they are kept.
template <Rounding rounding, class T>
SLUICE_INLINE void storeWeights(T* weight, float* master, Lanes w, int64_t place, uint32_t key, int64_t count) {
  if (master) store(master, w, count);
  if constexpr (sizeof(T) == 2 && rounding == Rounding::kStochastic)
    storeStochastic(weight, w, randomAt(place, key), count);
  else
    store(weight, w, count);
}

template <Rounding rounding, class T>
static void stepAs(T* weight, const T* grad, float* mean, float* square, float* master, int64_t count, int64_t first,
                   const AdamWStep& step) {
  const float inverse = 1.0f / step.rootBias2;
  forLanes(count, [&](int64_t at, int64_t n) __attribute__((always_inline)) {
    const Lanes g = load(grad + at, n) * step.scale;
    Lanes m = load(mean + at, n);
    m += (g - m) * step.rest1;
    const Lanes v = load(square + at, n) * step.beta2 + g * g * step.rest2;
    store(mean + at, m, n);
    store(square + at, v, n);
    Lanes w = (master ? load(master + at, n) : load(weight + at, n)) * step.keep;
    w -= step.size * m / (root(v) * inverse + step.eps);
    storeWeights<rounding>(weight + at, master ? master + at : nullptr, w, first + at, step.key, n);
  });
}

template <class T>
void adamWStep(T* weight, const T* grad, float* mean, float* square, float* master, int64_t count, int64_t first,
               const AdamWStep& step, Rounding rounding) {
  (rounding == Rounding::kStochastic ? stepAs<Rounding::kStochastic, T>
                                     : stepAs<Rounding::kNearest, T>)(weight, grad, mean, square, master, count, first,
                                                                      step);
}

void roundStochastic(const float* from, uint16_t* to, int64_t count, int64_t first, uint32_t key) {
  forLanes(count, [&](int64_t at, int64_t n) __attribute__((always_inline)) {
    storeStochastic(to + at, load(from + at, n), randomAt(first + at, key), n);
  });
}

template <class T>
double squareSum(const T* x, int64_t count) {
  constexpr int64_t stretch = 1024;
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += stretch) {
    const int64_t size = count - begin < stretch ? count - begin : stretch;
    Lanes sums[4] = {};
    int64_t at = 0;
    for (; at + 4 * kLanes <= size; at += 4 * kLanes)
      for (int64_t i = 0; i < 4; ++i) {
        const Lanes v = load(x + begin + at + i * kLanes);
        sums[i] += v * v;
      }
    forLanes(size - at, [&](int64_t more, int64_t n) __attribute__((always_inline)) {
      const Lanes v = load(x + begin + at + more, n);
      sums[0] += v * v;
    });
    total += sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  return total;
}

SLUICE_INLINE Lanes valuesAt(const float* map, Ints index) {
#if defined(__AVX2__)
  return (Lanes)_mm256_i32gather_ps(map, (__m256i)index, 4);
#else
  Lanes lanes;
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = map[index[i]];
  return lanes;
#endif
}

SLUICE_INLINE Ints codesAt(const uint8_t* p, int64_t count) {
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  Bytes bytes = {};
  memcpy(&bytes, p, count);
  return __builtin_convertvector(bytes, Ints);
}

SLUICE_INLINE void storeCodes(uint8_t* p, Ints codes, int64_t count) {
  typedef uint8_t Bytes __attribute__((vector_size(8)));
  const Bytes bytes = __builtin_convertvector(codes, Bytes);
  memcpy(p, &bytes, count);
}

/// The index of the nearest of 256 rising values, the lower one at a tie.
SLUICE_INLINE Ints nearest(const float* map, Lanes x) {
  Ints low = {};
  for (int32_t half = 128; half > 0; half /= 2) {
    const Ints next = low + half;
    low = valuesAt(map, next) <= x ? next : low;
  }
  const Ints high = low < 255 ? low + 1 : low;
  return valuesAt(map, high) - x < x - valuesAt(map, low) ? high : low;
}

/// The same, with the sign of x kept: a small negative number must not become the map's zero.
SLUICE_INLINE Ints nearestOfSign(const float* map, Lanes x) {
  const Ints code = nearest(map, x);
  const Lanes value = valuesAt(map, code);
  const Ints differs = (Ints)((Words)value ^ (Words)x) < 0;
  return differs ? (x > 0.0f ? code + 1 : code - 1) : code;
}

SLUICE_INLINE float largestOf(Lanes lanes) {
  float largest = 0;
  for (int64_t i = 0; i < kLanes; ++i) largest = lanes[i] > largest ? lanes[i] : largest;
  return largest;
}

template <Rounding rounding, class T>
static void blockAs(T* weight, const T* grad, uint8_t* mean, uint8_t* square, float* meanLargest, float* squareLargest,
                    float* master, int64_t count, int64_t first, const float* map, const AdamWStep& step) {
  const float inverse = 1.0f / step.rootBias2;
  float means[kStateBlock], squares[kStateBlock];
  Lanes most1 = {}, most2 = {};
  forLanes(count, [&](int64_t at, int64_t n) __attribute__((always_inline)) {
    const Lanes g = load(grad + at, n) * step.scale;
    Lanes m = valuesAt(map, codesAt(mean + at, n)) * *meanLargest;
    m += (g - m) * step.rest1;
    const Lanes v = valuesAt(map + 256, codesAt(square + at, n)) * *squareLargest * step.beta2 + g * g * step.rest2;
    store(means + at, m, n);
    store(squares + at, v, n);
    Lanes w = (master ? load(master + at, n) : load(weight + at, n)) * step.keep;
    w -= step.size * m / (root(v) * inverse + step.eps);
    storeWeights<rounding>(weight + at, master ? master + at : nullptr, w, first + at, step.key, n);
    const Lanes m1 = magnitude(load(means + at, n)), v1 = load(squares + at, n);  // without what lies behind the end
    most1 = m1 > most1 ? m1 : most1;
    most2 = v1 > most2 ? v1 : most2;
  });
  *meanLargest = largestOf(most1);
  *squareLargest = largestOf(most2);
  const float one = *meanLargest > 0 ? 1.0f / *meanLargest : 0.0f;
  const float two = *squareLargest > 0 ? 1.0f / *squareLargest : 0.0f;
  forLanes(count, [&](int64_t at, int64_t n) __attribute__((always_inline)) {
    storeCodes(mean + at, nearestOfSign(map, load(means + at, n) * one), n);
    storeCodes(square + at, nearest(map + 256, load(squares + at, n) * two), n);
  });
}

template <class T>
void adamW8BitStep(T* weight, const T* grad, uint8_t* mean, uint8_t* square, float* meanLargest, float* squareLargest,
                   float* master, int64_t count, int64_t first, const float* map, const AdamWStep& step,
                   Rounding rounding) {
  for (int64_t at = 0; at < count; at += kStateBlock) {
    const int64_t n = count - at < kStateBlock ? count - at : kStateBlock;
    (rounding == Rounding::kStochastic
         ? blockAs<Rounding::kStochastic, T>
         : blockAs<Rounding::kNearest, T>)(weight + at, grad + at, mean + at, square + at, meanLargest++,
                                           squareLargest++, master ? master + at : nullptr, n, first + at, map, step);
  }
}

template void adamWStep(float*, const float*, float*, float*, float*, int64_t, int64_t, const AdamWStep&, Rounding);
template void adamWStep(uint16_t*, const uint16_t*, float*, float*, float*, int64_t, int64_t, const AdamWStep&,
                        Rounding);
template double squareSum(const float*, int64_t);
template double squareSum(const uint16_t*, int64_t);
template void adamW8BitStep(float*, const float*, uint8_t*, uint8_t*, float*, float*, float*, int64_t, int64_t,
                            const float*, const AdamWStep&, Rounding);
template void adamW8BitStep(uint16_t*, const uint16_t*, uint8_t*, uint8_t*, float*, float*, float*, int64_t, int64_t,
                            const float*, const AdamWStep&, Rounding);

}  // namespace sluice
