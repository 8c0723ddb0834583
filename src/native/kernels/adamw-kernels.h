// The kernels behind sluice::adamw_ and sluice::square_sums. Plain C++ without libtorch or the standard library's
// templates, since their file is compiled for newer processors than the rest.
#pragma once

#include <cstdint>

namespace sluice {

/// One step's numbers for one tensor.
struct AdamWStep {
  float beta2, rest1, rest2, eps;  ///< rest1 = 1 - beta1, in more digits than a float32 of beta1 leaves
  float keep;       ///< 1 - lr weightDecay
  float size;       ///< lr / (1 - beta1^step)
  float rootBias2;  ///< sqrt(1 - beta2^step)
  float scale;      ///< of the gradient
  uint32_t key;     ///< of the tensor's random numbers; where weights are rounded at random
};

/// How a weight of 16 bits is written.
enum class Rounding { kNearest, kStochastic };

// T is float, or uint16_t for bfloat16's bits.

/// Updates `count` weights in place.
/// @param master the weights in float32, updated and rounded into `weight`; null where `weight` is updated itself
/// @param first the place of the first of them in its tensor, of which its random number depends
template <class T>
void adamWStep(T* weight, const T* grad, float* mean, float* square, float* master, int64_t count, int64_t first,
               const AdamWStep& step, Rounding rounding);

/// Rounds at random, up with the probability of what is cut off, so that the mean is kept.
void roundStochastic(const float* from, uint16_t* to, int64_t count, int64_t first, uint32_t key);

/// The sum of x^2, in float32 over some hundreds of numbers at a time and in float64 over those.
template <class T>
double squareSum(const T* x, int64_t count);

constexpr int64_t kStateBlock = 256;

/// The same step with its two means in 8 bits, each an index into `map` times its block's largest number.
/// @param map two maps of 256 rising values, [-1, 1] and [0, 1]
/// @param largest of each block of 256, for either mean
template <class T>
void adamW8BitStep(T* weight, const T* grad, uint8_t* mean, uint8_t* square, float* meanLargest, float* squareLargest,
                   float* master, int64_t count, int64_t first, const float* map, const AdamWStep& step,
                   Rounding rounding);

}  // namespace sluice
