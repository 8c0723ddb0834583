// Calls any operator of libtorch by name through the dispatcher's boxed interface.
//
// resolve('aten::add', 'Tensor') plans the conversion of each argument once and returns a function; calling it converts
// by that plan. Arguments come in the schema's order, keyword-only ones last; undefined takes the schema's default.

#include "addon.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/Device.h>
#include <c10/core/MemoryFormat.h>

#include <cmath>
#include <memory>
#include <sstream>
#include <unordered_map>

namespace sluice {
namespace {

enum class Kind { Tensor, TensorList, Int, IntList, Float, FloatList, Bool, BoolList, Scalar, DType, Device, MemoryFormat, String, Any, Unsupported };

struct Argument {
  Kind kind;
  bool optional = false;         // None is allowed
  bool optionalElements = false; // Tensor?[]
  bool hasDefault = false;
  c10::IValue fallback;
  c10::TypePtr type;
  std::string name;
};

enum class Result { Nothing, Self, Tensor, Other, Several };

struct Plan {
  c10::OperatorHandle handle;
  std::string name;
  std::vector<Argument> arguments;
  Result result;
};

Kind kindOf(const c10::TypePtr& type) {
  switch (type->kind()) {
    case c10::TypeKind::TensorType: return Kind::Tensor;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType: return Kind::Int;
    case c10::TypeKind::FloatType: return Kind::Float;
    case c10::TypeKind::BoolType: return Kind::Bool;
    case c10::TypeKind::NumberType: return Kind::Scalar;
    case c10::TypeKind::ScalarTypeType: return Kind::DType;
    case c10::TypeKind::MemoryFormatType: return Kind::MemoryFormat;
    case c10::TypeKind::DeviceObjType: return Kind::Device;
    case c10::TypeKind::StringType: return Kind::String;
    case c10::TypeKind::AnyType: return Kind::Any;
    case c10::TypeKind::ListType: {
      const auto& element = type->castRaw<c10::ListType>()->getElementType();
      switch (element->kind()) {
        case c10::TypeKind::TensorType: return Kind::TensorList;
        case c10::TypeKind::OptionalType: return Kind::TensorList;
        case c10::TypeKind::IntType:
        case c10::TypeKind::SymIntType: return Kind::IntList;
        case c10::TypeKind::FloatType: return Kind::FloatList;
        case c10::TypeKind::BoolType: return Kind::BoolList;
        default: return Kind::Unsupported;
      }
    }
    default: return Kind::Unsupported;
  }
}

Argument planArgument(const c10::Argument& argument) {
  Argument plan;
  // The real type keeps ScalarType and MemoryFormat apart from int; the plain one does not.
  c10::TypePtr type = argument.real_type() ? argument.real_type() : argument.type();
  if (type->kind() == c10::TypeKind::OptionalType) {
    plan.optional = true;
    type = type->castRaw<c10::OptionalType>()->getElementType();
  }
  plan.kind = kindOf(type);
  plan.optionalElements = plan.kind == Kind::TensorList &&
      type->castRaw<c10::ListType>()->getElementType()->kind() == c10::TypeKind::OptionalType;
  plan.type = type;
  plan.name = argument.name();
  if (argument.default_value()) {
    plan.hasDefault = true;
    plan.fallback = *argument.default_value();
  } else if (plan.optional) {
    plan.hasDefault = true;
  }
  return plan;
}

const char* describe(napi_valuetype type) {
  switch (type) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "a number";
    case napi_string: return "a string";
    case napi_bigint: return "a bigint";
    default: return "an object";
  }
}

const char* describe(Kind kind) {
  switch (kind) {
    case Kind::Tensor: return "a tensor";
    case Kind::TensorList: return "an array of tensors";
    case Kind::Int: return "an integer";
    case Kind::IntList: return "an array of integers";
    case Kind::Float: return "a number";
    case Kind::FloatList: return "an array of numbers";
    case Kind::Bool: return "a boolean";
    case Kind::BoolList: return "an array of booleans";
    case Kind::Scalar: return "a number or boolean";
    case Kind::DType: return "a dtype's name";
    case Kind::Device: return "a device's name";
    case Kind::MemoryFormat: return "a memory format's name";
    case Kind::String: return "a string";
    case Kind::Any: return "a value";
    case Kind::Unsupported: return "nothing (this argument's type is not supported)";
  }
  return "";
}

[[noreturn]] void refuse(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, value, &type);
  throw std::invalid_argument(plan.name + ": argument '" + argument.name + "': expected " + describe(argument.kind) +
                              ", received " + describe(type));
}

std::string stringOf(napi_env env, napi_value value) {
  size_t length = 0;
  napi_get_value_string_utf8(env, value, nullptr, 0, &length);
  std::string text(length, '\0');
  napi_get_value_string_utf8(env, value, text.data(), length + 1, &length);
  return text;
}

bool isNone(napi_env env, napi_value value) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  return type == napi_undefined || type == napi_null;
}

uint32_t lengthOf(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  uint32_t length = 0;
  if (napi_get_array_length(env, value, &length) != napi_ok) refuse(plan, argument, env, value);
  return length;
}

napi_value elementOf(napi_env env, napi_value array, uint32_t index) {
  napi_value element;
  napi_get_element(env, array, index, &element);
  return element;
}

int64_t intOf(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  double number;
  if (napi_get_value_double(env, value, &number) == napi_ok) {
    if (number != std::trunc(number) || std::abs(number) > 9007199254740992.0) refuse(plan, argument, env, value);
    return static_cast<int64_t>(number);
  }
  int64_t integer;
  bool lossless;
  if (napi_get_value_bigint_int64(env, value, &integer, &lossless) != napi_ok || !lossless)
    refuse(plan, argument, env, value);
  return integer;
}

double floatOf(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) refuse(plan, argument, env, value);
  return number;
}

bool boolOf(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  bool flag;
  if (napi_get_value_bool(env, value, &flag) != napi_ok) refuse(plan, argument, env, value);
  return flag;
}

const at::Tensor& tensorArgument(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  double handle;
  if (napi_get_value_double(env, value, &handle) != napi_ok) refuse(plan, argument, env, value);
  return tensorOf(handle);
}

c10::IValue scalarOf(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  if (type == napi_boolean) return boolOf(plan, argument, env, value);
  if (type == napi_bigint) return intOf(plan, argument, env, value);
  const double number = floatOf(plan, argument, env, value);
  // JavaScript has one kind of number; a whole one is an integer scalar, which PyTorch promotes to the tensor's dtype.
  if (number == std::trunc(number) && std::abs(number) < 9007199254740992.0) return static_cast<int64_t>(number);
  return number;
}

c10::MemoryFormat memoryFormatOf(const std::string& name) {
  if (name == "contiguous") return c10::MemoryFormat::Contiguous;
  if (name == "channelsLast") return c10::MemoryFormat::ChannelsLast;
  if (name == "preserve") return c10::MemoryFormat::Preserve;
  throw std::invalid_argument("expected 'contiguous', 'channelsLast' or 'preserve', received '" + name + "'");
}

c10::IValue convert(const Plan& plan, const Argument& argument, napi_env env, napi_value value) {
  switch (argument.kind) {
    case Kind::Tensor: return tensorArgument(plan, argument, env, value);
    case Kind::TensorList: {
      const uint32_t length = lengthOf(plan, argument, env, value);
      if (argument.optionalElements) {
        c10::List<std::optional<at::Tensor>> list;
        list.reserve(length);
        for (uint32_t i = 0; i < length; ++i) {
          napi_value element = elementOf(env, value, i);
          if (isNone(env, element)) list.push_back(std::nullopt);
          else list.push_back(tensorArgument(plan, argument, env, element));
        }
        return list;
      }
      c10::List<at::Tensor> list;
      list.reserve(length);
      for (uint32_t i = 0; i < length; ++i) list.push_back(tensorArgument(plan, argument, env, elementOf(env, value, i)));
      return list;
    }
    case Kind::Int: return intOf(plan, argument, env, value);
    case Kind::IntList: {
      bool isArray = false;
      napi_is_array(env, value, &isArray);
      c10::List<int64_t> list;
      if (!isArray) {  // int[2] takes one number for all, as in Python
        list.push_back(intOf(plan, argument, env, value));
        return list;
      }
      const uint32_t length = lengthOf(plan, argument, env, value);
      list.reserve(length);
      for (uint32_t i = 0; i < length; ++i) list.push_back(intOf(plan, argument, env, elementOf(env, value, i)));
      return list;
    }
    case Kind::Float: return floatOf(plan, argument, env, value);
    case Kind::FloatList: {
      const uint32_t length = lengthOf(plan, argument, env, value);
      c10::List<double> list;
      for (uint32_t i = 0; i < length; ++i) list.push_back(floatOf(plan, argument, env, elementOf(env, value, i)));
      return list;
    }
    case Kind::Bool: return boolOf(plan, argument, env, value);
    case Kind::BoolList: {
      const uint32_t length = lengthOf(plan, argument, env, value);
      c10::List<bool> list;
      for (uint32_t i = 0; i < length; ++i) list.push_back(boolOf(plan, argument, env, elementOf(env, value, i)));
      return list;
    }
    case Kind::Scalar: return scalarOf(plan, argument, env, value);
    case Kind::DType:
    case Kind::Device:
    case Kind::MemoryFormat:
    case Kind::String: {
      napi_valuetype type;
      napi_typeof(env, value, &type);
      if (type != napi_string) refuse(plan, argument, env, value);
      const std::string text = stringOf(env, value);
      if (argument.kind == Kind::DType) return dtypeOf(text);
      if (argument.kind == Kind::Device) return c10::Device(text);
      if (argument.kind == Kind::MemoryFormat) return memoryFormatOf(text);
      return text;
    }
    case Kind::Any: {
      napi_valuetype type;
      napi_typeof(env, value, &type);
      if (type == napi_string) return stringOf(env, value);
      return scalarOf(plan, argument, env, value);
    }
    case Kind::Unsupported: refuse(plan, argument, env, value);
  }
  refuse(plan, argument, env, value);
}

napi_value number(napi_env env, double value) {
  napi_value result;
  napi_create_double(env, value, &result);
  return result;
}

napi_value toJs(napi_env env, c10::IValue value) {
  napi_value result;
  if (value.isTensor()) return number(env, keepTensor(std::move(value).toTensor()));
  if (value.isInt()) return number(env, static_cast<double>(value.toInt()));
  if (value.isDouble()) return number(env, value.toDouble());
  if (value.isBool()) {
    napi_get_boolean(env, value.toBool(), &result);
    return result;
  }
  if (value.isString()) {
    const std::string& text = value.toStringRef();
    napi_create_string_utf8(env, text.data(), text.size(), &result);
    return result;
  }
  if (value.isScalar()) return number(env, value.toScalar().toDouble());
  if (value.isTensorList()) {
    const auto list = value.toTensorVector();
    napi_create_array_with_length(env, list.size(), &result);
    for (size_t i = 0; i < list.size(); ++i) napi_set_element(env, result, i, number(env, keepTensor(list[i])));
    return result;
  }
  if (value.isIntList()) {
    const auto list = value.toIntVector();
    napi_create_array_with_length(env, list.size(), &result);
    for (size_t i = 0; i < list.size(); ++i) napi_set_element(env, result, i, number(env, static_cast<double>(list[i])));
    return result;
  }
  if (value.isNone()) {
    napi_get_null(env, &result);
    return result;
  }
  throw std::runtime_error("an operator returned a " + value.tagKind() + ", which has no JavaScript form here");
}

napi_value callPlanned(napi_env env, napi_callback_info info) {
  constexpr size_t kMost = 40;
  napi_value given[kMost];
  size_t count = kMost;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, given, nullptr, &data);
  const Plan& plan = *static_cast<const Plan*>(data);
  return guarded(env, [&]() -> napi_value {
    const size_t expected = plan.arguments.size();
    if (count > expected)
      throw std::invalid_argument(plan.name + ": expected at most " + std::to_string(expected) + " arguments, received " +
                                  std::to_string(count));
    torch::jit::Stack stack;
    stack.reserve(std::max<size_t>(expected, 4));
    for (size_t i = 0; i < expected; ++i) {
      const Argument& argument = plan.arguments[i];
      napi_valuetype type = napi_undefined;
      if (i < count) napi_typeof(env, given[i], &type);
      if (type == napi_undefined) {
        if (!argument.hasDefault)
          throw std::invalid_argument(plan.name + ": argument '" + argument.name + "': expected " +
                                      describe(argument.kind) + ", received nothing");
        stack.push_back(argument.fallback);
      } else if (type == napi_null && argument.optional) {
        stack.emplace_back();
      } else {
        stack.push_back(convert(plan, argument, env, given[i]));
      }
    }
    plan.handle.callBoxed(&stack);
    switch (plan.result) {
      case Result::Nothing:
      case Result::Self: return nullptr;
      case Result::Tensor: return number(env, keepTensor(std::move(stack[0]).toTensor()));
      case Result::Other: return toJs(env, std::move(stack[0]));
      case Result::Several: break;
    }
    napi_value results;
    napi_create_array_with_length(env, stack.size(), &results);
    for (size_t i = 0; i < stack.size(); ++i) napi_set_element(env, results, i, toJs(env, std::move(stack[i])));
    return results;
  });
}

/// Plans live as long as the process: an operator is resolved once a thread, and its function holds the pointer.
const Plan& planOf(const std::string& name, const std::string& overload) {
  static thread_local std::unordered_map<std::string, std::unique_ptr<Plan>> plans;
  auto& slot = plans[name + "." + overload];
  if (slot) return *slot;
  auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!handle) throw std::invalid_argument("op: expected an operator of libtorch, received '" + name + (overload.empty() ? "" : "." + overload) + "'; check its name and overload");
  auto plan = std::make_unique<Plan>(Plan{*handle, overload.empty() ? name : name + "." + overload, {}, Result::Several});
  const auto& schema = handle->schema();
  for (const auto& argument : schema.arguments()) plan->arguments.push_back(planArgument(argument));
  const auto& returns = schema.returns();
  if (returns.empty()) plan->result = Result::Nothing;
  else if (returns.size() == 1) {
    const bool writes = returns[0].alias_info() && returns[0].alias_info()->isWrite();
    if (writes) plan->result = Result::Self;
    else plan->result = returns[0].type()->kind() == c10::TypeKind::TensorType ? Result::Tensor : Result::Other;
  }
  slot = std::move(plan);
  return *slot;
}

/// resolve(name, overload) -> { call, result: 'nothing' | 'self' | kinds.., schema }
Napi::Value Resolve(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Plan& plan = planOf(info[0].As<Napi::String>(), info[1].As<Napi::String>());
  napi_value function;
  napi_create_function(env, plan.name.c_str(), NAPI_AUTO_LENGTH, callPlanned, const_cast<Plan*>(&plan), &function);
  auto result = Napi::Object::New(env);
  result["call"] = Napi::Value(env, function);
  if (plan.result == Result::Nothing) result["result"] = "nothing";
  else if (plan.result == Result::Self) result["result"] = "self";
  else if (plan.result == Result::Tensor) result["result"] = "tensor";
  else result["result"] = plan.result == Result::Several ? "several" : "other";
  auto kinds = Napi::Array::New(env);
  uint32_t index = 0;
  for (const auto& returned : plan.handle.schema().returns()) {
    const Kind kind = kindOf(returned.type());
    kinds[index++] = kind == Kind::Tensor ? "tensor" : kind == Kind::TensorList ? "tensors" : "value";
  }
  result["kinds"] = kinds;
  std::ostringstream schema;
  schema << plan.handle.schema();
  result["schema"] = schema.str();
  return result;
}

}  // namespace

void InitOps(Napi::Env env, Napi::Object exports) {
  exports["resolve"] = Napi::Function::New(env, [](const Napi::CallbackInfo& info) -> Napi::Value {
    return Napi::Value(info.Env(), guarded(info.Env(), [&]() -> napi_value { return Resolve(info); }));
  });
}

}  // namespace sluice
