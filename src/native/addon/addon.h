// What the addon's files share: tensor handles and error translation.
//
// A tensor crosses to JavaScript as a handle: a number that holds a slot and the slot's generation. The table is
// thread-local, since each JavaScript thread loads the addon once; a handle of another thread, or of a freed tensor,
// is an error and never another tensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <napi.h>

#include <string>

namespace sluice {

/// Puts a tensor into this thread's table. An undefined tensor gets handle 0.
double keepTensor(at::Tensor tensor);

/// The tensor behind a handle. Throws c10::Error when it was freed or belongs to another thread.
const at::Tensor& tensorOf(double handle);

/// Frees one handle; false when it was free already.
bool freeTensor(double handle);

/// Handles in use on this thread.
size_t liveTensors();

/// 'float32' and so on <-> c10::ScalarType. Throws on a name that is not supported.
c10::ScalarType dtypeOf(const std::string& name);
const char* nameOf(c10::ScalarType dtype);

/// Runs `body` and turns every C++ exception into a pending JavaScript error without libtorch's C++ backtrace.
template <class Body>
napi_value guarded(napi_env env, Body&& body) {
  try {
    return body();
  } catch (const Napi::Error& error) {
    error.ThrowAsJavaScriptException();
  } catch (const c10::Error& error) {
    napi_throw_error(env, "TENSOR", error.what_without_backtrace());
  } catch (const std::exception& error) {
    napi_throw_error(env, "TENSOR", error.what());
  }
  return nullptr;
}

/// Converts a JavaScript array of numbers to sizes.
std::vector<int64_t> sizesOf(const Napi::Value& value);

/// Once a process: makes tensors use the pool of memory.cc.
void InitMemory();
void InitOps(Napi::Env env, Napi::Object exports);
void InitTensors(Napi::Env env, Napi::Object exports);
void InitMappedFile(Napi::Env env, Napi::Object exports);
void InitWriteFile(Napi::Env env, Napi::Object exports);
void InitCopyTensors(Napi::Env env, Napi::Object exports);
void InitImage(Napi::Env env, Napi::Object exports);
void InitMemoryCounters(Napi::Env env, Napi::Object exports);
void InitCrossing(Napi::Env env, Napi::Object exports);

}  // namespace sluice
