// Linear layers of one input whose weights are frozen, each with a low-rank update that learns, and DoRA's gain on its
// outputs:
//
//   sluice::lora_group(x, weights, biases, a, b, scales, gains)
//       y_i = gain_i (x weight_i^T + scale_i (x a_i^T) b_i^T) + bias_i, gains and biases being optional
//   sluice::lora(x, weight, bias, a, b, scale, gain, output)   the same of one; with `output`, which is what it gives, it
//       makes the graph and no product. There is no gain then.
//
// All x a_i^T are one pass over x, and so are all gradients of a_i, and x's gradient is summed in place; the updates are
// added to the products in place; of the weights nothing is computed. a, b and gain may be wider than x: on a CPU the
// low-rank part is computed in float32 whatever x's dtype, elsewhere in x's. Backward makes what is asked for and no more,
// once.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

#include "composed.h"
#include "few-rows.h"
#include "known-output.h"
#include "low-rank.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;
using Maybes = c10::List<Maybe>;
using Tensors = std::vector<Tensor>;

/// One group; an undefined tensor is a bias or a gain that is not there.
struct Group {
  Tensor x;
  Tensors weights, biases, as, bs, gains;
  std::vector<double> scales;
  /// What a group of one gives, where that is known.
  Tensor output;

  size_t size() const { return weights.size(); }
};

Tensors plain(const Maybes& tensors) {
  Tensors found;
  for (const Maybe& tensor : tensors) found.push_back(tensor.value_or(Tensor()));
  return found;
}

Group groupOf(const Tensor& x, at::TensorList weights, const Maybes& biases, at::TensorList as, at::TensorList bs,
              at::ArrayRef<double> scales, const Maybes& gains) {
  Group group{x, weights.vec(), plain(biases), as.vec(), bs.vec(), plain(gains), scales.vec(), Tensor()};
  const size_t num = group.size();
  TORCH_CHECK(num > 0 && group.biases.size() == num && group.as.size() == num && group.bs.size() == num &&
                  group.gains.size() == num && group.scales.size() == num,
              "lora_group: expected as many biases, a, b, scales and gains as weights, received ", num, " weights");
  for (size_t i = 0; i < num; ++i) {
    const Tensor &weight = group.weights[i], &a = group.as[i], &b = group.bs[i];
    TORCH_CHECK(x.dim() > 0 && weight.dim() == 2 && weight.size(1) == x.size(-1) && a.dim() == 2 && b.dim() == 2 &&
                    a.size(1) == weight.size(1) && b.size(0) == weight.size(0) && a.size(0) == b.size(1),
                "lora: expected x [.., in], weight [out, in], a [rank, in] and b [out, rank], received ", x.sizes(), ", ",
                weight.sizes(), ", ", a.sizes(), " and ", b.sizes());
  }
  return group;
}

std::vector<int64_t> shapeOf(const Tensor& x, const Tensor& weight) {
  auto shape = x.sizes().vec();
  shape.back() = weight.size(0);
  return shape;
}

/// What forward and backward both need of a and b: all a below each other, [ranks, in], and each scale b^T, [rank, out];
/// float32.
struct Factors {
  Tensor down;
  Tensors ups;
};

Factors factorsOf(const Group& group) {
  Tensors downs;
  Factors factors;
  for (size_t i = 0; i < group.size(); ++i) {
    downs.push_back(group.as[i].to(at::kFloat));
    factors.ups.push_back((group.bs[i].to(at::kFloat) * group.scales[i]).t().contiguous());
  }
  factors.down = downs.size() == 1 ? downs[0].contiguous() : at::cat(downs, 0);
  return factors;
}

/// The columns of d that belong to each.
Tensors split(const Tensor& d, const Tensors& ups, int64_t dim) {
  Tensors parts;
  int64_t first = 0;
  for (const Tensor& up : ups) {
    parts.push_back(d.narrow(dim, first, up.size(0)));
    first += up.size(0);
  }
  return parts;
}

Tensor gained(const Tensor& sum, const Tensor& gain, const Tensor& bias) {
  const Tensor y = sum * gain.to(sum.scalar_type());
  return bias.defined() ? y.add_(bias) : y;
}

struct Computed {
  /// Before gain and bias where there is a gain; [rows, out].
  Tensors sums;
  /// [.., out]
  Tensors outputs;
  /// x a^T of all, float32 [rows, ranks]
  Tensor down;
};

Computed compute(const Group& group, const Tensor& x, const Factors& factors) {
  Computed result;
  result.down = lowRankDown(x, factors.down);
  const Tensors downs = split(result.down, factors.ups, 1);
  for (size_t i = 0; i < group.size(); ++i) {
    const Tensor &weight = group.weights[i], &bias = group.biases[i], &gain = group.gains[i];
    if (group.output.defined()) {
      result.sums.emplace_back();
      result.outputs.push_back(group.output.view(shapeOf(group.x, weight)));
      continue;
    }
    const bool hasGain = gain.defined();
    const Tensor sum = productOf(x, weight, bias.defined() && !hasGain ? Maybe(bias) : Maybe());
    addLowRankUp(downs[i], factors.ups[i], sum);
    result.sums.push_back(hasGain ? sum : Tensor());
    result.outputs.push_back((hasGain ? gained(sum, gain, bias) : sum).view(shapeOf(group.x, weight)));
  }
  return result;
}

Tensor rowsOf(const Tensor& x) { return x.reshape({-1, x.size(-1)}).contiguous(); }

bool isFloating(const Tensor& tensor) {
  const auto dtype = tensor.scalar_type();
  return dtype == at::kFloat || dtype == at::kBFloat16;
}

/// Whether the kernels take all of the group.
bool takes(const Group& group) {
  const Tensor& x = group.x;
  if (!x.is_cpu() || x.numel() == 0 || !isFloating(x)) return false;
  int64_t ranks = 0;
  for (size_t i = 0; i < group.size(); ++i) {
    const Tensor &weight = group.weights[i], &bias = group.biases[i], &gain = group.gains[i];
    if (weight.scalar_type() != x.scalar_type() || weight.requires_grad() || !weight.is_contiguous()) return false;
    if (bias.defined() && (bias.scalar_type() != x.scalar_type() || bias.requires_grad())) return false;
    for (const Tensor& tensor : {weight, group.as[i], group.bs[i], bias, gain})
      if (tensor.defined() && (!tensor.is_cpu() || !isFloating(tensor))) return false;
    if (group.as[i].size(0) > kMostRank) return false;
    ranks += group.as[i].size(0);
  }
  return ranks > 0 && takesLowRank(x.detach().reshape({-1, x.size(-1)}).contiguous());
}

/// The tensors of a group in one list, as recording takes them: without those that are not there.
struct Flat {
  Tensors all;
  /// Of x, the weights, biases, a, b and gains: where each is in the list, or -1.
  std::vector<int64_t> places;
};

Flat flat(const Group& group) {
  Flat result;
  const auto add = [&](const Tensor& tensor) {
    result.places.push_back(tensor.defined() ? static_cast<int64_t>(result.all.size()) : -1);
    if (tensor.defined()) result.all.push_back(tensor);
  };
  add(group.x);
  for (const Tensors* tensors : {&group.weights, &group.biases, &group.as, &group.bs, &group.gains})
    for (const Tensor& tensor : *tensors) add(tensor);
  return result;
}

Group unflat(at::TensorList all, const std::vector<int64_t>& places, const std::vector<double>& scales,
             const Tensor& output) {
  const size_t num = scales.size();
  const auto part = [&](size_t kind) {
    Tensors tensors;
    for (size_t i = 0; i < num; ++i) {
      const int64_t place = places[1 + kind * num + i];
      tensors.push_back(place < 0 ? Tensor() : all[place]);
    }
    return tensors;
  };
  return {all[0], part(0), part(1), part(2), part(3), part(4), scales, output};
}

class Lora : public torch::autograd::Function<Lora> {
 public:
  static variable_list forward(AutogradContext* context, at::TensorList all, const std::vector<int64_t>& places,
                               const std::vector<double>& scales, const c10::List<Tensor>& known) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Group group = unflat(all, places, scales, known.empty() ? Tensor() : known.get(0));
    const Tensor x = rowsOf(group.x);
    const Factors factors = factorsOf(group);
    const Computed computed = compute(group, x, factors);
    Tensors saved{x, factors.down, computed.down};
    for (const Tensors* tensors : {&factors.ups, &group.weights, &group.gains, &computed.sums})
      saved.insert(saved.end(), tensors->begin(), tensors->end());
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    std::vector<int64_t> dtypes;
    for (const Tensor& tensor : all) dtypes.push_back(static_cast<int64_t>(tensor.scalar_type()));
    context->saved_data["places"] = places;
    context->saved_data["dtypes"] = dtypes;
    context->saved_data["scales"] = scales;
    context->saved_data["shape"] = group.x.sizes().vec();
    return computed.outputs;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("lora");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const auto dtypes = context->saved_data["dtypes"].toIntVector();
    const auto places = context->saved_data["places"].toIntVector();
    const auto scales = context->saved_data["scales"].toDoubleVector();
    const auto shape = context->saved_data["shape"].toIntVector();
    const size_t num = grads.size();
    const auto part = [&](size_t i) { return Tensors(saved.begin() + 3 + i * num, saved.begin() + 3 + (i + 1) * num); };
    const Tensor &x = saved[0], &down = saved[1], &downs = saved[2];
    const Tensors ups = part(0), weights = part(1), gains = part(2), sums = part(3);
    const auto placeOf = [&](size_t kind, size_t i) { return places[1 + kind * num + i]; };
    const auto asks = [&](size_t kind, size_t i) {
      return placeOf(kind, i) >= 0 && context->needs_input_grad(placeOf(kind, i));
    };
    const auto typed = [&](const Tensor& grad, size_t place) { return grad.to(static_cast<at::ScalarType>(dtypes[place])); };

    variable_list result(dtypes.size() + 3);  // and the three that have no gradient
    const bool wantsX = context->needs_input_grad(0);
    bool wantsAnyA = false;
    for (size_t i = 0; i < num; ++i) wantsAnyA |= asks(2, i);
    const Tensors downParts = split(downs, ups, 1);
    Tensor xGrad;
    Tensors downGrads;
    for (size_t i = 0; i < num; ++i) {
      if (!grads[i].defined()) {
        downGrads.push_back(downParts[i].new_zeros(downParts[i].sizes()));
        continue;
      }
      const Tensor rows = rowsOf(grads[i]);
      Tensor grad = rows;
      if (sums[i].defined()) {
        if (asks(4, i)) result[placeOf(4, i)] = typed((rows * sums[i]).sum({0}, false, at::kFloat), placeOf(4, i));
        grad = rows * gains[i].to(rows.scalar_type());
      }
      if (asks(3, i)) {
        const Tensor outer = lowRankOuter(downParts[i], grad);
        result[placeOf(3, i)] = typed(outer.t() * scales[i], placeOf(3, i));
      }
      if (wantsX || wantsAnyA) downGrads.push_back(lowRankDown(grad, ups[i]));
      if (wantsX) addProduct(xGrad, grad, weights[i]);
    }
    if (downGrads.empty()) return result;
    const Tensor downGrad = downGrads.size() == 1 ? downGrads[0] : at::cat(downGrads, 1);
    if (wantsAnyA) {
      const Tensors aGrads = split(lowRankOuter(downGrad, x), ups, 0);
      for (size_t i = 0; i < num; ++i)
        if (asks(2, i)) result[placeOf(2, i)] = typed(aGrads[i], placeOf(2, i));
    }
    if (wantsX && xGrad.defined()) {
      addLowRankUp(downGrad, down, xGrad);
      result[0] = typed(xGrad, 0).view(shape);
    }
    return result;
  }
};

Tensor composedOne(const Group& group, size_t i) {
  const Tensor &x = group.x, &weight = group.weights[i], &bias = group.biases[i], &gain = group.gains[i];
  const Tensor up = (group.bs[i] * group.scales[i]).to(x.scalar_type());
  const Tensor update = at::linear(at::linear(x, group.as[i].to(x.scalar_type())), up);
  if (!gain.defined()) return productOf(x, weight, bias.defined() ? Maybe(bias) : Maybe()) + update;
  const Tensor y = (productOf(x, weight) + update) * gain.to(x.scalar_type());
  return bias.defined() ? y + bias : y;
}

Tensors run(const Group& group) {
  if (!takes(group)) {
    Tensors outputs;
    for (size_t i = 0; i < group.size(); ++i) outputs.push_back(composedOne(group, i));
    return outputs;
  }
  bool learns = group.x.requires_grad();
  for (const Tensors* tensors : {&group.as, &group.bs, &group.gains})
    for (const Tensor& tensor : *tensors) learns |= tensor.defined() && tensor.requires_grad();
  if (learns && at::GradMode::is_enabled()) {
    const Flat list = flat(group);
    const auto known = group.output.defined() ? c10::List<Tensor>({group.output}) : c10::List<Tensor>();
    return Lora::apply(at::TensorList(list.all), list.places, group.scales, known);
  }
  at::NoGradGuard silent;
  return compute(group, rowsOf(group.x), factorsOf(group)).outputs;
}

Tensors loraGroup(const Tensor& x, at::TensorList weights, const Maybes& biases, at::TensorList as, at::TensorList bs,
                  at::ArrayRef<double> scales, const Maybes& gains) {
  return run(groupOf(x, weights, biases, as, bs, scales, gains));
}

Tensor loraOne(const Tensor& x, const Tensor& weight, const Maybe& bias, const Tensor& a, const Tensor& b, double scale,
               const Maybe& gain, const Maybe& output) {
  Group group = groupOf(x, weight, Maybes({bias}), a, b, scale, Maybes({gain}));
  if (has(output)) {
    checkKnownOutput("lora", *output, x, weight.size(0), has(gain));
    group.output = *output;
  }
  return run(group)[0];
}

// Composed of operators that record by themselves, so that one implementation serves every device and mode.
TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("lora(Tensor x, Tensor weight, Tensor? bias, Tensor a, Tensor b, float scale, Tensor? gain=None, "
        "Tensor? output=None) -> Tensor",
        loraOne);
  m.def(
      "lora_group(Tensor x, Tensor[] weights, Tensor?[] biases, Tensor[] a, Tensor[] b, float[] scales, Tensor?[] gains)"
      " -> Tensor[]",
      loraGroup);
}

}  // namespace
}  // namespace sluice
