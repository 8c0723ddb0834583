// Image resize off the JavaScript thread: libtorch's antialiased bilinear and bicubic kernels on 8-bit RGB, the very ones
// behind torchvision's resize, so that pixels equal the reference's. Inputs and outputs stay in the memory of the typed
// arrays: nothing is copied between decoder, kernel and pixel values.
//
// cxxflags: -O3

#include "addon.h"

#include <ATen/Version.h>
#include <ATen/ops/_upsample_bicubic2d_aa.h>
#include <ATen/ops/_upsample_bilinear2d_aa.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <array>

// Spreading RGB to float planes is a third faster on an image as a whole where the compiler may use AVX2.
#if defined(__x86_64__) && defined(__GLIBC__)
#define SLUICE_WIDE __attribute__((target_clones("avx2", "default")))
#else
#define SLUICE_WIDE
#endif

namespace sluice {
namespace {

/// What becomes of a channel's 8-bit value v: v * by, or (v - shift) / by.
struct Scaling {
  std::array<float, 3> shift;
  std::array<float, 3> by;
  bool divide;
};

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

SLUICE_WIDE void spreadScaled(const uint8_t* __restrict pixels, int64_t count, const Scaling& scaling,
                              float* __restrict planes) {
  const auto [r, g, b] = scaling.by;
  float* __restrict red = planes;
  float* __restrict green = planes + count;
  float* __restrict blue = planes + 2 * count;
  for (int64_t i = 0; i < count; ++i) {
    red[i] = static_cast<float>(pixels[3 * i]) * r;
    green[i] = static_cast<float>(pixels[3 * i + 1]) * g;
    blue[i] = static_cast<float>(pixels[3 * i + 2]) * b;
  }
}

SLUICE_WIDE void spreadShifted(const uint8_t* __restrict pixels, int64_t count, const Scaling& scaling,
                               float* __restrict planes) {
  const auto [shiftR, shiftG, shiftB] = scaling.shift;
  const auto [r, g, b] = scaling.by;
  float* __restrict red = planes;
  float* __restrict green = planes + count;
  float* __restrict blue = planes + 2 * count;
  for (int64_t i = 0; i < count; ++i) {
    red[i] = (static_cast<float>(pixels[3 * i]) - shiftR) / r;
    green[i] = (static_cast<float>(pixels[3 * i + 1]) - shiftG) / g;
    blue[i] = (static_cast<float>(pixels[3 * i + 2]) - shiftB) / b;
  }
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

  /// Writes floats [3, height, width].
  void intoPlanes(Napi::Float32Array output, const Scaling& scaling) {
    output_ = Napi::Persistent(output.As<Napi::Object>());
    planes_ = output.Data();
    scaling_ = scaling;
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
    } else if (scaling_.divide) {
      spreadShifted(pixels, to_.pixels(), scaling_, planes_);
    } else {
      spreadScaled(pixels, to_.pixels(), scaling_, planes_);
    }
  }

  Napi::Promise::Deferred deferred_;
  Napi::ObjectReference input_;
  Napi::ObjectReference output_;
  uint8_t* pixels_;
  uint8_t* bytes_ = nullptr;
  float* planes_ = nullptr;
  Scaling scaling_{};
  Size from_;
  Size to_;
  bool cubic_;
};

/// (data, height, width, outHeight, outWidth, cubic, output): output holds 3 values a pixel.
Resize* workerOf(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto data = info[0].As<Napi::Uint8Array>();
  const Size from{info[1].As<Napi::Number>().Int64Value(), info[2].As<Napi::Number>().Int64Value()};
  const Size to{info[3].As<Napi::Number>().Int64Value(), info[4].As<Napi::Number>().Int64Value()};
  constexpr int64_t longest = 1 << 20;
  const bool sized = from.height > 0 && from.width > 0 && to.height > 0 && to.width > 0 && from.height < longest &&
                     from.width < longest && to.height < longest && to.width < longest;
  const auto values = [](const Napi::TypedArray& array) { return static_cast<int64_t>(array.ElementLength()); };
  if (!sized || values(data) != from.pixels() * 3 || values(info[6].As<Napi::TypedArray>()) != to.pixels() * 3) {
    throw Napi::RangeError::New(env, "resize: the pixels do not fit the sizes");
  }
  return new Resize(env, data, from, to, info[5].ToBoolean());
}

Napi::Value resizeRgb(const Napi::CallbackInfo& info) {
  Resize* worker = workerOf(info);
  worker->intoBytes(info[6].As<Napi::Uint8Array>());
  worker->Queue();
  return worker->promise();
}

/// Beside the others: shift and by, a Float32Array of 6, and whether to divide.
Napi::Value resizeRgbToPlanes(const Napi::CallbackInfo& info) {
  const auto numbers = info[7].As<Napi::Float32Array>();
  if (numbers.ElementLength() != 6) throw Napi::RangeError::New(info.Env(), "resize: six numbers scale the values");
  const Scaling scaling{
      {numbers[0], numbers[1], numbers[2]}, {numbers[3], numbers[4], numbers[5]}, info[8].ToBoolean()};
  Resize* worker = workerOf(info);
  worker->intoPlanes(info[6].As<Napi::Float32Array>(), scaling);
  worker->Queue();
  return worker->promise();
}

}  // namespace

void InitImage(Napi::Env env, Napi::Object exports) {
  exports.Set("resizeRgb", Napi::Function::New(env, resizeRgb));
  exports.Set("resizeRgbToPlanes", Napi::Function::New(env, resizeRgbToPlanes));
}

}  // namespace sluice
