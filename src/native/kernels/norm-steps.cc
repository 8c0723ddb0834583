// Norms with what stands beside them in a decoder layer, a pass each, forward and backward, on a CPU:
//
//   sluice::rms_norm_add(x, weight, residual, eps)          residual + norm(x)
//   sluice::rms_norm_join(a, b, x, x_weight, z, z_weight, eps, scale)
//       scale (a + b + norm(x) + norm(z)): LAuReL's end, after attention's
//   sluice::rms_norm_rotate(x, weight, cos, signed_sin, eps, heads)
//       [B, T, heads D] -> [B, heads, T, D]: each head's norm(x), its halves rotated against each other
//
// Whatever the kernels do not take is composed of libtorch's operators and the addon's own. First derivatives only.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "builds.h"
#include "composed.h"
#include "norm-steps-kernels.h"
#include "rms-norm.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;

Tensor inversesOf(const Tensor& x, int64_t size) {
  return at::empty({x.numel() / size}, x.options().dtype(at::kFloat));
}

/// x, weight and residual dense.
Tensor addNow(const Tensor& x, const Tensor& weight, const Tensor& residual, double eps, const Tensor& inverse) {
  const Tensor y = at::empty(x.sizes(), x.options());
  const int64_t size = x.size(-1);
  byDtype(x, [&]<class T>(T*) {
    overRows(x.numel() / size, size, [&](int64_t first, int64_t count) {
      const int64_t at = first * size;
      SLUICE_BEST(normAdd, T)(from<T>(x, at), from<T>(weight), from<T>(residual, at), to<T>(y, at),
                              to<float>(inverse, first), count, size, static_cast<float>(eps));
    });
  });
  return y;
}

class Add : public torch::autograd::Function<Add> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight, const Tensor& residual,
                        double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor given = dense(x), w = dense(weight), inverse = inversesOf(x, x.size(-1));
    context->save_for_backward({given, w, inverse});
    return addNow(given, w, dense(residual), eps, inverse);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("rms_norm_add");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor grad = grads[0].contiguous();
    NormGrads norm;
    if (context->needs_input_grad(0) || context->needs_input_grad(1))
      norm = normBackward(grad, saved[0], saved[1], saved[2], context->needs_input_grad(1));
    return {norm.x, norm.weight, grad, {}};
  }
};

Tensor normAddOf(const Tensor& x, const Tensor& weight, const Tensor& residual, double eps) {
  if (x.dim() == 0 || !isForKernels({x, weight, residual}) || !isVector(weight, x.size(-1)) ||
      x.sizes() != residual.sizes())
    return residual + rmsNorm(x, weight, eps);
  if (isRecorded({x, weight, residual})) return Add::apply(x, weight, residual, eps);
  return addNow(dense(x), dense(weight), dense(residual), eps, inversesOf(x, x.size(-1)));
}

/// What is joined; all dense.
struct Joined {
  Tensor a, b, x, xWeight, z, zWeight;
};

Tensor joinNow(const Joined& given, double eps, double scale, const Tensor& inverseX, const Tensor& inverseZ) {
  const auto& [a, b, x, xWeight, z, zWeight] = given;
  const Tensor y = at::empty(x.sizes(), x.options());
  const int64_t size = x.size(-1);
  byDtype(x, [&]<class T>(T*) {
    overRows(x.numel() / size, size, [&](int64_t first, int64_t count) {
      const int64_t at = first * size;
      SLUICE_BEST(normJoin, T)(from<T>(a, at), from<T>(b, at), from<T>(x, at), from<T>(xWeight), from<T>(z, at),
                               from<T>(zWeight), to<T>(y, at), to<float>(inverseX, first), to<float>(inverseZ, first),
                               count, size, static_cast<float>(eps), static_cast<float>(scale));
    });
  });
  return y;
}

class Join : public torch::autograd::Function<Join> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& a, const Tensor& b, const Tensor& x,
                        const Tensor& xWeight, const Tensor& z, const Tensor& zWeight, double eps, double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Joined given{dense(a), dense(b), dense(x), dense(xWeight), dense(z), dense(zWeight)};
    const Tensor inverseX = inversesOf(x, x.size(-1)), inverseZ = inversesOf(x, x.size(-1));
    context->save_for_backward({given.x, given.xWeight, inverseX, given.z, given.zWeight, inverseZ});
    context->saved_data["scale"] = scale;
    return joinNow(given, eps, scale, inverseX, inverseZ);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("rms_norm_join");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor given = grads[0].contiguous(), grad = at::empty_like(given);
    byDtype(given, [&]<class T>(T*) {
      overRows(given.numel(), 1, [&](int64_t first, int64_t count) {
        SLUICE_BEST(scaled, T)(from<T>(given, first), to<T>(grad, first), count,
                               static_cast<float>(context->saved_data["scale"].toDouble()));
      });
    });
    const NormGrads x = normBackward(grad, saved[0], saved[1], saved[2], context->needs_input_grad(3));
    const NormGrads z = normBackward(grad, saved[3], saved[4], saved[5], context->needs_input_grad(5));
    return {grad, grad, x.x, x.weight, z.x, z.weight, {}, {}};
  }
};

Tensor normJoinOf(const Tensor& a, const Tensor& b, const Tensor& x, const Tensor& xWeight, const Tensor& z,
                  const Tensor& zWeight, double eps, double scale) {
  const bool isAlike = a.sizes() == x.sizes() && b.sizes() == x.sizes() && z.sizes() == x.sizes();
  if (x.dim() == 0 || !isAlike || !isForKernels({x, a, b, xWeight, z, zWeight}) || !isVector(xWeight, x.size(-1)) ||
      !isVector(zWeight, x.size(-1)))
    return ((a + rmsNorm(x, xWeight, eps)) + (b + rmsNorm(z, zWeight, eps))) * scale;
  if (isRecorded({a, b, x, xWeight, z, zWeight})) return Join::apply(a, b, x, xWeight, z, zWeight, eps, scale);
  const Joined given{dense(a), dense(b), dense(x), dense(xWeight), dense(z), dense(zWeight)};
  return joinNow(given, eps, scale, inversesOf(x, x.size(-1)), inversesOf(x, x.size(-1)));
}

/// One rotation's tensors, dense; weight, cos and signedSin may be undefined.
struct Turn {
  Tensor x, weight, cos, signedSin;
  int64_t heads;

  int64_t batch() const { return x.size(0); }
  int64_t tokens() const { return x.size(1); }
  int64_t size() const { return x.size(2) / heads; }
  /// Where a token's angles begin.
  int64_t anglesOf(int64_t token) const {
    return cos.defined() ? (cos.size(0) == 1 ? token % tokens() : token) * size() : 0;
  }
};

Tensor rotateNow(const Turn& turn, double eps, const Tensor& inverse) {
  const int64_t heads = turn.heads, tokens = turn.tokens(), size = turn.size();
  const Tensor y = at::empty({turn.batch(), heads, tokens, size}, turn.x.options());
  byDtype(turn.x, [&]<class T>(T*) {
    overRows(turn.batch() * tokens, heads * size, [&](int64_t first, int64_t count) {
      const auto kernel = SLUICE_BEST(normRotate, T);
      for (int64_t token = first; token < first + count; ++token) {
        const int64_t row = token / tokens, place = token % tokens, angles = turn.anglesOf(token);
        for (int64_t head = 0; head < heads; ++head)
          to<float>(inverse)[token * heads + head] =
              kernel(from<T>(turn.x, (token * heads + head) * size), from<T>(turn.weight), from<T>(turn.cos, angles),
                     from<T>(turn.signedSin, angles), to<T>(y, ((row * heads + head) * tokens + place) * size), size,
                     static_cast<float>(eps));
      }
    });
  });
  return y;
}

class Rotate : public torch::autograd::Function<Rotate> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Maybe& weight, const Maybe& cos,
                        const Maybe& signedSin, double eps, int64_t heads) {
    at::AutoDispatchBelowADInplaceOrView below;
    const auto denseOf = [](const Maybe& tensor) { return dense(tensor.value_or(Tensor())); };
    const Turn turn{dense(x), denseOf(weight), denseOf(cos), denseOf(signedSin), heads};
    const Tensor inverse = inversesOf(x, turn.size());
    context->save_for_backward({turn.x, turn.weight, turn.cos, turn.signedSin, inverse});
    context->saved_data["heads"] = heads;
    return rotateNow(turn, eps, inverse);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("rms_norm_rotate");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Turn turn{saved[0], saved[1], saved[2], saved[3], context->saved_data["heads"].toInt()};
    const Tensor &inverse = saved[4], &grad = grads[0].stride(3) == 1 ? grads[0] : grads[0].contiguous();
    const int64_t heads = turn.heads, tokens = turn.tokens(), size = turn.size(), all = turn.batch() * tokens;
    const Tensor xGrad = at::empty_like(turn.x);
    const int64_t shares = numShares(all, heads * size);
    SharedGrad weightGrad(turn.weight.defined() && context->needs_input_grad(1) ? turn.weight : Tensor(), shares);
    byDtype(turn.x, [&]<class T>(T*) {
      inShares(shares, all, [&](int64_t share, int64_t begin, int64_t end) {
        const auto kernel = SLUICE_BEST(normRotateBackward, T);
        for (int64_t token = begin; token < end; ++token) {
          const int64_t row = token / tokens, place = token % tokens, angles = turn.anglesOf(token);
          for (int64_t head = 0; head < heads; ++head) {
            const int64_t at = (token * heads + head) * size;
            kernel(from<T>(grad, row * grad.stride(0) + head * grad.stride(1) + place * grad.stride(2)),
                   from<T>(turn.x, at), from<T>(turn.weight), from<T>(turn.cos, angles),
                   from<T>(turn.signedSin, angles), from<float>(inverse)[token * heads + head], to<T>(xGrad, at),
                   weightGrad.of(share), size);
          }
        }
      });
    });
    return {xGrad, weightGrad.total(), {}, {}, {}, {}};
  }
};

Tensor normRotateComposed(const Tensor& x, const Maybe& weight, const Maybe& cos, const Maybe& signedSin, double eps,
                          int64_t heads) {
  const int64_t size = x.size(2) / heads, half = size / 2;
  const Tensor normed = rmsNorm(x.reshape({x.size(0), x.size(1), heads, size}), weight, eps);
  if (!has(cos)) return normed.transpose(1, 2);
  const Tensor swapped = at::cat({normed.narrow(3, half, half), normed.narrow(3, 0, half)}, 3);
  return (normed * *cos + swapped * *signedSin).transpose(1, 2);
}

Tensor normRotateOf(const Tensor& x, const Maybe& weight, const Maybe& cos, const Maybe& signedSin, double eps,
                    int64_t heads) {
  TORCH_CHECK(x.dim() == 3 && heads > 0 && x.size(2) % heads == 0 && has(cos) == has(signedSin),
              "expected x [batch, tokens, heads * size], and cos and signed_sin or neither");
  const int64_t batch = x.size(0), tokens = x.size(1), size = x.size(2) / heads;
  const Tensor w = weight.value_or(Tensor()), c = cos.value_or(Tensor()), s = signedSin.value_or(Tensor());
  if (!isForKernels({x, w, c, s}) || size > kMostHeadSize || size % 2 || (w.defined() && !isVector(w, size)) ||
      isRecorded({c, s}))
    return normRotateComposed(x, weight, cos, signedSin, eps, heads);
  if (c.defined())
    TORCH_CHECK(c.sizes() == s.sizes() && c.dim() == 4 && (c.size(0) == 1 || c.size(0) == batch) &&
                    c.size(1) == tokens && c.size(2) == 1 && c.size(3) == size,
                "expected cos and signed_sin [batch or 1, tokens, 1, size]");
  if (isRecorded({x, w})) return Rotate::apply(x, weight, cos, signedSin, eps, heads);
  return rotateNow({dense(x), dense(w), dense(c), dense(s), heads}, eps, inversesOf(x, size));
}

// Composed of operators that record by themselves, so that one implementation serves every device and mode.
TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("rms_norm_add(Tensor x, Tensor weight, Tensor residual, float eps) -> Tensor", normAddOf);
  m.def(
      "rms_norm_join(Tensor a, Tensor b, Tensor x, Tensor x_weight, Tensor z, Tensor z_weight, float eps, float scale)"
      " -> Tensor",
      normJoinOf);
  m.def("rms_norm_rotate(Tensor x, Tensor? weight, Tensor? cos, Tensor? signed_sin, float eps, int heads) -> Tensor",
        normRotateOf);
}

}  // namespace
}  // namespace sluice
