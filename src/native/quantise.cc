// Frozen weights in few bits, made of numbers and turned back into them:
//
//   sluice::nf4_quantise(weight) -> packed, absmax, nested, offset
//   sluice::int8_quantise(weight) -> packed, absmax
//   sluice::dequantise(packed, absmax, nested?, offset?, rows, size, first, count, dtype) -> rows [first, first + count)
//
// NF4 with double quantisation (arXiv:2305.14314) in bitsandbytes' format, and values equal to those that it makes on a CPU:
// blocks of 64 in row-major order, the first of two codes in the high half of a byte; the blocks' largest magnitudes less
// their mean in the dynamic 8-bit type, in blocks of 256. int8 is a row's numbers over its largest magnitude, times 127.

#include "quantised.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "composed.h"
#include "quantised-codes.h"
#include "quantised-kernels.h"
#include "shares.h"

namespace sluice {

using at::Tensor;

const float* dynamicMap() {
  static const std::array<float, 256> map = [] {
    std::array<float, 256> numbers;
    for (int64_t code = 0; code < 256; ++code) numbers[code] = dynamicNumber(code);
    return numbers;
  }();
  return map.data();
}

Quantised quantised(const Tensor& packed, const Tensor& absmax, const std::optional<Tensor>& nested,
                    const std::optional<Tensor>& offset, int64_t rows, int64_t size) {
  const Quantised weight{packed, absmax, has(nested) ? *nested : Tensor(), has(offset) ? *offset : Tensor(), rows, size};
  const int64_t blocks = (rows * size + kNf4Block - 1) / kNf4Block;
  const bool fits =
      weight.isNf4() ? packed.numel() == (rows * size + 1) / 2 && absmax.scalar_type() == at::kByte &&
                           absmax.numel() == blocks && weight.nested.defined() && weight.offset.defined() &&
                           weight.nested.scalar_type() == at::kFloat && weight.offset.scalar_type() == at::kFloat &&
                           weight.nested.numel() == (blocks + kNestedBlock - 1) / kNestedBlock &&
                           weight.offset.numel() == 1 && weight.nested.is_contiguous()
                     : packed.scalar_type() == at::kChar && packed.numel() == rows * size &&
                           absmax.scalar_type() == at::kFloat && absmax.numel() == rows;
  TORCH_CHECK(rows > 0 && size > 0 && fits && packed.is_contiguous() && absmax.is_contiguous(),
              "quantised weight: expected the parts of one of [", rows, ", ", size, "], received packed ", packed.sizes(),
              " and absmax ", absmax.sizes());
  return weight;
}

namespace {

template <class T>
void numbersAs(const Quantised& weight, int64_t row, int64_t count, int64_t column, int64_t width, T* to) {
  const bool isNf4 = weight.isNf4();
  const auto* packed = static_cast<const uint8_t*>(weight.packed.const_data_ptr());
  const void* absmax = weight.absmax.const_data_ptr();
  const float* nested = isNf4 ? weight.nested.const_data_ptr<float>() : nullptr;
  const float offset = isNf4 ? *weight.offset.const_data_ptr<float>() : 0;
  const float* map = dynamicMap();
  inShares(numShares(count, width), count, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const int64_t first = (row + n) * weight.size + column;
      if (isNf4) {
        nf4Numbers(packed, static_cast<const uint8_t*>(absmax), nested, offset, map, first, first + width, to + n * width);
      } else {
        int8Numbers(reinterpret_cast<const int8_t*>(packed) + (row + n) * weight.size,
                    static_cast<const float*>(absmax)[row + n], column, column + width, to + n * width);
      }
    }
  });
}

/// Without kernels: another device's or processor's own operators, all in float32.
Tensor composedNumbers(const Quantised& weight, int64_t row, int64_t count, int64_t column, int64_t width) {
  if (!weight.isNf4()) {
    const Tensor codes = weight.packed.view({weight.rows, weight.size}).narrow(0, row, count).narrow(1, column, width);
    return codes.to(at::kFloat).mul(weight.absmax.narrow(0, row, count).unsqueeze(1)).mul(0.007874015718698502);
  }
  const auto options = weight.nested.options();
  const int64_t begin = row * weight.size, end = begin + count * weight.size;
  const int64_t firstByte = begin / 2, firstBlock = begin / kNf4Block;
  const Tensor bytes = weight.packed.flatten().narrow(0, firstByte, (end + 1) / 2 - firstByte).to(at::kLong);
  const Tensor pairs = at::empty({bytes.numel(), 2}, bytes.options());
  pairs.select(1, 0).copy_(bytes.floor_divide(16));
  pairs.select(1, 1).copy_(bytes.remainder(16));
  const Tensor codes = pairs.flatten().narrow(0, begin % 2, end - begin);
  Tensor nf4 = at::empty({16}, options.device(at::kCPU)), map = at::empty({256}, options.device(at::kCPU));
  std::copy_n(kNf4, 16, nf4.data_ptr<float>());
  std::copy_n(dynamicMap(), 256, map.data_ptr<float>());
  nf4 = nf4.to(options.device()), map = map.to(options.device());
  const int64_t blocks = (end + kNf4Block - 1) / kNf4Block - firstBlock;
  const Tensor outer = weight.nested.repeat_interleave(kNestedBlock).narrow(0, firstBlock, blocks);
  const Tensor inner = map.index_select(0, weight.absmax.flatten().narrow(0, firstBlock, blocks).to(at::kLong));
  const Tensor scales = inner.mul(outer).add(weight.offset).repeat_interleave(kNf4Block);
  const Tensor own = scales.narrow(0, begin - firstBlock * kNf4Block, end - begin);
  return nf4.index_select(0, codes).mul(own).view({count, weight.size}).narrow(1, column, width);
}

}  // namespace

Tensor Quantised::numbers(int64_t row, int64_t count, int64_t column, int64_t width, at::ScalarType dtype) const {
  const bool takes = hasQuantisedKernels() && packed.is_cpu() && (dtype == at::kFloat || dtype == at::kBFloat16);
  if (!takes) return composedNumbers(*this, row, count, column, width).to(dtype).contiguous();
  const Tensor to = at::empty({count, width}, packed.options().dtype(dtype));
  if (dtype == at::kFloat) numbersAs(*this, row, count, column, width, static_cast<float*>(to.mutable_data_ptr()));
  else numbersAs(*this, row, count, column, width, static_cast<uint16_t*>(to.mutable_data_ptr()));
  return to;
}

namespace {

Tensor flatFloats(const Tensor& weight, const char* where) {
  TORCH_CHECK(weight.is_floating_point() && weight.numel() > 0, where, ": expected floats, received ",
              weight.scalar_type(), " of ", weight.sizes());
  const Tensor flat = weight.detach().to(at::kCPU, at::kFloat).contiguous().view(-1);
  TORCH_CHECK(std::isfinite(flat.abs().amax().item<float>()), where, ": expected finite numbers, received inf or NaN");
  return flat;
}

/// The dynamic type's code of numbers in [-1, 1] by steps of 2 / 65535, as bitsandbytes looks them up on a CPU.
const std::vector<uint8_t>& dynamicCodes() {
  static const std::vector<uint8_t> codes = [] {
    std::vector<uint8_t> made(65536);
    const float* map = dynamicMap();
    for (int64_t i = 0; i < 65536; ++i) {
      const float number = -1.0f + 2.0f * static_cast<float>(i) / 65535.0f;
      const float* right = std::lower_bound(map, map + 256, number);
      int64_t code = std::min<int64_t>(right - map, 255);
      if (code > 0 && std::fabs(number - map[code - 1]) <= std::fabs(number - map[code])) --code;
      made[i] = static_cast<uint8_t>(code);
    }
    return made;
  }();
  return codes;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> nf4Quantise(const Tensor& weight) {
  const Tensor flat = flatFloats(weight, "nf4_quantise");
  const int64_t count = flat.numel(), blocks = (count + kNf4Block - 1) / kNf4Block;
  const int64_t outer = (blocks + kNestedBlock - 1) / kNestedBlock;
  const auto bytes = flat.options().dtype(at::kByte);
  const Tensor packed = at::zeros({(count + 1) / 2}, bytes), largest = at::empty({blocks}, flat.options());
  const float* from = flat.const_data_ptr<float>();
  uint8_t* to = packed.mutable_data_ptr<uint8_t>();
  float* absmax = largest.mutable_data_ptr<float>();
  float middles[15];
  for (int i = 0; i < 15; ++i) middles[i] = (kNf4[i] + kNf4[i + 1]) / 2;
  inShares(numShares(blocks, kNf4Block * 8), blocks, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kNf4Block, size = std::min(kNf4Block, count - first);
      const bool isWhole = size == kNf4Block;
      float most = 0;
      for (int64_t i = 0; i < size; ++i) most = std::max(most, std::fabs(from[first + i]));
      const float divisor = std::max(most, 1e-38f), factor = 1.0f / divisor;
      absmax[block] = isWhole ? most : divisor;
      uint8_t codes[kNf4Block + 1] = {};
      codes[size] = 7;  // 0, beside the last of an odd number
      for (int64_t i = 0; i < size; ++i) {
        // A block that is not whole is divided: the reference rounds it so.
        const float number = isWhole ? from[first + i] * factor : from[first + i] / divisor;
        for (const float middle : middles) codes[i] += number > middle;
      }
      for (int64_t i = 0; i < size; i += 2) to[(first + i) / 2] = static_cast<uint8_t>(codes[i] << 4 | codes[i + 1]);
    }
  });
  const Tensor offset = at::mean(largest), rest = largest - offset;
  const Tensor small = at::empty({blocks}, bytes), nested = at::empty({outer}, flat.options());
  const float* numbers = rest.const_data_ptr<float>();
  const auto& table = dynamicCodes();
  for (int64_t block = 0; block < outer; ++block) {
    const int64_t first = block * kNestedBlock, end = std::min(blocks, first + kNestedBlock);
    float most = 0;
    for (int64_t i = first; i < end; ++i) most = std::max(most, std::fabs(numbers[i]));
    nested.mutable_data_ptr<float>()[block] = most;
    const float factor = 1.0f / most;
    for (int64_t i = first; i < end; ++i) {
      const float number = most > 0 ? std::clamp(numbers[i] * factor, -1.0f, 1.0f) : -1.0f;
      small.mutable_data_ptr<uint8_t>()[i] = table[static_cast<int64_t>((number + 1.0f) * 32767.5f + 0.5f)];
    }
  }
  const auto device = weight.device();
  return {packed.to(device), small.to(device), nested.to(device), offset.to(device)};
}

std::tuple<Tensor, Tensor> int8Quantise(const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2, "int8_quantise: expected a matrix, received ", weight.sizes());
  const Tensor wide = flatFloats(weight, "int8_quantise").view(weight.sizes());
  const Tensor absmax = wide.abs().amax(1);
  // A row of zeros stays one.
  const Tensor factor = at::empty({absmax.numel()}, absmax.options());
  for (int64_t row = 0; row < absmax.numel(); ++row) {
    const float most = absmax.const_data_ptr<float>()[row];
    factor.mutable_data_ptr<float>()[row] = most > 0 ? 127.0f / most : 0.0f;
  }
  const Tensor packed = wide.mul(factor.unsqueeze(1)).round().clamp(-127, 127).to(at::kChar);
  return {packed.to(weight.device()), absmax.to(weight.device())};
}

Tensor dequantise(const Tensor& packed, const Tensor& absmax, const std::optional<Tensor>& nested,
                  const std::optional<Tensor>& offset, int64_t rows, int64_t size, int64_t first, int64_t count,
                  at::ScalarType dtype) {
  TORCH_CHECK(first >= 0 && count > 0 && first + count <= rows, "dequantise: expected some of ", rows,
              " rows, received ", count, " from ", first);
  return quantised(packed, absmax, nested, offset, rows, size).numbers(first, count, 0, size, dtype);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("nf4_quantise(Tensor weight) -> (Tensor, Tensor, Tensor, Tensor)");
  m.def("int8_quantise(Tensor weight) -> (Tensor, Tensor)");
  m.def("dequantise(Tensor packed, Tensor absmax, Tensor? nested, Tensor? offset, int rows, int size, int first, int count, "
        "ScalarType dtype) -> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeExplicitAutograd, m) {
  m.impl("nf4_quantise", nf4Quantise);
  m.impl("int8_quantise", int8Quantise);
  m.impl("dequantise", dequantise);
}

}  // namespace
}  // namespace sluice
