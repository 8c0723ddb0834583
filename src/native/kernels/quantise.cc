// Frozen weights in few bits, made of numbers and turned back into them:
//
//   sluice::nf4_quantise(weight, block) -> packed, absmax
//   sluice::nest_scales(absmax) -> codes, nested, offset
//   sluice::int8_quantise(weight) -> packed, absmax
//   sluice::dequantise(packed, absmax, nested?, offset?, rows, size, block, first, count, dtype): rows [first, first + count)
//   sluice::dequantise_rows(packed, absmax, nested?, offset?, rows, size, block, ids, dtype): these rows
//
// NF4 with double quantisation (arXiv:2305.14314) in bitsandbytes' format, and values equal to those that it makes on a CPU:
// blocks in row-major order, the first of two codes in the high half of a byte; the blocks' largest magnitudes less their
// mean in the dynamic 8-bit type, in blocks of 256. A weight may be quantised some rows at a time, where these are whole
// blocks. int8 is a row's numbers over its largest magnitude, times 127.

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

#include "builds.h"
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
                    const std::optional<Tensor>& offset, int64_t rows, int64_t size, int64_t block) {
  const Quantised weight{packed,
                         absmax,
                         has(nested) ? *nested : Tensor(),
                         has(offset) ? *offset : Tensor(),
                         rows,
                         size,
                         block};
  const bool isNf4 = weight.isNf4(), isNested = weight.isNested();
  const int64_t scales = !isNf4 ? rows : block > 0 ? (rows * size + block - 1) / block : 0;
  const bool fits = packed.is_contiguous() && absmax.is_contiguous() && absmax.numel() == scales &&
                    packed.numel() == (isNf4 ? (rows * size + 1) / 2 : rows * size) &&
                    (isNf4 || packed.scalar_type() == at::kChar) &&
                    ((isNf4 && isNested) || absmax.scalar_type() == at::kFloat) &&
                    (isNested ? weight.nested.defined() && weight.offset.defined() &&
                                    weight.nested.scalar_type() == at::kFloat && weight.nested.is_contiguous() &&
                                    weight.nested.numel() == (scales + kNestedBlock - 1) / kNestedBlock &&
                                    weight.offset.scalar_type() == at::kFloat && weight.offset.numel() == 1
                              : !weight.nested.defined() && !weight.offset.defined());
  TORCH_CHECK(rows > 0 && size > 0 && fits, "quantised weight: expected the parts of one of [", rows, ", ", size,
              "], received packed ", packed.sizes(), " and absmax ", absmax.sizes());
  return weight;
}

RowReader::RowReader(const Quantised& weight)
    : isNf4_(weight.isNf4()),
      size_(weight.size),
      packed_(static_cast<const uint8_t*>(weight.packed.const_data_ptr())),
      scales_{weight.block,
              weight.isNested() ? nullptr : weight.absmax.const_data_ptr<float>(),
              weight.isNested() ? weight.absmax.const_data_ptr<uint8_t>() : nullptr,
              weight.isNested() ? weight.nested.const_data_ptr<float>() : nullptr,
              weight.isNested() ? *weight.offset.const_data_ptr<float>() : 0,
              dynamicMap()} {}

namespace {

bool takes(const Quantised& weight, at::ScalarType dtype) {
  return hasLanes() && weight.packed.is_cpu() && (dtype == at::kFloat || dtype == at::kBFloat16);
}

template <class T>
void numbersAs(const Quantised& weight, int64_t row, int64_t count, int64_t column, int64_t width, T* to) {
  const RowReader reader(weight);
  inShares(numShares(count, width), count, [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) reader.read(row + n, column, width, to + n * width);
  });
}

/// Without kernels: another device's or processor's own operators, all in float32.
Tensor composedNumbers(const Quantised& weight, int64_t row, int64_t count, int64_t column, int64_t width) {
  if (!weight.isNf4()) {
    const Tensor codes = weight.packed.view({weight.rows, weight.size}).narrow(0, row, count).narrow(1, column, width);
    return codes.to(at::kFloat).mul(weight.absmax.narrow(0, row, count).unsqueeze(1)).mul(0.007874015718698502);
  }
  const auto options = weight.packed.options().dtype(at::kFloat);
  const int64_t begin = row * weight.size, end = begin + count * weight.size;
  const int64_t firstByte = begin / 2, firstBlock = begin / weight.block;
  const Tensor bytes = weight.packed.flatten().narrow(0, firstByte, (end + 1) / 2 - firstByte).to(at::kLong);
  const Tensor pairs = at::empty({bytes.numel(), 2}, bytes.options());
  pairs.select(1, 0).copy_(bytes.floor_divide(16));
  pairs.select(1, 1).copy_(bytes.remainder(16));
  const Tensor codes = pairs.flatten().narrow(0, begin % 2, end - begin);
  Tensor nf4 = at::empty({16}, options.device(at::kCPU)), map = at::empty({256}, options.device(at::kCPU));
  std::copy_n(kNf4, 16, nf4.data_ptr<float>());
  std::copy_n(dynamicMap(), 256, map.data_ptr<float>());
  nf4 = nf4.to(options.device()), map = map.to(options.device());
  const int64_t blocks = (end + weight.block - 1) / weight.block - firstBlock;
  Tensor scales = weight.absmax.flatten().narrow(0, firstBlock, blocks);
  if (weight.isNested()) {
    const Tensor outer = weight.nested.repeat_interleave(kNestedBlock).narrow(0, firstBlock, blocks);
    scales = map.index_select(0, scales.to(at::kLong)).mul(outer).add(weight.offset);
  }
  const Tensor own = scales.repeat_interleave(weight.block).narrow(0, begin - firstBlock * weight.block, end - begin);
  return nf4.index_select(0, codes).mul(own).view({count, weight.size}).narrow(1, column, width);
}

}  // namespace

Tensor Quantised::numbers(int64_t row, int64_t count, int64_t column, int64_t width, at::ScalarType dtype) const {
  if (!takes(*this, dtype)) return composedNumbers(*this, row, count, column, width).to(dtype).contiguous();
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

std::tuple<Tensor, Tensor> nf4Quantise(const Tensor& weight, int64_t blockSize) {
  TORCH_CHECK(blockSize >= 32 && blockSize <= 4096 && (blockSize & (blockSize - 1)) == 0,
              "nf4_quantise: expected blocks of a power of two from 32 to 4096, received ", blockSize);
  const Tensor flat = flatFloats(weight, "nf4_quantise");
  const int64_t count = flat.numel(), blocks = (count + blockSize - 1) / blockSize;
  const Tensor packed = at::zeros({(count + 1) / 2}, flat.options().dtype(at::kByte));
  const Tensor largest = at::empty({blocks}, flat.options());
  const float* from = flat.const_data_ptr<float>();
  uint8_t* to = packed.mutable_data_ptr<uint8_t>();
  float* absmax = largest.mutable_data_ptr<float>();
  float middles[15];
  for (int i = 0; i < 15; ++i) middles[i] = (kNf4[i] + kNf4[i + 1]) / 2;
  inShares(numShares(blocks, blockSize * 8), blocks, [&](int64_t, int64_t begin, int64_t end) {
    std::vector<uint8_t> codes(blockSize + 1);
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * blockSize, size = std::min(blockSize, count - first);
      const bool isWhole = size == blockSize;
      float most = 0;
      for (int64_t i = 0; i < size; ++i) most = std::max(most, std::fabs(from[first + i]));
      const float divisor = std::max(most, 1e-38f), factor = 1.0f / divisor;
      absmax[block] = isWhole ? most : divisor;
      for (int64_t i = 0; i < size; ++i) {
        // A block that is not whole is divided: the reference rounds it so.
        const float number = isWhole ? from[first + i] * factor : from[first + i] / divisor;
        uint8_t code = 0;
        for (const float middle : middles) code += number > middle;
        codes[i] = code;
      }
      codes[size] = 7;  // 0, beside the last of an odd number
      for (int64_t i = 0; i < size; i += 2) to[(first + i) / 2] = static_cast<uint8_t>(codes[i] << 4 | codes[i + 1]);
    }
  });
  return {packed.to(weight.device()), largest.to(weight.device())};
}

std::tuple<Tensor, Tensor, Tensor> nestScales(const Tensor& absmax) {
  const Tensor largest = flatFloats(absmax, "nest_scales");
  const int64_t blocks = largest.numel(), outer = (blocks + kNestedBlock - 1) / kNestedBlock;
  const Tensor offset = at::mean(largest), rest = largest - offset;
  const Tensor small = at::empty({blocks}, largest.options().dtype(at::kByte)), nested = at::empty({outer}, largest.options());
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
  const auto device = absmax.device();
  return {small.to(device), nested.to(device), offset.to(device)};
}

std::tuple<Tensor, Tensor> int8Quantise(const Tensor& weight) {
  TORCH_CHECK(weight.dim() == 2, "int8_quantise: expected a matrix, received ", weight.sizes());
  const Tensor wide = flatFloats(weight, "int8_quantise").view(weight.sizes());
  const Tensor absmax = wide.abs().amax(1);
  // 127 times the reciprocal, not 127 over it: the reference rounds it so. A row of zeros stays one.
  const Tensor factor = at::empty({absmax.numel()}, absmax.options());
  for (int64_t row = 0; row < absmax.numel(); ++row) {
    const float most = absmax.const_data_ptr<float>()[row];
    factor.mutable_data_ptr<float>()[row] = most > 0 ? 1.0f / most * 127.0f : 0.0f;
  }
  const Tensor packed = wide.mul(factor.unsqueeze(1)).round().clamp(-127, 127).to(at::kChar);
  return {packed.to(weight.device()), absmax.to(weight.device())};
}

Tensor dequantise(const Tensor& packed, const Tensor& absmax, const std::optional<Tensor>& nested,
                  const std::optional<Tensor>& offset, int64_t rows, int64_t size, int64_t block, int64_t first,
                  int64_t count, at::ScalarType dtype) {
  TORCH_CHECK(first >= 0 && count > 0 && first + count <= rows, "dequantise: expected some of ", rows,
              " rows, received ", count, " from ", first);
  return quantised(packed, absmax, nested, offset, rows, size, block).numbers(first, count, 0, size, dtype);
}

template <class T>
void rowsAs(const Quantised& weight, const Tensor& ids, const Tensor& to) {
  const RowReader reader(weight);
  const int64_t* rows = ids.const_data_ptr<int64_t>();
  T* numbers = static_cast<T*>(to.mutable_data_ptr());
  inShares(numShares(ids.numel(), weight.size), ids.numel(), [&](int64_t, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) reader.read(rows[i], 0, weight.size, numbers + i * weight.size);
  });
}

Tensor dequantiseRows(const Tensor& packed, const Tensor& absmax, const std::optional<Tensor>& nested,
                      const std::optional<Tensor>& offset, int64_t rows, int64_t size, int64_t block, const Tensor& ids,
                      at::ScalarType dtype) {
  const Quantised weight = quantised(packed, absmax, nested, offset, rows, size, block);
  const Tensor wanted = ids.to(at::kCPU, at::kLong).contiguous();
  const int64_t* numbers = wanted.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < wanted.numel(); ++i)
    TORCH_CHECK(numbers[i] >= 0 && numbers[i] < rows, "dequantise_rows: expected rows below ", rows, ", received ", numbers[i]);
  auto shape = ids.sizes().vec();
  shape.push_back(size);
  const Tensor to = at::empty({wanted.numel(), size}, packed.options().dtype(dtype));
  if (takes(weight, dtype)) {
    if (dtype == at::kFloat) rowsAs<float>(weight, wanted, to);
    else rowsAs<uint16_t>(weight, wanted, to);
  } else {
    for (int64_t i = 0; i < wanted.numel(); ++i) to.narrow(0, i, 1).copy_(weight.numbers(numbers[i], 1, 0, size, dtype));
  }
  return to.view(shape);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def("nf4_quantise(Tensor weight, int block=64) -> (Tensor, Tensor)");
  m.def("nest_scales(Tensor absmax) -> (Tensor, Tensor, Tensor)");
  m.def("int8_quantise(Tensor weight) -> (Tensor, Tensor)");
  m.def("dequantise(Tensor packed, Tensor absmax, Tensor? nested, Tensor? offset, int rows, int size, int block, int first, "
        "int count, ScalarType dtype) -> Tensor");
  m.def("dequantise_rows(Tensor packed, Tensor absmax, Tensor? nested, Tensor? offset, int rows, int size, int block, "
        "Tensor ids, ScalarType dtype) -> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeExplicitAutograd, m) {
  m.impl("nf4_quantise", nf4Quantise);
  m.impl("nest_scales", nestScales);
  m.impl("int8_quantise", int8Quantise);
  m.impl("dequantise", dequantise);
  m.impl("dequantise_rows", dequantiseRows);
}

}  // namespace
}  // namespace sluice
