#include "builds.h"

#include <cstdlib>
#include <cstring>

namespace sluice {

bool hasLanes() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

bool isWide() {
#if defined(__x86_64__)
  static const bool is = [] {
    const char* asked = std::getenv("ATEN_CPU_CAPABILITY");
    if (asked && std::strcmp(asked, "avx512") != 0) return false;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bf16");
  }();
  return is;
#else
  return false;
#endif
}

}  // namespace sluice
