// cxxflags: -O3 -fno-math-errno -ffp-contract=off -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "quantised-kernels.h"

#include "lanes.h"
#include "quantised-codes.h"

namespace sluice {

/// Numbers of one block, a multiple of kTogether: a product for each of 16 codes, then looked up.
constexpr int64_t kTogether = 32;

SLUICE_INLINE void together(const uint8_t* packed, float scale, int64_t count, float* to) {
#if defined(__AVX2__)
  const __m256 low = _mm256_mul_ps(_mm256_loadu_ps(kNf4), _mm256_set1_ps(scale));
  const __m256 high = _mm256_mul_ps(_mm256_loadu_ps(kNf4 + 8), _mm256_set1_ps(scale));
  // The first number is in the high half of its byte.
  const __m256i shifts = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);
  for (int64_t i = 0; i < count; i += 8) {
    int32_t word;
    memcpy(&word, packed + i / 2, sizeof(word));
    const __m256i codes = _mm256_srlv_epi32(_mm256_set1_epi32(word), shifts);
    const __m256 isHigh = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));
    const __m256 numbers = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes), isHigh);
    _mm256_storeu_ps(to + i, numbers);
  }
#else
  float table[16];
  for (int i = 0; i < 16; ++i) table[i] = kNf4[i] * scale;
  for (int64_t i = 0; i < count / 2; ++i) to[2 * i] = table[packed[i] >> 4], to[2 * i + 1] = table[packed[i] & 15];
#endif
}

SLUICE_INLINE void together(const uint8_t* packed, float scale, int64_t count, uint16_t* to) {
  uint16_t table[16];
  for (int i = 0; i < 16; i += 8) store(table + i, load(kNf4 + i) * scale);
#if defined(__AVX2__)
  uint8_t bytes[2][16];
  for (int i = 0; i < 16; ++i) bytes[0][i] = table[i] & 255, bytes[1][i] = table[i] >> 8;
  const __m128i low = _mm_loadu_si128((const __m128i*)bytes[0]), high = _mm_loadu_si128((const __m128i*)bytes[1]);
  const __m128i mask = _mm_set1_epi8(15);
  for (int64_t i = 0; i < count; i += 32) {
    const __m128i pairs = _mm_loadu_si128((const __m128i*)(packed + i / 2));
    const __m128i first = _mm_and_si128(_mm_srli_epi16(pairs, 4), mask), second = _mm_and_si128(pairs, mask);
    const __m128i codes[2] = {_mm_unpacklo_epi8(first, second), _mm_unpackhi_epi8(first, second)};
    for (int half = 0; half < 2; ++half) {
      const __m128i lows = _mm_shuffle_epi8(low, codes[half]), highs = _mm_shuffle_epi8(high, codes[half]);
      _mm_storeu_si128((__m128i*)(to + i + 16 * half), _mm_unpacklo_epi8(lows, highs));
      _mm_storeu_si128((__m128i*)(to + i + 16 * half + 8), _mm_unpackhi_epi8(lows, highs));
    }
  }
#else
  for (int64_t i = 0; i < count / 2; ++i) to[2 * i] = table[packed[i] >> 4], to[2 * i + 1] = table[packed[i] & 15];
#endif
}

SLUICE_INLINE float scaleOf(const Nf4Scales& scales, int64_t block) {
  if (scales.absmax) return scales.absmax[block];
  return scales.map[scales.codes[block]] * scales.nested[block / kNestedBlock] + scales.offset;
}

template <class T>
void nf4Numbers(const uint8_t* packed, const Nf4Scales& scales, int64_t begin, int64_t end, T* to) {
  while (begin < end) {
    const int64_t block = begin / scales.block, next = (block + 1) * scales.block;
    const int64_t stop = next < end ? next : end;
    const float scale = scaleOf(scales, block);
    const auto one = [&] {
      const uint8_t pair = packed[begin / 2];
      setNumber(to++, kNf4[begin % 2 == 0 ? pair >> 4 : pair & 15] * scale);
      ++begin;
    };
    if (begin % 2 != 0) one();
    const int64_t many = (stop - begin) / kTogether * kTogether;
    together(packed + begin / 2, scale, many, to);
    to += many, begin += many;
    while (begin < stop) one();
  }
}

template <class T>
void int8Numbers(const int8_t* row, float absmax, int64_t begin, int64_t end, T* to) {
  typedef int8_t Bytes __attribute__((vector_size(8)));
  constexpr float unit = 0.007874015718698502f;  // 1 / 127
  int64_t at = begin;
  for (; at + kLanes <= end; at += kLanes) {
    Bytes bytes;
    memcpy(&bytes, row + at, sizeof(bytes));
    store(to + at - begin, (__builtin_convertvector(bytes, Lanes) * absmax) * unit);
  }
  for (; at < end; ++at) setNumber(to + at - begin, ((float)row[at] * absmax) * unit);
}

template void nf4Numbers(const uint8_t*, const Nf4Scales&, int64_t, int64_t, float*);
template void nf4Numbers(const uint8_t*, const Nf4Scales&, int64_t, int64_t, uint16_t*);
template void int8Numbers(const int8_t*, float, int64_t, int64_t, float*);
template void int8Numbers(const int8_t*, float, int64_t, int64_t, uint16_t*);

}  // namespace sluice
