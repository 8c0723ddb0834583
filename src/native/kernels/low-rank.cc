// Products with a matrix of few rows, spread over the threads: rows are shared out where each gives numbers of its own, and
// columns where all are summed, so that results do not depend on the number of threads.

#include "low-rank.h"

#include <ATen/ops/empty.h>

#include "builds.h"
#include "low-rank-kernels.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;

void up(const Tensor& d, const Tensor& m, const Tensor& y, bool adds) {
  const int64_t rows = y.size(0), size = y.size(1), rank = m.size(0), stride = d.stride(0);
  byDtype(y, [&]<class T>(T*) {
    inShares(numShares(rows, size), rows, [&](int64_t, int64_t begin, int64_t end) {
      SLUICE_BEST(lowRankUp, T)(from<float>(d) + begin * stride, from<float>(m), to<T>(y) + begin * size, end - begin, size, rank,
                   stride, adds);
    });
  });
}

}  // namespace

bool takesLowRank(const Tensor& x) {
  const auto dtype = x.scalar_type();
  return hasLanes() && x.is_cpu() && x.dim() == 2 && (dtype == at::kFloat || dtype == at::kBFloat16) &&
         x.is_contiguous();
}

Tensor lowRankDown(const Tensor& x, const Tensor& m) {
  const int64_t rows = x.size(0), size = x.size(1), rank = m.size(0);
  const Tensor d = at::empty({rows, rank}, m.options());
  byDtype(x, [&]<class T>(T*) {
    inShares(numShares(rows, size), rows, [&](int64_t, int64_t begin, int64_t end) {
      SLUICE_BEST(lowRankDown, T)(from<T>(x) + begin * size, from<float>(m), to<float>(d) + begin * rank, end - begin, size, rank,
                     rank);
    });
  });
  return d;
}

void addLowRankUp(const Tensor& d, const Tensor& m, const Tensor& y) { up(d, m, y, true); }

Tensor lowRankUp(const Tensor& d, const Tensor& m, at::ScalarType dtype) {
  const Tensor y = at::empty({d.size(0), m.size(1)}, m.options().dtype(dtype));
  up(d, m, y, false);
  return y;
}

Tensor lowRankOuter(const Tensor& d, const Tensor& x) {
  constexpr int64_t tile = 32;  // two lanes of a wide build
  const int64_t rows = x.size(0), size = x.size(1), rank = d.size(1), stride = d.stride(0);
  const int64_t tiles = (size + tile - 1) / tile;
  const Tensor m = at::empty({rank, size}, d.options());
  byDtype(x, [&]<class T>(T*) {
    inShares(numShares(tiles, rows * tile), tiles, [&](int64_t, int64_t begin, int64_t end) {
      SLUICE_BEST(lowRankOuter, T)(from<float>(d), from<T>(x), to<float>(m), rows, size, rank, stride, begin * tile,
                      std::min(end * tile, size));
    });
  });
  return m;
}

}  // namespace sluice
