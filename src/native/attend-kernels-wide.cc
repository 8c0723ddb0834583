// cxxflags: -O3 -fno-math-errno -Wno-psabi
// cxxflags[x64]: -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16 -mfma
//
// The kernels of attend-kernels.cc in lanes of sixteen.

#define SLUICE_LANES 16
#include "attend-kernels.cc"
