// The kernels behind sluice::altup_predict and sluice::altup_correct, a token at a time. T is float, or uint16_t for
// bfloat16's bits. Copies lie as [tokens, num, size].
#pragma once

#include <cstdint>

namespace sluice {

constexpr int64_t kMostCopies = 8;

struct AltupSizes {
  int64_t tokens, num, size;
  /// The copy that is also given by itself.
  int64_t active;
};

/// predictions[i] = copies[i] + sum_j mixing[i, j] copies[j], or of the active one alone where predictions is null
template <class B, class T>
void altupPredict(const AltupSizes& sizes, const T* copies, const T* mixing, T* predictions, T* active);

/// @param grad of the predictions, @param activeGrad of the active one by itself: either may be null
template <class B, class T>
void altupPredictBackward(const AltupSizes& sizes, const T* grad, const T* activeGrad, const T* copies,
                          const T* mixing, T* copiesGrad, T* mixingGrad);

/// copies[i] = predictions[i] + coefs[i] innovation + (i > 0 ? addition : 0)
template <class B, class T>
void altupCorrect(const AltupSizes& sizes, const T* predictions, const T* innovation, const T* coefs,
                  const T* addition, T* copies, T* active);

/// @param predictionsGrad may be grad, @param additionGrad activeGrad
template <class B, class T>
void altupCorrectBackward(const AltupSizes& sizes, const T* grad, const T* activeGrad, const T* innovation,
                          const T* coefs, T* predictionsGrad, T* innovationGrad, T* coefsGrad, T* additionGrad);

}  // namespace sluice
