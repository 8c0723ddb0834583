// Products of small matrices for attend.cc: libtorch's oneDNN makes code for each shape on first use, for the instructions
// that the processor has, up to AMX. It has none for processors other than x64; there, plainProduct.
#pragma once

#include <ATen/Context.h>
#include <ATen/native/CPUBlas.h>

#include <vector>

#include "attend-kernels.h"
#include "builds.h"

namespace sluice {

inline bool hasMadeProducts() {
#if defined(__x86_64__)
  return at::globalContext().userEnabledMkldnn();
#else
  return false;
#endif
}

/// Whether products of bfloat16 are faster than those of float32.
inline bool hasBfloat16Products() {
#if defined(__x86_64__)
  static const bool works = [] {
    if (!isWide()) return false;
    try {  // oneDNN may be told to leave instructions alone
      const std::vector<at::BFloat16> ones(256, at::BFloat16(1.0f));
      std::vector<float> sums(256);
      at::native::cpublas::brgemm(16, 16, 16, 16, 16, 16, false, ones.data(), ones.data(), sums.data(), true);
      at::native::cpublas::brgemm_release(true);
      return true;
    } catch (const c10::Error&) {
      return false;
    }
  }();
  return works && hasMadeProducts();
#else
  return false;
#endif
}

/// c [m, n] = a [m, k] b [k, n], or c + a b; b is a right operand. The sums are float32.
inline void product(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                    int64_t ldc, bool adds, bool isPlain) {
  if (isPlain) return plainProduct(m, n, k, a, lda, b, ldb, c, ldc, adds);
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, adds, a, b, c, false);
}
inline void product(int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda, const uint16_t* b, int64_t ldb,
                    float* c, int64_t ldc, bool adds, bool /*isPlain*/) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, adds, reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b), c, true);
}

/// Where a right operand's columns from `column` on begin.
template <class C>
const C* rightColumns(const C* right, int64_t column) {
  return right + column * static_cast<int64_t>(sizeof(float) / sizeof(C));
}

/// After a thread's last product: AMX keeps its tiles configured until then.
inline void endProducts(uint16_t) { at::native::cpublas::brgemm_release(true); }
inline void endProducts(float) {}

}  // namespace sluice
