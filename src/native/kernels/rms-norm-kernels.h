// The row kernels behind sluice::rms_norm. Plain C++ without libtorch or the standard library's templates, since their
// file is compiled for newer processors than the rest.
#pragma once

#include <cstdint>

namespace sluice {

enum class Act { kNone, kGeluTanh };

// T is float, or uint16_t for bfloat16's bits. Rows lie one after another, `size` numbers each.

/// y = act(x r w), inverse = r = 1 / sqrt(mean(x^2) + eps). @param w null for ones
template <class B, class T>
void rmsNormForward(const T* x, const T* w, T* y, float* inverse, int64_t rows, int64_t size, float eps, Act act);

/// @param wGrad [size], added to; null where it is not wanted
/// @param scratch [size]
template <class B, class T>
void rmsNormBackward(const T* grad, const T* x, const T* w, const float* inverse, T* xGrad, float* wGrad,
                     float* scratch, int64_t rows, int64_t size, Act act);

}  // namespace sluice
