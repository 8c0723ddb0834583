// Many tensors copied at once, as a checkpoint does between two steps. One parallel region for all of them, whose threads
// take a piece each as they come to it: a region a tensor waits each time for its slowest thread, and on cores that others
// use as well those waits were five times the copy.

#include "addon.h"

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

namespace sluice {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

struct Piece {
  uint8_t* to;
  const uint8_t* from;
  size_t bytes;
};

/// copyTensors(sources, targets): each source's elements into the target of the same place, which must be of its shape.
Napi::Value CopyTensors(const Napi::CallbackInfo& info) {
  at::NoGradGuard noGrad;
  const auto sources = info[0].As<Napi::Array>(), targets = info[1].As<Napi::Array>();
  const auto at = [](const Napi::Array& handles, uint32_t i) {
    return tensorOf(Napi::Value(handles[i]).As<Napi::Number>().DoubleValue()).detach();
  };
  TORCH_CHECK(sources.Length() == targets.Length(), "copyTensors: expected as many targets as the ", sources.Length(), " sources, received ", targets.Length());
  std::vector<at::Tensor> alive;
  std::vector<Piece> pieces;
  for (uint32_t i = 0; i < sources.Length(); ++i) {
    at::Tensor from = at(sources, i), to = at(targets, i);
    TORCH_CHECK(from.sizes() == to.sizes(), "copyTensors: expected a target of shape ", from.sizes(), ", received ", to.sizes());
    const bool plain = from.is_cpu() && to.is_cpu() && from.scalar_type() == to.scalar_type() && from.is_contiguous() &&
                       to.is_contiguous() && !from.is_conj() && !from.is_neg();
    if (!plain) {
      to.copy_(from);
      continue;
    }
    auto* out = static_cast<uint8_t*>(to.mutable_data_ptr());
    const auto* in = static_cast<const uint8_t*>(from.const_data_ptr());
    for (size_t done = 0; done < from.nbytes(); done += kPieceBytes)
      pieces.push_back({out + done, in + done, std::min(kPieceBytes, from.nbytes() - done)});
    alive.push_back(std::move(from));
    alive.push_back(std::move(to));
  }
  std::atomic<size_t> next{0};
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (size_t i = next++; i < pieces.size(); i = next++) std::memcpy(pieces[i].to, pieces[i].from, pieces[i].bytes);
  });
  return info.Env().Undefined();
}

Napi::Value Guarded(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value { return CopyTensors(info); }));
}

}  // namespace

void InitCopyTensors(Napi::Env env, Napi::Object exports) {
  exports["copyTensors"] = Napi::Function::New(env, Guarded, "copyTensors");
}

}  // namespace sluice
