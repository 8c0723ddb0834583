// AltUp's steps on the active copy of the hidden state, a pass forward and one backward, on a CPU:
//
//   sluice::altup_route(x, norm, router, coefs, eps, scale, addend)
//       tanh((norm(x) scale) router^T) coefs^T + addend
//   sluice::altup_innovate(activated, predicted, coefs, active, scale)
//       innovation = activated - predicted; first = (predicted + coefs_active innovation) scale
//
// Whatever the kernels do not take is composed of libtorch's operators and the addon's own. First derivatives only.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/tanh.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "altup-steps-kernels.h"
#include "builds.h"
#include "composed.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;
using Pair = std::tuple<Tensor, Tensor>;

/// One routing's tensors, dense.
struct Routing {
  Tensor x, norm, router, coefs;
  double scale;

  int64_t rows() const { return x.numel() / size(); }
  int64_t size() const { return x.size(-1); }
  int64_t num() const { return router.size(0); }
  int64_t outs() const { return coefs.size(0); }
  Tensor floats(at::IntArrayRef shape) const { return at::empty(shape, x.options().dtype(at::kFloat)); }
};

Tensor routeNow(const Routing& r, double eps, double addend, const Tensor& inverse, const Tensor& routed) {
  auto shape = r.x.sizes().vec();
  shape.back() = r.outs();
  const Tensor y = at::empty(shape, r.x.options());
  byDtype(r.x, [&]<class T>(T*) {
    overRows(r.rows(), r.size(), [&](int64_t first, int64_t count) {
      SLUICE_BEST(altupRoute, T)(from<T>(r.x, first * r.size()), from<T>(r.norm), from<T>(r.router), from<T>(r.coefs),
                                 to<T>(y, first * r.outs()), to<float>(inverse, first),
                                 to<float>(routed, first * r.num()), count, r.size(), r.num(), r.outs(),
                                 static_cast<float>(eps), static_cast<float>(r.scale), static_cast<float>(addend));
    });
  });
  return y;
}

class Route : public torch::autograd::Function<Route> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& norm, const Tensor& router,
                        const Tensor& coefs, double eps, double scale, double addend) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Routing r{dense(x), dense(norm), dense(router), dense(coefs), scale};
    const Tensor inverse = r.floats({r.rows()}), routed = r.floats({r.rows(), r.num()});
    context->save_for_backward({r.x, r.norm, r.router, r.coefs, inverse, routed});
    context->saved_data["scale"] = scale;
    return routeNow(r, eps, addend, inverse, routed);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("altup_route");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Routing r{saved[0], saved[1], saved[2], saved[3], context->saved_data["scale"].toDouble()};
    const Tensor &inverse = saved[4], &routed = saved[5], grad = grads[0].contiguous(), xGrad = at::empty_like(r.x);
    const int64_t shares = numShares(r.rows(), r.size());
    const auto wanted = [&](int which) {
      return SharedGrad(context->needs_input_grad(which) ? saved[which] : Tensor(), shares);
    };
    SharedGrad norm = wanted(1), router = wanted(2), coefs = wanted(3);
    const Tensor scratch = r.floats({shares, r.size()});
    byDtype(r.x, [&]<class T>(T*) {
      inShares(shares, r.rows(), [&](int64_t share, int64_t begin, int64_t end) {
        const RouteGrads weights{norm.of(share), router.of(share), coefs.of(share)};
        SLUICE_BEST(altupRouteBackward, T)(from<T>(grad, begin * r.outs()), from<T>(r.x, begin * r.size()),
                                           from<T>(r.norm), from<T>(r.router), from<T>(r.coefs),
                                           from<float>(inverse, begin), from<float>(routed, begin * r.num()),
                                           to<T>(xGrad, begin * r.size()), weights,
                                           to<float>(scratch, share * r.size()), end - begin, r.size(), r.num(),
                                           r.outs(), static_cast<float>(r.scale));
      });
    });
    return {xGrad, norm.total(), router.total(), coefs.total(), {}, {}, {}};
  }
};

Tensor routeComposed(const Tensor& x, const Tensor& norm, const Tensor& router, const Tensor& coefs, double eps,
                     double scale, double addend) {
  const Tensor routed = productOf(rmsNorm(x, norm, eps) * scale, router).to(at::kFloat).tanh().to(x.scalar_type());
  const Tensor mixed = productOf(routed, coefs);
  return addend == 0 ? mixed : mixed + addend;
}

Tensor routeOf(const Tensor& x, const Tensor& norm, const Tensor& router, const Tensor& coefs, double eps,
               double scale, double addend) {
  const int64_t num = router.size(0);
  if (x.dim() < 2 || !isForKernels({x, norm, router, coefs}) || num > kMostRouted || !isVector(norm, x.size(-1)) ||
      router.dim() != 2 || router.size(1) != x.size(-1) || coefs.dim() != 2 || coefs.size(1) != num)
    return routeComposed(x, norm, router, coefs, eps, scale, addend);
  if (isRecorded({x, norm, router, coefs})) return Route::apply(x, norm, router, coefs, eps, scale, addend);
  const Routing r{dense(x), dense(norm), dense(router), dense(coefs), scale};
  return routeNow(r, eps, addend, r.floats({r.rows()}), r.floats({r.rows(), num}));
}

/// One correction's tensors, dense; scale may be undefined.
struct Innovating {
  Tensor coefs, scale;
  int64_t active, rows, size;

  int64_t num() const { return coefs.size(-1); }
};

Pair innovateNow(const Innovating& s, const Tensor& activated, const Tensor& predicted) {
  const Tensor innovation = at::empty(activated.sizes(), activated.options()), first = at::empty_like(innovation);
  byDtype(activated, [&]<class T>(T*) {
    overRows(s.rows, s.size, [&](int64_t row, int64_t count) {
      const int64_t at = row * s.size;
      SLUICE_BEST(altupInnovate, T)(from<T>(activated, at), from<T>(predicted, at), from<T>(s.coefs, row * s.num()),
                                    from<T>(s.scale), to<T>(innovation, at), to<T>(first, at), count, s.size, s.num(),
                                    s.active);
    });
  });
  return {innovation, first};
}

class Innovate : public torch::autograd::Function<Innovate> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& activated, const Tensor& predicted,
                               const Tensor& coefs, const Maybe& scale, int64_t active) {
    at::AutoDispatchBelowADInplaceOrView below;
    const int64_t size = activated.size(-1);
    const Tensor before = dense(predicted);
    const Innovating s{dense(coefs), dense(scale.value_or(Tensor())), active, activated.numel() / size, size};
    const auto [innovation, first] = innovateNow(s, dense(activated), before);
    context->save_for_backward({innovation, before, s.coefs, s.scale});
    context->saved_data["active"] = active;
    context->set_materialize_grads(false);
    return {innovation, first};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("altup_innovate");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &innovation = saved[0], &predicted = saved[1];
    const int64_t size = innovation.size(-1), rows = innovation.numel() / size;
    const Innovating s{saved[2], saved[3], context->saved_data["active"].toInt(), rows, size};
    const Tensor ofNews = dense(grads[0]), ofFirst = dense(grads[1]);
    const Tensor activatedGrad = at::empty_like(innovation), predictedGrad = at::empty_like(innovation);
    const Tensor coefsGrad = at::empty_like(s.coefs);
    const int64_t shares = numShares(rows, size);
    SharedGrad scaleGrad(s.scale.defined() && context->needs_input_grad(3) ? s.scale : Tensor(), shares);
    byDtype(innovation, [&]<class T>(T*) {
      inShares(shares, rows, [&](int64_t share, int64_t begin, int64_t end) {
        const int64_t at = begin * size, few = begin * s.num();
        SLUICE_BEST(altupInnovateBackward, T)(from<T>(ofNews, at), from<T>(ofFirst, at), from<T>(innovation, at),
                                              from<T>(predicted, at), from<T>(s.coefs, few), from<T>(s.scale),
                                              to<T>(activatedGrad, at), to<T>(predictedGrad, at),
                                              to<T>(coefsGrad, few), scaleGrad.of(share), end - begin, size, s.num(),
                                              s.active);
      });
    });
    return {activatedGrad, predictedGrad, coefsGrad, scaleGrad.total(), {}};
  }
};

Pair innovateComposed(const Tensor& activated, const Tensor& predicted, const Tensor& coefs, int64_t active,
                      const Maybe& scale) {
  const Tensor innovation = activated - predicted;
  const Tensor first = at::addcmul(predicted, coefs.narrow(-1, active, 1), innovation);
  return {innovation, has(scale) ? first * *scale : first};
}

Pair innovateOf(const Tensor& activated, const Tensor& predicted, const Tensor& coefs, int64_t active,
                const Maybe& maybeScale) {
  const Tensor scale = maybeScale.value_or(Tensor());
  const int64_t size = activated.dim() > 0 ? activated.size(-1) : 0;
  if (activated.dim() < 2 || !isForKernels({activated, predicted, coefs, scale}) ||
      activated.sizes() != predicted.sizes() || coefs.numel() != activated.numel() / size * coefs.size(-1) ||
      (scale.defined() && !isVector(scale, size)))
    return innovateComposed(activated, predicted, coefs, active, maybeScale);
  TORCH_CHECK(active >= 0 && active < coefs.size(-1), "expected an active copy below ", coefs.size(-1), ", received ",
              active);
  if (isRecorded({activated, predicted, coefs, scale})) {
    const auto outputs = Innovate::apply(activated, predicted, coefs, maybeScale, active);
    return {outputs[0], outputs[1]};
  }
  return innovateNow({dense(coefs), dense(scale), active, activated.numel() / size, size}, dense(activated),
                     dense(predicted));
}

// Composed of operators that record by themselves, so that one implementation serves every device and mode.
TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def(
      "altup_route(Tensor x, Tensor norm, Tensor router, Tensor coefs, float eps, float scale, float addend) -> Tensor",
      routeOf);
  m.def(
      "altup_innovate(Tensor activated, Tensor predicted, Tensor coefs, int active, Tensor? scale) -> (Tensor, Tensor)",
      innovateOf);
}

}  // namespace
}  // namespace sluice
