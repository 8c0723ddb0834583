// AdamW (Loshchilov and Hutter, arXiv 1711.05101) over all tensors in one call, and what belongs to a step on 16 bits:
//
//   sluice::adamw_(weights, grads, means, squares, masters, steps, lrs, decays, scales, beta1, beta2, eps, keys)
//   sluice::adamw8bit_(...)                 the same with both means in 8 bits, in blocks of 256
//   sluice::round_stochastic(x, key)        float32 to bfloat16, up with the probability of what is cut off
//   sluice::square_sums(xs)                 the sum of squares of each, float64, in one pass
//
// A weight of 16 bits is updated in its float32 master and rounded into it; where master and weight are the same tensor
// the weight is updated itself, and with `keys` rounded at random. The gradient is scaled on the way, so that clipping
// costs no pass of its own. Everything that the kernels do not take goes to libtorch's own operators.

#include "adamw-kernels.h"
#include "builds.h"
#include "shares.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <atomic>
#include <cmath>
#include <map>
#include <tuple>
#include <vector>

namespace sluice {
namespace {

using Doubles = at::ArrayRef<double>;
using Keys = at::IntArrayRef;

bool isHalf(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16; }

bool isPlain(const at::Tensor& x) {
  return x.is_cpu() && x.is_contiguous() && (isHalf(x) || x.scalar_type() == at::kFloat);
}

bool isPlainFloat(const at::Tensor& x) { return isPlain(x) && !isHalf(x); }

/// Does `work(tensor, first, count)` for all stretches of tensors of these sizes, on libtorch's threads. Stretches begin
/// at multiples of their size, whatever the number of threads.
template <class Work>
void overAll(const std::vector<int64_t>& sizes, Work&& work) {
  constexpr int64_t stretch = 65536;
  struct Piece {
    size_t tensor;
    int64_t first, count;
  };
  std::vector<Piece> pieces;
  int64_t total = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    total += sizes[i];
    for (int64_t at = 0; at < sizes[i]; at += stretch) pieces.push_back({i, at, std::min(stretch, sizes[i] - at)});
  }
  std::atomic<size_t> next = 0;
  const int64_t count = static_cast<int64_t>(pieces.size());
  inShares(numShares(count, total / std::max<int64_t>(count, 1)), count, [&](int64_t, int64_t, int64_t) {
    for (size_t i = next++; i < pieces.size(); i = next++) work(pieces[i].tensor, pieces[i].first, pieces[i].count);
  });
}

/// The composed rounding, with the kernels' random numbers.
at::Tensor roundedComposed(const at::Tensor& x, int64_t key) {
  constexpr int64_t low = 0xffffffff;
  const auto mixed = [](at::Tensor h) {
    h = h.bitwise_xor(h.__rshift__(16)).mul(0x7feb352dLL).bitwise_and(low);
    h = h.bitwise_xor(h.__rshift__(15)).mul(0x846ca68bLL).bitwise_and(low);
    return h.bitwise_xor(h.__rshift__(16));
  };
  const at::Tensor numbers = x.contiguous().to(at::kFloat);
  const at::Tensor places = at::arange(x.numel(), x.options().dtype(at::kLong)).bitwise_and(low).view(x.sizes());
  const at::Tensor random = mixed(mixed(places).bitwise_xor(key & low)).bitwise_and(0xffff);
  const at::Tensor bits = numbers.view(at::kInt).to(at::kLong).bitwise_and(low);
  const at::Tensor up = at::where(numbers.isfinite(), bits.add(random), bits).__rshift__(16);
  const at::Tensor halves = at::where(up.ge(0x8000), up.sub(0x10000), up).to(at::kShort).view(at::kBFloat16);
  return at::where(numbers.isnan(), numbers.to(at::kBFloat16), halves);
}

at::Tensor roundStochasticOf(const at::Tensor& x, int64_t key) {
  if (!hasLanes() || !isPlainFloat(x)) return roundedComposed(x, key);
  at::Tensor y = at::empty(x.sizes(), x.options().dtype(at::kBFloat16));
  const float* from = x.const_data_ptr<float>();
  auto* to = static_cast<uint16_t*>(y.mutable_data_ptr());
  overAll({x.numel()}, [&](size_t, int64_t first, int64_t count) {
    roundStochastic(from + first, to + first, count, first, static_cast<uint32_t>(key));
  });
  return y;
}

at::Tensor squareSums(at::TensorList xs) {
  constexpr int64_t stretch = 65536;
  at::Tensor sums = at::zeros({static_cast<int64_t>(xs.size())}, at::kDouble);
  auto* to = sums.mutable_data_ptr<double>();
  std::vector<int64_t> sizes;
  std::vector<std::vector<double>> parts;
  std::vector<at::Tensor> taken;
  for (const at::Tensor& x : xs) {
    const at::Tensor plain = x.contiguous();
    const bool takes = hasLanes() && isPlain(plain);
    taken.push_back(takes ? plain : at::Tensor());
    sizes.push_back(takes ? plain.numel() : 0);
    parts.emplace_back((sizes.back() + stretch - 1) / stretch);
    if (!takes) to[parts.size() - 1] = x.to(at::kDouble).square().sum().item<double>();
  }
  overAll(sizes, [&](size_t i, int64_t first, int64_t count) {
    const void* data = taken[i].const_data_ptr();
    parts[i][first / stretch] = isHalf(taken[i]) ? squareSum(static_cast<const uint16_t*>(data) + first, count)
                                                 : squareSum(static_cast<const float*>(data) + first, count);
  });
  for (size_t i = 0; i < parts.size(); ++i)
    for (const double part : parts[i]) to[i] += part;
  return sums;
}

/// What both operators are given, beside the means.
struct Call {
  at::TensorList weights, grads, masters, steps;
  Doubles lrs, decays, scales;
  double beta1, beta2, eps;
  Keys keys;

  void check() const {
    const size_t n = weights.size();
    TORCH_CHECK(grads.size() == n && masters.size() == n && steps.size() == n && lrs.size() == n &&
                    decays.size() == n && scales.size() == n && (keys.empty() || keys.size() == n),
                "adamw_: expected lists of one length");
    for (size_t i = 0; i < n; ++i)
      TORCH_CHECK(grads[i].sizes() == weights[i].sizes() && masters[i].sizes() == weights[i].sizes(),
                  "adamw_: expected gradient and master of shape ", weights[i].sizes());
  }
  bool hasMaster(size_t i) const { return !masters[i].is_same(weights[i]); }
  bool isStochastic(size_t i) const { return !keys.empty() && isHalf(weights[i]) && !hasMaster(i); }
  bool isPlainAt(size_t i) const {
    return hasLanes() && isPlain(weights[i]) && grads[i].is_cpu() && steps[i].is_cpu() &&
           grads[i].scalar_type() == weights[i].scalar_type() &&
           (hasMaster(i) ? isPlainFloat(masters[i]) : !isHalf(weights[i]) || isStochastic(i));
  }
  /// Counts the step.
  AdamWStep stepOf(size_t i) const {
    const double t = ++*steps[i].mutable_data_ptr<float>();
    return {static_cast<float>(beta2),
            static_cast<float>(1 - beta1),
            static_cast<float>(1 - beta2),
            static_cast<float>(eps),
            static_cast<float>(1 - lrs[i] * decays[i]),
            static_cast<float>(lrs[i] / (1 - std::pow(beta1, t))),
            static_cast<float>(std::sqrt(1 - std::pow(beta2, t))),
            static_cast<float>(scales[i]),
            keys.empty() ? 0u : static_cast<uint32_t>(keys[i])};
  }
  Rounding roundingOf(size_t i) const { return isStochastic(i) ? Rounding::kStochastic : Rounding::kNearest; }
  /// Tensors of these, contiguous.
  std::vector<at::Tensor> gradsOf(const std::vector<size_t>& which) const {
    std::vector<at::Tensor> result;
    for (const size_t i : which) result.push_back(grads[i].contiguous());
    return result;
  }
  template <class T>
  T* masterOf(size_t i) const {
    return hasMaster(i) ? masters[i].mutable_data_ptr<T>() : nullptr;
  }
};

/// What is updated in place of weight i: a wider copy for the while where it has no master.
at::Tensor targetOf(const Call& call, size_t i) {
  return call.isStochastic(i) ? call.weights[i].to(at::kFloat) : call.masters[i];
}

void writeBack(const Call& call, size_t i, const at::Tensor& target) {
  if (call.isStochastic(i)) call.weights[i].copy_(roundedComposed(target, call.keys[i]));
  else if (call.hasMaster(i)) call.weights[i].copy_(target);
}

/// By libtorch's fused operator, which takes tensors of one device, dtype, rate and decay at a time.
void stepComposed(const Call& call, const std::vector<size_t>& which, at::TensorList means, at::TensorList squares) {
  std::map<std::tuple<std::string, at::ScalarType, double, double>, std::vector<size_t>> kinds;
  for (const size_t i : which) {
    const auto dtype = call.isStochastic(i) ? at::kFloat : call.masters[i].scalar_type();
    kinds[{call.weights[i].device().str(), dtype, call.lrs[i], call.decays[i]}].push_back(i);
  }
  for (const auto& [kind, members] : kinds) {
    std::vector<at::Tensor> targets, gradients, first, second, steps;
    for (const size_t i : members) {
      targets.push_back(targetOf(call, i));
      const at::Tensor gradient = call.grads[i].to(targets.back().scalar_type());
      gradients.push_back(call.scales[i] == 1 ? gradient : gradient.mul(call.scales[i]));
      first.push_back(means[i]);
      second.push_back(squares[i]);
      steps.push_back(call.steps[i]);
    }
    at::_foreach_add_(steps, 1);
    at::_fused_adamw_(targets, gradients, first, second, {}, steps, std::get<2>(kind), call.beta1, call.beta2,
                      std::get<3>(kind), call.eps, false, false);
    for (size_t k = 0; k < members.size(); ++k) writeBack(call, members[k], targets[k]);
  }
}

void adamW(at::TensorList weights, at::TensorList grads, at::TensorList means, at::TensorList squares,
           at::TensorList masters, at::TensorList steps, Doubles lrs, Doubles decays, Doubles scales, double beta1,
           double beta2, double eps, Keys keys) {
  const Call call{weights, grads, masters, steps, lrs, decays, scales, beta1, beta2, eps, keys};
  call.check();
  std::vector<size_t> taken, others;
  std::vector<int64_t> sizes;
  std::vector<AdamWStep> step;
  for (size_t i = 0; i < weights.size(); ++i) {
    const bool takes = call.isPlainAt(i) && isPlainFloat(means[i]) && isPlainFloat(squares[i]);
    (takes ? taken : others).push_back(i);
    if (!takes) continue;
    sizes.push_back(weights[i].numel());
    step.push_back(call.stepOf(i));
  }
  const std::vector<at::Tensor> gradients = call.gradsOf(taken);
  overAll(sizes, [&](size_t k, int64_t at, int64_t count) {
    const size_t i = taken[k];
    const auto run = [&]<class T>(T* weight) {
      float* master = call.masterOf<float>(i);
      adamWStep(weight + at, static_cast<const T*>(gradients[k].const_data_ptr()) + at,
                means[i].mutable_data_ptr<float>() + at, squares[i].mutable_data_ptr<float>() + at,
                master ? master + at : nullptr, count, at, step[k], call.roundingOf(i));
    };
    if (isHalf(weights[i])) run(static_cast<uint16_t*>(weights[i].mutable_data_ptr()));
    else run(weights[i].mutable_data_ptr<float>());
  });
  stepComposed(call, others, means, squares);
}

/// A mean of 8 bits in float32, and back.
struct Blocks {
  const at::Tensor &codes, &largest, map;
  const bool isSigned;

  at::Tensor read() const {
    const at::Tensor values = map.index_select(0, codes.flatten().to(at::kLong));
    return values.mul(largest.repeat_interleave(kStateBlock).slice(0, 0, values.numel())).view(codes.sizes());
  }
  void write(const at::Tensor& values) const {
    const int64_t n = values.numel(), blocks = largest.numel();
    at::Tensor padded = at::zeros({blocks * kStateBlock}, values.options());
    padded.slice(0, 0, n).copy_(values.flatten());
    padded = padded.view({blocks, kStateBlock});
    largest.copy_(padded.abs().amax(1));
    const at::Tensor shares = padded.mul(at::where(largest.gt(0), largest.reciprocal(), 0).unsqueeze(1)).flatten().slice(0, 0, n);
    const at::Tensor low = shares.unsqueeze(1).ge(map).sum(1).sub(1).clamp_min(0), high = low.add(1).clamp_max(255);
    const at::Tensor isHigh = map.index_select(0, high).sub(shares).lt(shares.sub(map.index_select(0, low)));
    at::Tensor code = at::where(isHigh, high, low);
    if (isSigned) {
      const at::Tensor differs = map.index_select(0, code).signbit().ne(shares.signbit());
      code = at::where(differs, at::where(shares.gt(0), code.add(1), code.sub(1)), code);
    }
    codes.copy_(code.view(codes.sizes()));
  }
};

void adamW8Bit(at::TensorList weights, at::TensorList grads, at::TensorList means, at::TensorList squares,
               at::TensorList meanLargest, at::TensorList squareLargest, const at::Tensor& map, at::TensorList masters,
               at::TensorList steps, Doubles lrs, Doubles decays, Doubles scales, double beta1, double beta2,
               double eps, Keys keys) {
  const Call call{weights, grads, masters, steps, lrs, decays, scales, beta1, beta2, eps, keys};
  call.check();
  TORCH_CHECK(isPlainFloat(map) && map.numel() == 512, "adamw8bit_: expected maps of 512 float32 numbers");
  std::vector<size_t> taken, others;
  std::vector<int64_t> sizes;
  std::vector<AdamWStep> step;
  for (size_t i = 0; i < weights.size(); ++i) {
    TORCH_CHECK(meanLargest[i].numel() == (weights[i].numel() + kStateBlock - 1) / kStateBlock &&
                    squareLargest[i].numel() == meanLargest[i].numel(),
                "adamw8bit_: expected a largest number for each block");
    const bool takes = call.isPlainAt(i) && means[i].is_contiguous() && squares[i].is_contiguous();
    (takes ? taken : others).push_back(i);
    if (!takes) continue;
    sizes.push_back(weights[i].numel());
    step.push_back(call.stepOf(i));
  }
  const std::vector<at::Tensor> gradients = call.gradsOf(taken);
  const float* values = map.const_data_ptr<float>();
  overAll(sizes, [&](size_t k, int64_t at, int64_t count) {
    const size_t i = taken[k];
    const auto run = [&]<class T>(T* weight) {
      float* master = call.masterOf<float>(i);
      adamW8BitStep(weight + at, static_cast<const T*>(gradients[k].const_data_ptr()) + at,
                    means[i].mutable_data_ptr<uint8_t>() + at, squares[i].mutable_data_ptr<uint8_t>() + at,
                    meanLargest[i].mutable_data_ptr<float>() + at / kStateBlock,
                    squareLargest[i].mutable_data_ptr<float>() + at / kStateBlock, master ? master + at : nullptr,
                    count, at, values, step[k], call.roundingOf(i));
    };
    if (isHalf(weights[i])) run(static_cast<uint16_t*>(weights[i].mutable_data_ptr()));
    else run(weights[i].mutable_data_ptr<float>());
  });
  for (const size_t i : others) {
    const at::Tensor there = map.to(weights[i].device());
    const Blocks first{means[i], meanLargest[i], there.slice(0, 0, 256), true};
    const Blocks second{squares[i], squareLargest[i], there.slice(0, 256, 512), false};
    const at::Tensor target = targetOf(call, i), mean = first.read().to(target.scalar_type()),
                     square = second.read().to(target.scalar_type());
    steps[i].add_(1);
    at::_fused_adamw_({target}, {grads[i].to(target.scalar_type()).mul(scales[i])}, {mean}, {square}, {}, {steps[i]},
                      lrs[i], beta1, beta2, decays[i], eps, false, false);
    first.write(mean.to(at::kFloat));
    second.write(square.to(at::kFloat));
    writeBack(call, i, target);
  }
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def(
      "adamw_(Tensor(a!)[] weights, Tensor[] grads, Tensor(b!)[] means, Tensor(c!)[] squares, Tensor(d!)[] masters, "
      "Tensor(e!)[] steps, float[] lrs, float[] decays, float[] scales, float beta1, float beta2, float eps, "
      "int[] keys) -> ()");
  m.def(
      "adamw8bit_(Tensor(a!)[] weights, Tensor[] grads, Tensor(b!)[] means, Tensor(c!)[] squares, "
      "Tensor(d!)[] mean_largest, Tensor(e!)[] square_largest, Tensor map, Tensor(f!)[] masters, Tensor(g!)[] steps, "
      "float[] lrs, float[] decays, float[] scales, float beta1, float beta2, float eps, int[] keys) -> ()");
  m.def("round_stochastic(Tensor x, int key) -> Tensor");
  m.def("square_sums(Tensor[] xs) -> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeExplicitAutograd, m) {
  m.impl("adamw_", adamW);
  m.impl("adamw8bit_", adamW8Bit);
  m.impl("round_stochastic", roundStochasticOf);
  m.impl("square_sums", squareSums);
}

}  // namespace
}  // namespace sluice
