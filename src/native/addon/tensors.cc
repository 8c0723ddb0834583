// Tensors from and to typed arrays, their properties, autograd, random state and facts about the engine.

#include "addon.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/version.h>

#include <dlfcn.h>

#include <cstring>
#include <mutex>

namespace sluice {
namespace {

struct NamedType {
  const char* name;
  c10::ScalarType type;
};

constexpr NamedType kTypes[] = {
    {"float32", c10::kFloat}, {"bfloat16", c10::kBFloat16}, {"float16", c10::kHalf}, {"float64", c10::kDouble},
    {"int64", c10::kLong},    {"int32", c10::kInt},         {"int16", c10::kShort},  {"int8", c10::kChar},
    {"uint8", c10::kByte},    {"bool", c10::kBool}};

// --- typed arrays in -------------------------------------------------------------------------------------------------

/// JavaScript buffers that tensors viewed and let go, possibly on another thread; released on the next call here.
struct Returned {
  std::mutex mutex;
  std::vector<napi_ref> references;
};

Returned& returned() {
  static thread_local Returned* instance = new Returned();
  return *instance;
}

void releaseReturned(napi_env env) {
  Returned& r = returned();
  std::vector<napi_ref> references;
  {
    std::lock_guard<std::mutex> lock(r.mutex);
    references.swap(r.references);
  }
  for (napi_ref reference : references) napi_delete_reference(env, reference);
}

c10::ScalarType typeOfArray(napi_typedarray_type type) {
  switch (type) {
    case napi_float32_array: return c10::kFloat;
    case napi_float64_array: return c10::kDouble;
    case napi_int32_array: return c10::kInt;
    case napi_bigint64_array: return c10::kLong;
    case napi_uint8_array:
    case napi_uint8_clamped_array: return c10::kByte;
    case napi_int8_array: return c10::kChar;
    case napi_int16_array: return c10::kShort;
    case napi_uint16_array: return c10::kBFloat16;  // bits of bfloat16
    default: throw std::invalid_argument("tensor: expected a Float32Array, Float64Array, Int32Array, BigInt64Array, Uint8Array or Uint16Array (bfloat16 bits)");
  }
}

/// fromArray(typedArray, sizes, dtype, device, share) -> handle. With `share` the tensor views the array's memory, which
/// stays alive until the tensor's storage is freed; otherwise it is copied.
Napi::Value FromArray(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  releaseReturned(env);
  napi_typedarray_type kind;
  size_t length = 0;
  void* data = nullptr;
  napi_value buffer;
  if (napi_get_typedarray_info(env, info[0], &kind, &length, &data, &buffer, nullptr) != napi_ok)
    throw std::invalid_argument("tensor: expected a typed array");
  const auto sizes = sizesOf(info[1]);
  const auto source = typeOfArray(kind);
  const auto target = dtypeOf(info[2].As<Napi::String>());
  const c10::Device device(info[3].As<Napi::String>().Utf8Value());
  const bool share = info[4].ToBoolean();
  int64_t numel = 1;
  for (auto size : sizes) numel *= size;
  if (numel != static_cast<int64_t>(length))
    throw std::invalid_argument("tensor: expected " + std::to_string(numel) + " elements for the shape, received " + std::to_string(length));
  if (share && source == target && device.is_cpu() && length > 0) {
    napi_ref reference;
    napi_create_reference(env, buffer, 1, &reference);
    Returned* home = &returned();
    auto tensor = at::from_blob(data, sizes, [home, reference](void*) {
      std::lock_guard<std::mutex> lock(home->mutex);
      home->references.push_back(reference);
    }, at::TensorOptions(source));
    return Napi::Number::New(env, keepTensor(std::move(tensor)));
  }
  at::Tensor view = length > 0 ? at::from_blob(data, sizes, at::TensorOptions(source)) : at::empty(sizes, at::TensorOptions(source));
  at::NoGradGuard noGrad;
  return Napi::Number::New(env, keepTensor(view.to(at::TensorOptions(target).device(device), /*non_blocking=*/false, /*copy=*/true)));
}

/// toArray(handle) -> typed array: float kinds narrower than 32 bits come out as Float32Array, bool as Uint8Array.
Napi::Value ToArray(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  at::NoGradGuard noGrad;
  at::Tensor tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue()).detach();
  if (tensor.scalar_type() == c10::kBFloat16 || tensor.scalar_type() == c10::kHalf) tensor = tensor.to(c10::kFloat);
  tensor = tensor.to(c10::kCPU).contiguous();
  const size_t length = tensor.numel();
  auto buffer = Napi::ArrayBuffer::New(env, tensor.nbytes());
  if (length > 0) std::memcpy(buffer.Data(), tensor.const_data_ptr(), tensor.nbytes());
  switch (tensor.scalar_type()) {
    case c10::kFloat: return Napi::Float32Array::New(env, length, buffer, 0);
    case c10::kDouble: return Napi::Float64Array::New(env, length, buffer, 0);
    case c10::kLong: return Napi::BigInt64Array::New(env, length, buffer, 0);
    case c10::kInt: return Napi::Int32Array::New(env, length, buffer, 0);
    case c10::kShort: return Napi::Int16Array::New(env, length, buffer, 0);
    case c10::kChar: return Napi::Int8Array::New(env, length, buffer, 0);
    case c10::kBool:
    case c10::kByte: return Napi::Uint8Array::New(env, length, buffer, 0);
    default: throw std::invalid_argument(std::string("toTypedArray: no typed array for ") + toString(tensor.scalar_type()));
  }
}

/// toBytes(handle) -> Uint8Array: the elements' own bytes, row-major, whatever the dtype.
Napi::Value ToBytes(const Napi::CallbackInfo& info) {
  at::NoGradGuard noGrad;
  const at::Tensor tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue()).detach().to(c10::kCPU).contiguous();
  auto buffer = Napi::ArrayBuffer::New(info.Env(), tensor.nbytes());
  if (tensor.numel() > 0) std::memcpy(buffer.Data(), tensor.const_data_ptr(), tensor.nbytes());
  return Napi::Uint8Array::New(info.Env(), tensor.nbytes(), buffer, 0);
}

Napi::Value Item(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue());
  TORCH_CHECK(tensor.numel() == 1, "item: expected a tensor of one element, received one of ", tensor.numel());
  return Napi::Number::New(info.Env(), tensor.item().toDouble());
}

// --- properties ------------------------------------------------------------------------------------------------------

Napi::Value Sizes(const Napi::CallbackInfo& info) {
  const auto sizes = tensorOf(info[0].As<Napi::Number>().DoubleValue()).sizes();
  auto array = Napi::Array::New(info.Env(), sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) array[i] = Napi::Number::New(info.Env(), static_cast<double>(sizes[i]));
  return array;
}

Napi::Value DTypeName(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), nameOf(tensorOf(info[0].As<Napi::Number>().DoubleValue()).scalar_type()));
}

Napi::Value DeviceName(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), tensorOf(info[0].As<Napi::Number>().DoubleValue()).device().str());
}

Napi::Value NumBytes(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue());
  // On the meta device there are none; told of them, V8 would collect garbage all the time.
  return Napi::Number::New(info.Env(), tensor.is_meta() ? 0.0 : static_cast<double>(tensor.nbytes()));
}

Napi::Value RequiresGrad(const Napi::CallbackInfo& info) {
  const auto& tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue());
  if (info.Length() > 1) tensor.set_requires_grad(info[1].ToBoolean());
  return Napi::Boolean::New(info.Env(), tensor.requires_grad());
}

/// grad(handle) -> handle of the gradient, or 0.
Napi::Value Grad(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), keepTensor(tensorOf(info[0].As<Napi::Number>().DoubleValue()).grad()));
}

Napi::Value SetGrad(const Napi::CallbackInfo& info) {
  at::Tensor tensor = tensorOf(info[0].As<Napi::Number>().DoubleValue());
  const double gradient = info[1].As<Napi::Number>().DoubleValue();
  tensor.mutable_grad() = gradient > 0 ? tensorOf(gradient) : at::Tensor();
  return info.Env().Undefined();
}

// --- autograd --------------------------------------------------------------------------------------------------------

torch::autograd::variable_list listOf(const Napi::Value& value) {
  torch::autograd::variable_list list;
  if (!value.IsArray()) return list;
  const auto array = value.As<Napi::Array>();
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const double handle = array.Get(i).As<Napi::Number>().DoubleValue();
    list.push_back(handle > 0 ? tensorOf(handle) : at::Tensor());
  }
  return list;
}

/// backward(outputs, gradients, retainGraph)
Napi::Value Backward(const Napi::CallbackInfo& info) {
  torch::autograd::backward(listOf(info[0]), listOf(info[1]), info[2].ToBoolean().Value());
  return info.Env().Undefined();
}

/// Joins several outputs in one, and hands them their gradients without keeping any: what a graph has used up is free.
class Joined : public torch::autograd::Function<Joined> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList outputs,
                            const c10::List<at::Tensor>& gradients) {
    context->saved_data["gradients"] = gradients;
    return at::zeros({}, outputs[0].options().requires_grad(false));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list&) {
    auto gradients = context->saved_data["gradients"].toTensorVector();
    context->saved_data.clear();
    gradients.emplace_back();  // of the gradients themselves
    return gradients;
  }
};

/// backwardTaking(outputs, gradients): backward without retaining, after which neither has a handle any more; they are let
/// go of as early as can be.
Napi::Value BackwardTaking(const Napi::CallbackInfo& info) {
  at::Tensor joined;
  {
    at::AutoGradMode recorded(true);
    joined = Joined::apply(at::TensorList(listOf(info[0])), c10::List<at::Tensor>(listOf(info[1])));
  }
  for (const Napi::Value& handles : {info[0], info[1]}) {
    const auto array = handles.As<Napi::Array>();
    for (uint32_t i = 0; i < array.Length(); ++i) freeTensor(array.Get(i).As<Napi::Number>().DoubleValue());
  }
  torch::autograd::backward({joined}, {at::ones({}, joined.options())});
  return info.Env().Undefined();
}

/// gradients(outputs, inputs, gradOutputs, retainGraph) -> a handle an input, 0 where it does not take part.
Napi::Value Gradients(const Napi::CallbackInfo& info) {
  const auto gradients = torch::autograd::grad(listOf(info[0]), listOf(info[1]), listOf(info[2]), info[3].ToBoolean().Value(),
                                               /*create_graph=*/false, /*allow_unused=*/true);
  auto array = Napi::Array::New(info.Env(), gradients.size());
  for (size_t i = 0; i < gradients.size(); ++i) array[i] = Napi::Number::New(info.Env(), keepTensor(gradients[i]));
  return array;
}

Napi::Value SetGradEnabled(const Napi::CallbackInfo& info) {
  const bool before = c10::GradMode::is_enabled();
  c10::GradMode::set_enabled(info[0].ToBoolean());
  return Napi::Boolean::New(info.Env(), before);
}

// --- life ------------------------------------------------------------------------------------------------------------

Napi::Value Free(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), freeTensor(info[0].As<Napi::Number>().DoubleValue()));
}

/// share(handle) -> a second handle of the same tensor.
Napi::Value Share(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), keepTensor(tensorOf(info[0].As<Napi::Number>().DoubleValue())));
}

Napi::Value LiveTensors(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(liveTensors()));
}

/// adjustMemory(bytes): tells V8 of memory that its garbage would free.
Napi::Value AdjustMemory(const Napi::CallbackInfo& info) {
  int64_t now = 0;
  napi_adjust_external_memory(info.Env(), info[0].As<Napi::Number>().Int64Value(), &now);
  return Napi::Number::New(info.Env(), static_cast<double>(now));
}

// --- random, threads, facts ------------------------------------------------------------------------------------------

Napi::Value ManualSeed(const Napi::CallbackInfo& info) {
  at::manual_seed(info[0].As<Napi::Number>().Int64Value());
  return info.Env().Undefined();
}

/// randomState() -> handle of the CPU generator's state (uint8); randomState(handle) restores it.
Napi::Value RandomState(const Napi::CallbackInfo& info) {
  auto generator = at::detail::getDefaultCPUGenerator();
  std::lock_guard<std::mutex> lock(generator.mutex());
  if (info.Length() > 0) generator.set_state(tensorOf(info[0].As<Napi::Number>().DoubleValue()));
  return Napi::Number::New(info.Env(), keepTensor(generator.get_state()));
}

Napi::Value NumThreads(const Napi::CallbackInfo& info) {
  if (info.Length() > 0) at::set_num_threads(info[0].As<Napi::Number>().Int32Value());
  return Napi::Number::New(info.Env(), at::get_num_threads());
}

Napi::Value Facts(const Napi::CallbackInfo& info) {
  auto facts = Napi::Object::New(info.Env());
  facts["version"] = TORCH_VERSION;
  facts["cpuCapability"] = at::get_cpu_capability();
  facts["config"] = at::show_config();
  facts["parallel"] = at::get_parallel_info();
  facts["threads"] = at::get_num_threads();
  facts["cuda"] = at::hasCUDA();
  Dl_info library;
  facts["library"] = dladdr(reinterpret_cast<void*>(&at::show_config), &library) ? library.dli_fname : "";
  return facts;
}

/// openLibrary(path): loads a shared library for all to see, as CUDA's part of libtorch.
Napi::Value OpenLibrary(const Napi::CallbackInfo& info) {
  const std::string path = info[0].As<Napi::String>();
  if (!dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) throw std::runtime_error(dlerror());
  return info.Env().Undefined();
}

using Door = Napi::Value (*)(const Napi::CallbackInfo&);

template <Door door>
Napi::Value Guarded(const Napi::CallbackInfo& info) {
  return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value { return door(info); }));
}

}  // namespace

c10::ScalarType dtypeOf(const std::string& name) {
  for (const auto& known : kTypes)
    if (name == known.name) return known.type;
  throw std::invalid_argument("dtype: expected float32, bfloat16, float16, float64, int64, int32, int16, int8, uint8 or bool, received '" + name + "'");
}

const char* nameOf(c10::ScalarType dtype) {
  for (const auto& known : kTypes)
    if (dtype == known.type) return known.name;
  return toString(dtype);
}

std::vector<int64_t> sizesOf(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  std::vector<int64_t> sizes(array.Length());
  for (uint32_t i = 0; i < sizes.size(); ++i) {
    sizes[i] = array.Get(i).As<Napi::Number>().Int64Value();
    if (sizes[i] < 0) throw std::invalid_argument("tensor: expected sizes of 0 or more, received " + std::to_string(sizes[i]));
  }
  return sizes;
}

void InitTensors(Napi::Env env, Napi::Object exports) {
  const auto door = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    exports[name] = Napi::Function::New(env, function, name);
  };
  door("fromArray", Guarded<FromArray>);
  door("toArray", Guarded<ToArray>);
  door("toBytes", Guarded<ToBytes>);
  door("item", Guarded<Item>);
  door("sizes", Guarded<Sizes>);
  door("dtype", Guarded<DTypeName>);
  door("device", Guarded<DeviceName>);
  door("numBytes", Guarded<NumBytes>);
  door("requiresGrad", Guarded<RequiresGrad>);
  door("grad", Guarded<Grad>);
  door("setGrad", Guarded<SetGrad>);
  door("backward", Guarded<Backward>);
  door("backwardTaking", Guarded<BackwardTaking>);
  door("gradients", Guarded<Gradients>);
  door("setGradEnabled", Guarded<SetGradEnabled>);
  door("free", Guarded<Free>);
  door("share", Guarded<Share>);
  door("liveTensors", Guarded<LiveTensors>);
  door("adjustMemory", Guarded<AdjustMemory>);
  door("manualSeed", Guarded<ManualSeed>);
  door("randomState", Guarded<RandomState>);
  door("numThreads", Guarded<NumThreads>);
  door("facts", Guarded<Facts>);
  door("openLibrary", Guarded<OpenLibrary>);
}

}  // namespace sluice
