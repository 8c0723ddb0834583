// Products with a matrix of few rows on libtorch's tensors, on a CPU: what lora.cc and few-rows.cc share.
#pragma once

#include <ATen/core/Tensor.h>

namespace sluice {

/// Beyond this rank general products are as fast.
constexpr int64_t kMostRank = 128;

/// Whether the kernels take x [rows, size]: float32 or bfloat16, dense, on a CPU.
bool takesLowRank(const at::Tensor& x);

/// x m^T, float32 [rows, rank]. @param m float32 [rank, size], dense, as all below
at::Tensor lowRankDown(const at::Tensor& x, const at::Tensor& m);

/// y += d m. @param d float32 [rows, rank], its rows dense @param y [rows, size]
void addLowRankUp(const at::Tensor& d, const at::Tensor& m, const at::Tensor& y);

/// d m in the dtype given, [rows, size]
at::Tensor lowRankUp(const at::Tensor& d, const at::Tensor& m, at::ScalarType dtype);

/// d^T x, float32 [rank, size]
at::Tensor lowRankOuter(const at::Tensor& d, const at::Tensor& x);

}  // namespace sluice
