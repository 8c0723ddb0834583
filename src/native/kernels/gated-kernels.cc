// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx2 -mfma
// cxxflags[x64, wide]: -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma -mprefer-vector-width=512

#include "gated-kernels.h"

#include "lanes.h"

namespace sluice {

template <class B, class T>
void geluMul(const T* gate, const T* up, T* y, int64_t count) {
  forLanes(count, [&](int64_t at, int64_t n) {
    const Lanes x = load(gate + at, n);
    store(y + at, x * geluGate(x) * load(up + at, n), n);
  });
}

template <class B, class T>
void geluMulBackward(const T* grad, const T* gate, const T* up, T* gateGrad, T* upGrad, int64_t count) {
  forLanes(count, [&](int64_t at, int64_t n) {
    const Lanes g = load(grad + at, n), x = load(gate + at, n), s = geluGate(x);
    store(gateGrad + at, g * load(up + at, n) * geluSlope(x, s), n);
    store(upGrad + at, g * x * s, n);
  });
}

template void geluMul<Build>(const float*, const float*, float*, int64_t);
template void geluMul<Build>(const uint16_t*, const uint16_t*, uint16_t*, int64_t);
template void geluMulBackward<Build>(const float*, const float*, const float*, float*, float*, int64_t);
template void geluMulBackward<Build>(const uint16_t*, const uint16_t*, const uint16_t*, uint16_t*, uint16_t*, int64_t);

}  // namespace sluice
