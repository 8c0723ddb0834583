// Kernel files that are compiled more than once, each time for other processors, and the choice between them as they run. A
// kernel names the build that it is of in its first template argument:
//
//   // cxxflags[x64]: -mavx2 -mfma
//   // cxxflags[x64, wide]: -mavx512f -mavx512bw ...      a second object of the same file, with SLUICE_WIDE defined
//   template <class B, class T> void scale(T*, int64_t);   in the header
//   template void scale<Build, float>(float*, int64_t);    in the file: Build is the one that is being compiled
//   SLUICE_BEST(scale, T)(x, count);                       where it is called
#pragma once

namespace sluice {

/// The build for every processor that the file's kernels run on at all.
struct Narrow {};
/// For AVX-512 with bfloat16 (Zen 4, Sapphire Rapids and later).
struct Wide {};

/// Whether this processor has what kernel files are compiled for ("cxxflags[x64]: -mavx2 -mfma").
bool hasLanes();

/// Whether wide builds run here. ATEN_CPU_CAPABILITY=avx2 turns them off, as it does libtorch's own.
bool isWide();

#if defined(__x86_64__)
#define SLUICE_BEST(kernel, ...) (::sluice::isWide() ? kernel<Wide, __VA_ARGS__> : kernel<Narrow, __VA_ARGS__>)
#else
#define SLUICE_BEST(kernel, ...) (kernel<Narrow, __VA_ARGS__>)
#endif

}  // namespace sluice
