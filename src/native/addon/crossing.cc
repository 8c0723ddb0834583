// Tensors that cross from one JavaScript thread to another of this process: one puts a tensor here and tells its number,
// the other takes it out. The memory is the same; neither thread may write to it while the other reads.

#include "addon.h"

#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace sluice {
namespace {

struct Crossing {
  std::mutex mutex;
  std::unordered_map<uint64_t, at::Tensor> waiting;
  uint64_t next = 1;
};

Crossing& crossing() {
  static Crossing* instance = new Crossing();  // never destroyed: threads may outlive the addon's statics
  return *instance;
}

/// sendTensor(handle) -> the number under which any thread may take the tensor, once.
Napi::Value SendTensor(const Napi::CallbackInfo& info) {
  at::Tensor tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue()).detach();
  Crossing& c = crossing();
  std::lock_guard<std::mutex> lock(c.mutex);
  const uint64_t number = c.next++;
  c.waiting.emplace(number, std::move(tensor));
  return Napi::Number::New(info.Env(), static_cast<double>(number));
}

/// receiveTensor(number) -> a handle of this thread, or 0 where nothing waits under that number.
Napi::Value ReceiveTensor(const Napi::CallbackInfo& info) {
  const auto number = static_cast<uint64_t>(info[0].As<Napi::Number>().Int64Value());
  at::Tensor tensor;
  {
    Crossing& c = crossing();
    std::lock_guard<std::mutex> lock(c.mutex);
    const auto found = c.waiting.find(number);
    if (found != c.waiting.end()) {
      tensor = std::move(found->second);
      c.waiting.erase(found);
    }
  }
  return Napi::Number::New(info.Env(), keepTensor(std::move(tensor)));
}

template <Napi::Value (*door)(const Napi::CallbackInfo&)>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value { return door(info); }));
}

}  // namespace

void InitCrossing(Napi::Env env, Napi::Object exports) {
  exports["sendTensor"] = Napi::Function::New(env, Guarded<SendTensor>, "sendTensor");
  exports["receiveTensor"] = Napi::Function::New(env, Guarded<ReceiveTensor>, "receiveTensor");
}

}  // namespace sluice
