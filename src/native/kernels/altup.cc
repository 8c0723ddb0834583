// AltUp's two steps over all copies of the hidden state, each in one pass over memory, forward and backward, on a CPU:
//
//   sluice::altup_predict(copies, mixing, active, read=True)
//       predictions_i = copies_i + sum_j mixing_ij copies_j
//   sluice::altup_correct(predictions, innovation, coefs, addition, active, read=True)
//       copies_i = predictions_i + coefs_i innovation + (i > 0) addition
//
// copies [..., num, size], mixing [..., num, num], coefs [..., num], innovation and addition [..., size]. Both also give
// the active copy by itself: taking it out later would make the backward pass fill all copies with zeros. What nobody is
// going to read, but for its graph, need not be computed: `read` says whether the predictions are, or the corrected copies
// and the active one; else NaN may stand for them, without memory of their own. Whatever the kernels do not take goes to
// libtorch's own operators. First derivatives only.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <limits>

#include "altup-kernels.h"
#include "builds.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Pair = std::tuple<Tensor, Tensor>;

AltupSizes sizesOf(const Tensor& copies, int64_t active) {
  const int64_t num = copies.size(-2), size = copies.size(-1);
  return {copies.numel() / std::max<int64_t>(num * size, 1), num, size, active};
}

bool takes(std::initializer_list<Tensor> tensors) {
  const Tensor& first = *tensors.begin();
  return isForKernels(tensors) && first.dim() >= 2 && first.size(-2) >= 1 && first.size(-2) <= kMostCopies;
}

/// The tokens' shares, each with its own sizes and its first token.
template <class Body>
void overTokens(const AltupSizes& sizes, Body&& body) {
  inShares(numShares(sizes.tokens, sizes.num * sizes.size), sizes.tokens, [&](int64_t, int64_t begin, int64_t end) {
    body(AltupSizes{end - begin, sizes.num, sizes.size, sizes.active}, begin);
  });
}

std::vector<int64_t> shapeOfActive(const Tensor& copies) {
  auto shape = copies.sizes().vec();
  shape.erase(shape.end() - 2);
  return shape;
}

Tensor activeLike(const Tensor& copies) { return at::empty(shapeOfActive(copies), copies.options()); }

/// What stands for numbers that nobody reads.
Tensor unread(at::IntArrayRef shape, const Tensor& like) {
  return at::full({}, std::numeric_limits<double>::quiet_NaN(), like.options()).expand(shape);
}

Pair predictNow(const Tensor& copies, const Tensor& mixing, int64_t activeIdx, bool read) {
  const AltupSizes sizes = sizesOf(copies, activeIdx);
  const Tensor predictions = read ? at::empty(copies.sizes(), copies.options()) : Tensor(), active = activeLike(copies);
  byDtype(copies, [&]<class T>(T*) {
    overTokens(sizes, [&](const AltupSizes& s, int64_t t) {
      const int64_t row = t * s.num * s.size;
      SLUICE_BEST(altupPredict, T)(s, from<T>(copies, row), from<T>(mixing, t * s.num * s.num), to<T>(predictions, row),
                      to<T>(active, t * s.size));
    });
  });
  return {read ? predictions : unread(copies.sizes(), copies), active};
}

Pair correctNow(const Tensor& predictions, const Tensor& innovation, const Tensor& coefs, const Tensor& addition,
                int64_t activeIdx, bool read) {
  if (!read) return {unread(predictions.sizes(), predictions), unread(shapeOfActive(predictions), predictions)};
  const AltupSizes sizes = sizesOf(predictions, activeIdx);
  const Tensor before = predictions.contiguous(), news = innovation.contiguous(), k = coefs.contiguous(),
               more = addition.contiguous();
  const Tensor copies = at::empty(predictions.sizes(), predictions.options()), active = activeLike(predictions);
  byDtype(predictions, [&]<class T>(T*) {
    overTokens(sizes, [&](const AltupSizes& s, int64_t t) {
      const int64_t row = t * s.num * s.size;
      SLUICE_BEST(altupCorrect, T)(s, from<T>(before, row), from<T>(news, t * s.size), from<T>(k, t * s.num),
                      from<T>(more, t * s.size), to<T>(copies, row), to<T>(active, t * s.size));
    });
  });
  return {copies, active};
}

/// Both outputs' gradients; undefined where an output was not used.
Pair contiguousGrads(const variable_list& grads) {
  return {grads[0].defined() ? grads[0].contiguous() : grads[0],
          grads[1].defined() ? grads[1].contiguous() : grads[1]};
}

class Predict : public torch::autograd::Function<Predict> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& copies, const Tensor& mixing, int64_t activeIdx,
                               bool read) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor c = copies.contiguous(), m = mixing.contiguous();
    context->save_for_backward({c, m});
    context->saved_data["active"] = activeIdx;
    context->set_materialize_grads(false);
    const auto [predictions, active] = predictNow(c, m, activeIdx, read);
    return {predictions, active};
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("altup");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &copies = saved[0], &mixing = saved[1];
    const auto [grad, activeGrad] = contiguousGrads(grads);
    const Tensor copiesGrad = at::empty_like(copies), mixingGrad = at::empty_like(mixing);
    byDtype(copies, [&]<class T>(T*) {
      overTokens(sizesOf(copies, context->saved_data["active"].toInt()), [&](const AltupSizes& s, int64_t t) {
        const int64_t row = t * s.num * s.size, mix = t * s.num * s.num;
        SLUICE_BEST(altupPredictBackward, T)(s, from<T>(grad, row), from<T>(activeGrad, t * s.size), from<T>(copies, row),
                                from<T>(mixing, mix), to<T>(copiesGrad, row), to<T>(mixingGrad, mix));
      });
    });
    return {copiesGrad, mixingGrad, {}, {}};
  }
};

class Correct : public torch::autograd::Function<Correct> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& predictions, const Tensor& innovation,
                               const Tensor& coefs, const Tensor& addition, int64_t activeIdx, bool read) {
    at::AutoDispatchBelowADInplaceOrView below;
    const Tensor news = innovation.contiguous(), k = coefs.contiguous();
    context->save_for_backward({news, k});
    context->saved_data["active"] = activeIdx;
    context->set_materialize_grads(false);
    const auto [copies, active] = correctNow(predictions, news, k, addition, activeIdx, read);
    return {copies, active};
  }

  static variable_list backward(AutogradContext* context, variable_list& grads) {
    refuseSecondDerivative("altup");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &innovation = saved[0], &coefs = saved[1];
    auto shape = coefs.sizes().vec();
    shape.push_back(innovation.size(-1));
    const Tensor predictionsGrad =
        grads[0].defined() ? inPlaceOf(grads[0]) : at::empty(shape, innovation.options());
    const Tensor moreGrad = grads[1].defined() ? inPlaceOf(grads[1]) : at::empty_like(innovation);
    const auto [grad, activeGrad] = contiguousGrads(grads);
    const Tensor newsGrad = at::empty_like(innovation), coefsGrad = at::empty_like(coefs);
    byDtype(coefs, [&]<class T>(T*) {
      const int64_t activeIdx = context->saved_data["active"].toInt();
      overTokens(sizesOf(predictionsGrad, activeIdx), [&](const AltupSizes& s, int64_t t) {
        const int64_t row = t * s.num * s.size, one = t * s.size, few = t * s.num;
        SLUICE_BEST(altupCorrectBackward, T)(s, from<T>(grad, row), from<T>(activeGrad, one), from<T>(innovation, one),
                                from<T>(coefs, few), to<T>(predictionsGrad, row), to<T>(newsGrad, one),
                                to<T>(coefsGrad, few), to<T>(moreGrad, one));
      });
    });
    return {predictionsGrad, newsGrad, coefsGrad, moreGrad, {}, {}};
  }
};

Pair predictComposed(const Tensor& copies, const Tensor& mixing, int64_t activeIdx, bool) {
  const Tensor predictions = copies + at::matmul(mixing, copies);
  return {predictions, predictions.select(-2, activeIdx)};
}

Pair correctComposed(const Tensor& predictions, const Tensor& innovation, const Tensor& coefs, const Tensor& addition,
                     int64_t activeIdx, bool) {
  const Tensor corrected = predictions + coefs.unsqueeze(-1) * innovation.unsqueeze(-2);
  const Tensor others = corrected.narrow(-2, 1, corrected.size(-2) - 1) + addition.unsqueeze(-2);
  const Tensor copies = at::cat({corrected.narrow(-2, 0, 1), others}, -2);
  return {copies, copies.select(-2, activeIdx)};
}

Pair predictOnCpu(const Tensor& copies, const Tensor& mixing, int64_t activeIdx, bool read) {
  if (!takes({copies, mixing})) return predictComposed(copies, mixing, activeIdx, read);
  return predictNow(copies.contiguous(), mixing.contiguous(), activeIdx, read);
}

Pair correctOnCpu(const Tensor& predictions, const Tensor& innovation, const Tensor& coefs, const Tensor& addition,
                  int64_t activeIdx, bool read) {
  if (!takes({predictions, innovation, coefs, addition}))
    return correctComposed(predictions, innovation, coefs, addition, activeIdx, read);
  return correctNow(predictions, innovation, coefs, addition, activeIdx, read);
}

Pair predictWithGrad(const Tensor& copies, const Tensor& mixing, int64_t activeIdx, bool read) {
  if (!takes({copies, mixing})) return predictComposed(copies, mixing, activeIdx, read);
  if (!isRecorded({copies, mixing})) return predictOnCpu(copies, mixing, activeIdx, read);
  const auto outputs = Predict::apply(copies, mixing, activeIdx, read);
  return {outputs[0], outputs[1]};
}

Pair correctWithGrad(const Tensor& predictions, const Tensor& innovation, const Tensor& coefs, const Tensor& addition,
                     int64_t activeIdx, bool read) {
  const auto inputs = {predictions, innovation, coefs, addition};
  if (!takes(inputs)) return correctComposed(predictions, innovation, coefs, addition, activeIdx, read);
  if (!isRecorded(inputs)) return correctOnCpu(predictions, innovation, coefs, addition, activeIdx, read);
  const auto outputs = Correct::apply(predictions, innovation, coefs, addition, activeIdx, read);
  return {outputs[0], outputs[1]};
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("altup_predict(Tensor copies, Tensor mixing, int active, bool read=True) -> (Tensor, Tensor)");
  m.def(
      "altup_correct(Tensor predictions, Tensor innovation, Tensor coefs, Tensor addition, int active, bool read=True)"
      " -> (Tensor, Tensor)");
}
TORCH_LIBRARY_IMPL(sluice, CompositeImplicitAutograd, m) {
  m.impl("altup_predict", predictComposed);
  m.impl("altup_correct", correctComposed);
}
TORCH_LIBRARY_IMPL(sluice, CPU, m) {
  m.impl("altup_predict", predictOnCpu);
  m.impl("altup_correct", correctOnCpu);
}
TORCH_LIBRARY_IMPL(sluice, AutogradCPU, m) {
  m.impl("altup_predict", predictWithGrad);
  m.impl("altup_correct", correctWithGrad);
}

}  // namespace
}  // namespace sluice
