// Image resize off the JavaScript thread: libtorch's antialiased bilinear and bicubic kernels on 8-bit RGB, the very ones
// behind torchvision's resize, so that pixels equal the reference's. Inputs and outputs stay in the memory of the typed
// arrays: nothing is copied between decoder, kernel and pixel values.

#include "addon.h"

#include <ATen/Version.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <array>

namespace sluice {
namespace {

struct Size {
  int64_t height;
  int64_t width;
  int64_t pixels() const { return height * width; }
};

/// [1, 3, H, W] over pixels that lie row by row, RGB.
at::Tensor overPixels(uint8_t* data, Size size) {
  const std::array<int64_t, 4> sizes{1, 3, size.height, size.width};
  const std::array<int64_t, 4> strides{size.pixels() * 3, 1, size.width * 3, 3};
  return at::from_blob(data, sizes, strides, at::kByte);
}

at::Tensor resized(const at::Tensor& image, Size to, bool cubic) {
  const std::array<int64_t, 2> size{to.height, to.width};
  return cubic ? at::_upsample_bicubic2d_aa(image, size, /*align_corners=*/false)
               : at::_upsample_bilinear2d_aa(image, size, /*align_corners=*/false);
}

/// torchvision takes the 8-bit bilinear kernel only where it is vectorised, and computes in float32 elsewhere.
bool hasByteKernel(bool cubic) {
#if defined(__aarch64__)
  return true;
#else
  static const std::string capability = at::get_cpu_capability();
  return cubic || capability == "AVX2" || capability == "AVX512";
#endif
}

class Resize : public Napi::AsyncWorker {
 public:
  Resize(Napi::Env env, Napi::Uint8Array input, Size from, Size to, bool cubic)
      : Napi::AsyncWorker(env, "sluice.resize"),
        deferred_(Napi::Promise::Deferred::New(env)),
        input_(Napi::Persistent(input.As<Napi::Object>())),
        pixels_(input.Data()),
        from_(from),
        to_(to),
        cubic_(cubic) {}

  /// Gives bytes [height, width, 3].
  void intoBytes(Napi::Uint8Array output) {
    output_ = Napi::Persistent(output.As<Napi::Object>());
    bytes_ = output.Data();
  }

  /// Gives floats [3, height, width], channel c's value v replaced by table[256 c + v].
  void intoPlanes(Napi::Float32Array output, Napi::Float32Array table) {
    output_ = Napi::Persistent(output.As<Napi::Object>());
    planes_ = output.Data();
    std::copy_n(table.Data(), table_.size(), table_.begin());
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      const c10::InferenceMode guard;
      run();
    } catch (const c10::Error& error) {
      SetError(error.what_without_backtrace());
    }
  }

  void OnOK() override { deferred_.Resolve(output_.Value()); }

  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  void run() {
    const bool same = from_.height == to_.height && from_.width == to_.width;
    const uint8_t* pixels = pixels_;
    at::Tensor result;
    if (!same) {
      auto image = overPixels(pixels_, from_);
      if (hasByteKernel(cubic_)) {
        result = resized(image, to_, cubic_);
      } else {
        result = resized(image.to(at::kFloat), to_, cubic_).round_().clamp_(0, 255).to(at::kByte);
      }
      result = result.contiguous(at::MemoryFormat::ChannelsLast);
      pixels = result.const_data_ptr<uint8_t>();
    }
    if (bytes_) {
      std::copy_n(pixels, to_.pixels() * 3, bytes_);
    } else {
      spread(pixels);
    }
  }

  void spread(const uint8_t* pixels) {
    const int64_t count = to_.pixels();
    const float* red = table_.data();
    const float* green = red + 256;
    const float* blue = green + 256;
    for (int64_t i = 0; i < count; ++i) {
      planes_[i] = red[pixels[3 * i]];
      planes_[count + i] = green[pixels[3 * i + 1]];
      planes_[2 * count + i] = blue[pixels[3 * i + 2]];
    }
  }

  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference input_;
  Napi::ObjectReference output_;
  uint8_t* pixels_;
  uint8_t* bytes_ = nullptr;
  float* planes_ = nullptr;
  std::array<float, 768> table_{};
  Size from_;
  Size to_;
  bool cubic_;
};

/// (data, height, width, outHeight, outWidth, cubic, table?)
Resize* workerOf(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto data = info[0].As<Napi::Uint8Array>();
  const Size from{info[1].As<Napi::Number>().Int64Value(), info[2].As<Napi::Number>().Int64Value()};
  const Size to{info[3].As<Napi::Number>().Int64Value(), info[4].As<Napi::Number>().Int64Value()};
  constexpr int64_t longest = 1 << 20;
  const bool sized = from.height > 0 && from.width > 0 && to.height > 0 && to.width > 0 && from.height < longest &&
                     from.width < longest && to.height < longest && to.width < longest;
  if (!sized || static_cast<int64_t>(data.ElementLength()) != from.pixels() * 3) {
    throw Napi::RangeError::New(env, "resize: the pixels do not fit the sizes");
  }
  return new Resize(env, data, from, to, info[5].ToBoolean());
}

int64_t outputLength(const Napi::CallbackInfo& info) {
  return 3 * info[3].As<Napi::Number>().Int64Value() * info[4].As<Napi::Number>().Int64Value();
}

Napi::Value resizeRgb(const Napi::CallbackInfo& info) {
  Resize* worker = workerOf(info);
  worker->intoBytes(Napi::Uint8Array::New(info.Env(), outputLength(info)));
  worker->Queue();
  return worker->promise();
}

Napi::Value resizeRgbToPlanes(const Napi::CallbackInfo& info) {
  const auto table = info[6].As<Napi::Float32Array>();
  if (table.ElementLength() != 768) throw Napi::RangeError::New(info.Env(), "resize: the table must hold 768 values");
  Resize* worker = workerOf(info);
  worker->intoPlanes(Napi::Float32Array::New(info.Env(), outputLength(info)), table);
  worker->Queue();
  return worker->promise();
}

}  // namespace

void InitImage(Napi::Env env, Napi::Object exports) {
  exports.Set("resizeRgb", Napi::Function::New(env, resizeRgb));
  exports.Set("resizeRgbToPlanes", Napi::Function::New(env, resizeRgbToPlanes));
}

}  // namespace sluice
