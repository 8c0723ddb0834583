// Splits the rows of a kernel over libtorch's own OpenMP threads, in files that are not compiled for OpenMP: a second
// runtime would bring a second pool of threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>

extern "C" {
__attribute__((weak)) void GOMP_parallel(void (*body)(void*), void* data, unsigned threads, unsigned flags);
__attribute__((weak)) int omp_get_thread_num();
__attribute__((weak)) int omp_get_num_threads();
__attribute__((weak)) int omp_in_parallel();
}

namespace sluice {

/// body(part, begin, end) for each thread's share of [0, count).
using ShareBody = std::function<void(int64_t part, int64_t begin, int64_t end)>;

/// Threads that are worth it for `count` rows of `size` numbers.
inline int64_t numShares(int64_t count, int64_t size) {
  constexpr int64_t grain = 16384;  // numbers below which another thread costs more than it gives
  if (!GOMP_parallel || !omp_get_thread_num || !omp_get_num_threads || !omp_in_parallel || omp_in_parallel()) return 1;
  return std::max<int64_t>(1, std::min<int64_t>({count * size / grain, count, at::get_num_threads()}));
}

/// Calls body once on each of `threads` threads.
inline void inShares(int64_t threads, int64_t count, const ShareBody& body) {
  struct Shares {
    int64_t count;
    const ShareBody& body;
    static void run(void* data) {
      const auto& shares = *static_cast<Shares*>(data);
      const int64_t parts = omp_get_num_threads(), part = omp_get_thread_num();
      shares.body(part, shares.count * part / parts, shares.count * (part + 1) / parts);
    }
  };
  if (threads <= 1) return body(0, 0, count);
  Shares shares{count, body};
  GOMP_parallel(Shares::run, &shares, static_cast<unsigned>(threads), 0);
}

}  // namespace sluice
