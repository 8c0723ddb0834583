// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "loss-kernels.h"

#include "lanes.h"

namespace sluice {
namespace {

template <bool capped>
SLUICE_INLINE Lanes capOf(Lanes logit, float cap) {
  if constexpr (!capped) return logit;
  return fastTanh(logit / cap) * cap;
}

SLUICE_INLINE float largest(Lanes lanes) {
  float most = lanes[0];
  for (int64_t i = 1; i < kLanes; ++i) most = lanes[i] > most ? lanes[i] : most;
  return most;
}

template <class T>
float largestOf(const T* logits, int64_t vocab) {
  Lanes most = Lanes{} + numberAt(logits);
  forLanes(vocab, [&](int64_t at, int64_t count) {
    Lanes x = load(logits + at, count);
    for (int64_t i = count; i < kLanes; ++i) x[i] = most[i];
    most = x > most ? x : most;
  });
  return largest(most);
}

template <class T, bool capped>
void crossEntropyRows(T* logits, const int64_t* targets, float* losses, float* scratch, int64_t rows, int64_t vocab,
                      float cap, bool wantsGrad) {
  for (int64_t row = 0; row < rows; ++row, logits += vocab) {
    const int64_t target = targets[row];
    const float most = capOf<capped>(Lanes{} + largestOf(logits, vocab), cap)[0];
    const float own = capOf<capped>(Lanes{} + numberAt(logits + target), cap)[0];

    Lanes sums = {};
    forLanes(vocab, [&](int64_t at, int64_t count) {
      const Lanes distance = capOf<capped>(load(logits + at, count), cap) - most;
      Lanes e = distance == distance ? fastExp(distance) : distance;  // a NaN must show
      for (int64_t i = count; i < kLanes; ++i) e[i] = 0;
      store(scratch + at, e, count);
      sums += e;
    });
    const float total = sum(sums);
    losses[row] = logf(total) + (most - own);
    if (!wantsGrad) continue;

    const float scale = 1.0f / total;
    const float ownProbability = scratch[target] * scale;
    const float ownTanh = capped ? own / cap : 0.0f;
    forLanes(vocab, [&](int64_t at, int64_t count) {
      Lanes g = load(scratch + at, count) * scale;
      if constexpr (capped) {
        const Lanes t = fastTanh(load(logits + at, count) / cap);
        g *= 1.0f - t * t;
      }
      store(logits + at, g, count);
    });
    setNumber(logits + target, (ownProbability - 1.0f) * (1.0f - ownTanh * ownTanh));
  }
}

}  // namespace

template <class B, class T>
void cappedCrossEntropy(T* logits, const int64_t* targets, float* losses, float* scratch, int64_t rows, int64_t vocab,
                        float cap, bool wantsGrad) {
  const auto kernel = cap > 0 ? crossEntropyRows<T, true> : crossEntropyRows<T, false>;
  kernel(logits, targets, losses, scratch, rows, vocab, cap, wantsGrad);
}

template void cappedCrossEntropy<Build>(float*, const int64_t*, float*, float*, int64_t, int64_t, float, bool);
template void cappedCrossEntropy<Build>(uint16_t*, const int64_t*, float*, float*, int64_t, int64_t, float, bool);

}  // namespace sluice
