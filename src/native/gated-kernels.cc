// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma

#include "gated-kernels.h"

#include "lanes.h"

namespace sluice {

bool hasGatedKernels() { return hasLanes(); }

template <class T>
void geluMul(const T* gate, const T* up, T* y, int64_t count) {
  forLanes(count, [&](int64_t at, int64_t n) {
    const Lanes x = load(gate + at, n);
    store(y + at, x * geluGate(x) * load(up + at, n), n);
  });
}

template <class T>
void geluMulBackward(const T* grad, const T* gate, const T* up, T* gateGrad, T* upGrad, int64_t count) {
  forLanes(count, [&](int64_t at, int64_t n) {
    const Lanes g = load(grad + at, n), x = load(gate + at, n), s = geluGate(x);
    store(gateGrad + at, g * load(up + at, n) * geluSlope(x, s), n);
    store(upGrad + at, g * x * s, n);
  });
}

template void geluMul(const float*, const float*, float*, int64_t);
template void geluMul(const uint16_t*, const uint16_t*, uint16_t*, int64_t);
template void geluMulBackward(const float*, const float*, const float*, float*, float*, int64_t);
template void geluMulBackward(const uint16_t*, const uint16_t*, const uint16_t*, uint16_t*, uint16_t*, int64_t);

}  // namespace sluice
