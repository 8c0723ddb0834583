// A tensor's bytes into an open file, straight from its memory: no copy in JavaScript's memory, and no other thread of this
// process works for it, so that a thread of low priority writes at that priority.

#include "addon.h"

#include <c10/core/GradMode.h>

#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace sluice {
namespace {

constexpr size_t kPieceBytes = 1 << 20;

/// writeTensor(handle, file): appends the elements' bytes at the position of an open file descriptor, row-major, whatever
/// the dtype; blocks this thread until the system has taken them. -> 0, or the system's error number.
Napi::Value WriteTensor(const Napi::CallbackInfo& info) {
  at::NoGradGuard noGrad;
  const at::Tensor tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue()).detach().to(c10::kCPU).contiguous();
  const int file = info[1].As<Napi::Number>().Int32Value();
  const auto* data = static_cast<const uint8_t*>(tensor.const_data_ptr());
  for (size_t left = tensor.nbytes(); left > 0;) {
    const ssize_t count = ::write(file, data, std::min(left, kPieceBytes));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return Napi::Number::New(info.Env(), errno);
    data += count, left -= count;
  }
  return Napi::Number::New(info.Env(), 0);
}

Napi::Value Guarded(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value { return WriteTensor(info); }));
}

}  // namespace

void InitWriteFile(Napi::Env env, Napi::Object exports) {
  exports["writeTensor"] = Napi::Function::New(env, Guarded, "writeTensor");
}

}  // namespace sluice
