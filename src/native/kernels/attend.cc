// Attention of several queries, forward and backward, on a CPU:
//
//   sluice::attend(q, k, v, mask, starts, window, scale, dropout, products) = softmax(scale q k^T) v in each head
//
// q [B, N, T, D], k and v [B, K, S, D], K dividing N: heads that share keys read the same ones, none is repeated. The queries
// are the last T of S places. A query sees its own place and those before, at most `window` of them, none before its
// entry in starts [B or 1, T] (int32), where several sequences share a row, and of those where mask (bool [B or 1, 1, T or
// 1, S]) is true. One that sees nothing yields zeros. The result lies as [B, T, N, D].
//
// Blocks of queries meet tiles of keys: scores, softmax and sums of a block stay in a core's cache, and what no query of a
// block sees is left out (FlashAttention-2, arXiv:2307.08691, of which the backward pass is as well: it keeps a number a
// query and computes the weights again). Sums are in float32. A thread takes whichever task is next, but each sum is
// one task's, or of a fixed order, so results depend on the number of threads alone. First derivatives only.
//
// What the kernels do not take (other devices and dtypes, dropout, head sizes that are no multiple of 16 or above 256) goes
// to libtorch's own operator. There, a mask of several queries is taken to hide whatever they do not see.
//
// Shapes: B batch, N heads, K key/value heads, T queries, S keys, D head size.

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <atomic>
#include <numeric>
#include <vector>

#include "attend-plan.h"
#include "attend-products.h"
#include "builds.h"
#include "composed.h"
#include "rows.h"

namespace sluice {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Maybe = std::optional<Tensor>;

/// Keys that a block's queries meet at once, and the width of the scores' rows: not a power of two, so that the lines of a
/// column do not fall on each other in the cache.
constexpr int64_t kChunk = 512, kScoreStride = kChunk + 16;
constexpr int64_t kMostParts = 16;

/// body(task) for each of `count` tasks, on whichever thread is free.
template <class C, class Body>
void inTurns(int64_t count, int64_t numbers, const Body& body) {
  std::atomic<int64_t> next{0};
  const int64_t threads = numShares(count, numbers);
  inShares(threads, threads, [&](int64_t, int64_t, int64_t) {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(task);
    endProducts(C{});
  });
}

/// Memory of a thread, in pieces that are kept for later calls.
class Scratch {
 public:
  template <class C>
  C* take(int64_t numbers) {
    return static_cast<C*>(takeBytes(numbers * sizeof(C)));
  }

 private:
  void* takeBytes(size_t bytes) {
    constexpr size_t line = 64;
    static thread_local std::vector<std::vector<std::byte>> kept;
    if (kept.size() == next_) kept.emplace_back();
    std::vector<std::byte>& piece = kept[next_++];
    if (piece.size() < bytes + line) piece.resize(bytes + line);
    return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(piece.data()) + line - 1) / line * line);
  }

  size_t next_ = 0;
};

template <class C>
Tensor operands(const AttendPlan& plan, int64_t count) {
  const auto dtype = sizeof(C) == sizeof(float) ? at::kFloat : at::kBFloat16;
  return at::empty({count * plan.batch * plan.kvHeads * plan.keyNumbers()}, at::TensorOptions(dtype));
}

template <class C>
struct Operand {
  const C* rows;
  int64_t stride;
};

/// `padded` rows of C: where they lie, or gathered.
template <class T, class C>
Operand<C> operandOf(const T* from, int64_t stride, int64_t count, int64_t size, int64_t padded, C* scratch) {
  if constexpr (sizeof(T) == sizeof(C)) {
    const bool isOfWords = reinterpret_cast<uintptr_t>(from) % sizeof(float) == 0 && stride * sizeof(T) % sizeof(float) == 0;
    if (count == padded && isOfWords) return {from, stride};
  }
  SLUICE_BEST(attendKernels, T, C)().gatherRows(from, stride, count, size, scratch, padded);
  return {scratch, size};
}

template <class T, class C>
void forwardAs(const AttendPlan& plan, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y, float* logSums) {
  const AttendKernels<T, C>& kernels = SLUICE_BEST(attendKernels, T, C)();
  const Rows queries(q), keys(k), values(v), to(y);
  const int64_t size = plan.size, kvHeads = plan.batch * plan.kvHeads, each = plan.keyNumbers();
  const Tensor packed = operands<C>(plan, 2);
  C* const rightKeys = static_cast<C*>(packed.mutable_data_ptr());
  C* const rightValues = rightKeys + kvHeads * each;

  inTurns<C>(kvHeads * plan.tiles, kTile * size, [&](int64_t task) {
    const int64_t head = task / plan.tiles, tile = task % plan.tiles, start = tile * kTile, count = plan.keysOf(tile);
    const int64_t b = head / plan.kvHeads, h = head % plan.kvHeads, at = head * each + start * size;
    C* const scratch = Scratch().take<C>(kTile * size);
    const auto key = operandOf<T, C>(keys.at<const T>(b, h, start), keys.row, count, size, kTile, scratch);
    kernels.turnedRightOperand(key.rows, key.stride, kTile, size, rightKeys + at);
    const auto value = operandOf<T, C>(values.at<const T>(b, h, start), values.row, count, size, kTile, scratch);
    kernels.rightOperand(value.rows, value.stride, kTile, size, rightValues + at);
  });

  inTurns<C>(plan.batch * plan.heads * plan.blocks, kTile * size * plan.tiles, [&](int64_t task) {
    const int64_t head = task / plan.blocks, block = plan.blocks - 1 - task % plan.blocks;
    const int64_t b = head / plan.heads, h = head % plan.heads, begin = block * kTile;
    const int64_t count = plan.rowsOf(block), rows = upTo(count, 16);
    const C* const ownKeys = rightKeys + (b * plan.kvHeads + h / plan.group) * each;
    const C* const ownValues = rightValues + (b * plan.kvHeads + h / plan.group) * each;
    Scratch scratch;
    C *const gathered = scratch.take<C>(kTile * size), *const weights = scratch.take<C>(kTile * kScoreStride);
    float *const scores = scratch.take<float>(kTile * kScoreStride), *const sums = scratch.take<float>(kTile * size);

    AttendPlan::Block sees;
    plan.look(b, block, sees);
    const auto query = operandOf<T, C>(queries.at<const T>(b, h, begin), queries.row, count, size, rows, gathered);
    Softmax softmax;
    std::fill_n(softmax.most, kTile, -INFINITY);
    std::fill_n(softmax.total, kTile, 0.0f);
    bool adds = false;
    for (int64_t tile = sees.first; tile < sees.last; tile += kChunk / kTile) {
      const int64_t last = std::min(sees.last, tile + kChunk / kTile), start = tile * kTile, width = (last - tile) * kTile;
      Sight sight = {sees.firsts, sees.lasts, nullptr, sees.sight.maskStride};
      for (int64_t t = tile; t < last; ++t) {
        if (sees.mask && sees.mask[t] != AttendPlan::Seen::kAll) sight.mask = sees.sight.mask;
        sees.inStrips(t, upTo(plan.keysOf(t), 16), rows, [&](const AttendPlan::Strip& strip) {
          const C* const right = rightColumns(ownKeys + t * kTile * size, strip.key - t * kTile);
          product(strip.queries, strip.keys, size, query.rows + strip.query * query.stride, query.stride, right, kTile,
                  scores + strip.query * kScoreStride + strip.key - start, kScoreStride, false, plan.isPlain);
        });
      }
      kernels.weigh(sight, start, width, count, plan.scale, scores, weights, kScoreStride, softmax,
                    adds ? sums : nullptr, size);
      for (int64_t row = 0; row < rows; row += kTile / 2) {
        const int64_t height = std::min(kTile / 2, rows - row);
        const auto [from, end] = sees.reach(row, std::min(row + height, count), start, width);
        if (from < end)
          product(height, size, end - from, weights + row * kScoreStride + from, kScoreStride,
                  ownValues + (start + from) * size, size, sums + row * size, size, adds, plan.isPlain);
        else if (!adds)
          std::fill_n(sums + row * size, height * size, 0.0f);
      }
      adds = true;
    }
    kernels.finishRows(softmax, sums, count, size, to.at<T>(b, h, begin), to.row,
                       logSums ? logSums + head * plan.queries + begin : nullptr);
  });
}

/// A part of a key/value head's queries: blocks of its heads, one head after the other.
std::vector<int64_t> partsOf(const AttendPlan& plan, int64_t count) {
  const int64_t items = plan.group * plan.blocks;
  std::vector<int64_t> costs(items), ends;
  AttendPlan::Block sees;
  for (int64_t i = 0; i < items; ++i) {
    plan.look(0, i % plan.blocks, sees);
    costs[i] = std::max<int64_t>(sees.last - sees.first, 1);
  }
  const int64_t whole = std::accumulate(costs.begin(), costs.end(), int64_t{0});
  int64_t sum = 0;
  for (int64_t i = 0; i < items; ++i) {
    sum += costs[i];
    while (static_cast<int64_t>(ends.size()) < count && sum * count >= whole * static_cast<int64_t>(ends.size() + 1))
      ends.push_back(i + 1);
  }
  return ends;
}

/// Parts into which the queries of a key/value head fall, so that every thread has as many.
int64_t numParts(const AttendPlan& plan) {
  const int64_t heads = plan.batch * plan.kvHeads, threads = at::get_num_threads();
  if (heads >= 4 * threads) return 1;
  return std::min({threads / std::gcd(threads, heads), plan.group * plan.blocks, kMostParts});
}

struct Grads {
  Tensor q, k, v;
};

template <class T, class C>
void backwardAs(const AttendPlan& plan, const Tensor& grad, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& y,
                const Tensor& logSums, const Grads& to) {
  const AttendKernels<T, C>& kernels = SLUICE_BEST(attendKernels, T, C)();
  const Rows queries(q), keys(k), values(v), outputs(y), grads(grad), queryGrads(to.q), keyGrads(to.k), valueGrads(to.v);
  const int64_t size = plan.size, kvHeads = plan.batch * plan.kvHeads, each = plan.keyNumbers();
  const float* const logs = logSums.const_data_ptr<float>();

  const Tensor packed = operands<C>(plan, 3);
  C *const keyRows = static_cast<C*>(packed.mutable_data_ptr()), *const valueRows = keyRows + kvHeads * each,
           *const turnedKeys = valueRows + kvHeads * each;
  inTurns<C>(kvHeads * plan.tiles, kTile * size, [&](int64_t task) {
    const int64_t head = task / plan.tiles, tile = task % plan.tiles, start = tile * kTile, count = plan.keysOf(tile);
    const int64_t b = head / plan.kvHeads, h = head % plan.kvHeads, at = head * each + start * size;
    kernels.gatherRows(keys.at<const T>(b, h, start), keys.row, count, size, keyRows + at, kTile);
    kernels.gatherRows(values.at<const T>(b, h, start), values.row, count, size, valueRows + at, kTile);
    kernels.turn(keyRows + at, kTile, size, turnedKeys + at, Scratch().take<C>(kTile * size));
  });

  const int64_t parts = numParts(plan);
  const std::vector<int64_t> ends = partsOf(plan, parts);
  const Tensor sums = at::empty({2 * kvHeads * parts * each}, at::TensorOptions(at::kFloat));
  float* const keySums = sums.mutable_data_ptr<float>();
  float* const valueSums = keySums + kvHeads * parts * each;
  inTurns<C>(kvHeads * parts, plan.group * plan.queries * plan.keys, [&](int64_t task) {
    const int64_t head = task / parts, part = task % parts, b = head / plan.kvHeads;
    float *const ofKeys = keySums + task * each, *const ofValues = valueSums + task * each;
    std::fill_n(ofKeys, each, 0.0f);
    std::fill_n(ofValues, each, 0.0f);
    const int64_t panel = kTile * size, square = kTile * kTile;
    Scratch scratch;
    C* const gathered = scratch.take<C>(panel);
    C *const rightQueries = scratch.take<C>(panel), *const turnedQueries = scratch.take<C>(panel);
    C *const rightGrads = scratch.take<C>(panel), *const turnedGrads = scratch.take<C>(panel);
    C *const weights = scratch.take<C>(square), *const slopes = scratch.take<C>(square);
    C* const rightSlopes = scratch.take<C>(square);
    float *const scores = scratch.take<float>(square), *const weightGrads = scratch.take<float>(square);
    float *const turned = scratch.take<float>(panel), *const back = scratch.take<float>(panel);

    for (int64_t item = part ? ends[part - 1] : 0; item < ends[part]; ++item) {
      const int64_t h = head % plan.kvHeads * plan.group + item / plan.blocks, block = item % plan.blocks;
      const int64_t begin = block * kTile, count = plan.rowsOf(block), n = upTo(count, 16);
      const auto query = operandOf<T, C>(queries.at<const T>(b, h, begin), queries.row, count, size, n, gathered);
      kernels.rightOperand(query.rows, query.stride, n, size, rightQueries);
      kernels.turnedRightOperand(query.rows, query.stride, n, size, turnedQueries);
      const T* const grad = grads.at<const T>(b, h, begin);
      const auto ownGrads = operandOf<T, C>(grad, grads.row, count, size, n, gathered);
      kernels.rightOperand(ownGrads.rows, ownGrads.stride, n, size, rightGrads);
      kernels.turnedRightOperand(ownGrads.rows, ownGrads.stride, n, size, turnedGrads);

      float logsOf[kTile], dots[kTile] = {};
      std::fill_n(logsOf, kTile, INFINITY);
      std::copy_n(logs + (b * plan.heads + h) * plan.queries + begin, count, logsOf);
      kernels.rowDots(outputs.at<const T>(b, h, begin), outputs.row, grad, grads.row, count, size, dots);

      AttendPlan::Block sees;
      plan.look(b, block, sees);
      std::fill_n(turned, n * size, 0.0f);
      for (int64_t tile = sees.first; tile < sees.last; ++tile)
        sees.inStrips(tile, upTo(plan.keysOf(tile), 16), n, [&](const AttendPlan::Strip& strip) {
          const int64_t m = strip.keys, w = strip.queries, at = strip.key * size, from = strip.query;
          const C *const key = keyRows + head * each + at, *const value = valueRows + head * each + at;
          product(m, w, size, key, size, rightColumns(turnedQueries, from), n, scores, w, false, plan.isPlain);
          product(m, w, size, value, size, rightColumns(turnedGrads, from), n, weightGrads, w, false, plan.isPlain);

          const Sight sight = sees.sight.from(from);
          kernels.weightSlopes({plan.scale, logsOf + from, dots + from, strip.seenByAll ? nullptr : &sight}, strip.key,
                               m, w, scores, weightGrads, weights, slopes);

          product(m, size, w, weights, w, rightGrads + from * size, size, ofValues + at, size, true, plan.isPlain);
          product(m, size, w, slopes, w, rightQueries + from * size, size, ofKeys + at, size, true, plan.isPlain);
          const C* const turnedKey = turnedKeys + head * each + tile * kTile * size + strip.key - tile * kTile;
          kernels.rightOperand(slopes, w, m, w, rightSlopes);
          product(size, w, m, turnedKey, kTile, rightSlopes, w, turned + from, n, true, plan.isPlain);
        });
      kernels.turnBack(turned, count, size, plan.scale, queryGrads.at<T>(b, h, begin), queryGrads.row, back);
    }
  });

  inTurns<float>(kvHeads * plan.tiles, kTile * size, [&](int64_t task) {
    const int64_t head = task / plan.tiles, tile = task % plan.tiles, b = head / plan.kvHeads, h = head % plan.kvHeads;
    const int64_t start = tile * kTile, count = plan.keysOf(tile), from = head * parts * each + start * size;
    kernels.addSums(keySums + from, parts, each, count, size, plan.scale, keyGrads.at<T>(b, h, start), keyGrads.row);
    kernels.addSums(valueSums + from, parts, each, count, size, 1, valueGrads.at<T>(b, h, start), valueGrads.row);
  });
}

Tensor withRows(const Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

struct Attended {
  Tensor y, logSums;
};

Attended compute(const Tensor& q, const Tensor& k, const Tensor& v, const AttendOptions& options, bool wantsSums) {
  const AttendPlan plan(q, k, options);
  Attended result{at::empty({plan.batch, plan.queries, plan.heads, plan.size}, q.options()).transpose(1, 2), {}};
  if (wantsSums) result.logSums = at::empty({plan.batch, plan.heads, plan.queries}, q.options().dtype(at::kFloat));
  float* const logSums = wantsSums ? result.logSums.mutable_data_ptr<float>() : nullptr;
  const auto run = q.scalar_type() == at::kFloat ? forwardAs<float, float>
                   : options.isBfloat16          ? forwardAs<uint16_t, uint16_t>
                                                 : forwardAs<uint16_t, float>;
  run(plan, q, k, v, result.y, logSums);
  return result;
}

AttendOptions optionsOf(const Maybe& mask, const Maybe& starts, int64_t window, double scale, c10::string_view products) {
  TORCH_CHECK(products == "best" || products == "float32" || products == "plain",
              "attend: expected products 'best', 'float32' or 'plain', received '", products, "'");
  const bool isPlain = products == "plain" || !hasMadeProducts();
  AttendOptions options{std::nullopt, std::nullopt, window, scale, isPlain, products == "best" && hasBfloat16Products()};
  if (has(mask)) options.mask = mask->contiguous();
  if (has(starts)) options.starts = starts->contiguous();
  return options;
}

class Attend : public torch::autograd::Function<Attend> {
 public:
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask,
                        const Maybe& starts, int64_t window, double scale, std::string products) {
    at::AutoDispatchBelowADInplaceOrView below;
    const AttendOptions options = optionsOf(mask, starts, window, scale, products);
    const Tensor queries = withRows(q), keys = withRows(k), values = withRows(v);
    const auto [y, logSums] = compute(queries, keys, values, options, true);
    context->save_for_backward({queries, keys, values, y, logSums, options.mask.value_or(Tensor()),
                                options.starts.value_or(Tensor())});
    context->saved_data["window"] = window;
    context->saved_data["scale"] = scale;
    context->saved_data["products"] = products;
    return y;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    refuseSecondDerivative("attend");
    at::AutoDispatchBelowADInplaceOrView below;
    const auto saved = context->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &y = saved[3], &logSums = saved[4];
    const AttendOptions options =
        optionsOf(saved[5], saved[6], context->saved_data["window"].toInt(), context->saved_data["scale"].toDouble(),
                  context->saved_data["products"].toStringRef());
    const Grads to{at::empty_like(q), at::empty_like(k), at::empty_like(v)};
    const auto run = q.scalar_type() == at::kFloat ? backwardAs<float, float>
                     : options.isBfloat16          ? backwardAs<uint16_t, uint16_t>
                                                   : backwardAs<uint16_t, float>;
    run(AttendPlan(q, k, options), withRows(grads[0]), q, k, v, y, logSums, to);
    return {to.q, to.k, to.v, {}, {}, {}, {}, {}};
  }
};

void check(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, const Maybe& starts, int64_t window) {
  TORCH_CHECK(q.dim() == 4 && k.dim() == 4 && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                  q.size(3) == k.size(3) && k.size(1) > 0 && q.size(1) % k.size(1) == 0 && q.size(2) <= k.size(2),
              "attend: expected q [batch, heads, queries, size] and k and v [batch, kv heads, keys, size], as many keys ",
              "as queries or more, received ", q.sizes(), ", ", k.sizes(), " and ", v.sizes());
  const auto isOf = [&](const Tensor& x, int64_t dim, int64_t width) {
    return x.dim() == dim && (x.size(0) == 1 || x.size(0) == q.size(0)) && x.size(dim - 1) == width;
  };
  TORCH_CHECK(!has(mask) || (mask->scalar_type() == at::kBool && isOf(*mask, 4, k.size(2)) && mask->size(1) == 1 &&
                             (mask->size(2) == 1 || mask->size(2) == q.size(2))),
              "attend: expected a mask of bool [batch or 1, 1, queries or 1, keys], received ",
              has(mask) ? mask->scalar_type() : at::kBool, " ", has(mask) ? mask->sizes() : at::IntArrayRef());
  TORCH_CHECK(!has(starts) || (starts->scalar_type() == at::kInt && isOf(*starts, 2, q.size(2))),
              "attend: expected starts of int32 [batch or 1, queries], received ",
              has(starts) ? starts->scalar_type() : at::kInt, " ", has(starts) ? starts->sizes() : at::IntArrayRef());
  TORCH_CHECK(window > 0, "attend: expected a window of one key or more, received ", window);
}

/// bool [B or 1, 1, T, S], or none where a plain causal attention, or that of one query, is the same.
Maybe wholeMask(const Tensor& q, const Tensor& k, const Maybe& mask, const Maybe& starts, int64_t window) {
  const int64_t queries = q.size(2), keys = k.size(2);
  if (has(mask) && mask->size(2) == queries && !has(starts)) return mask;
  const bool isOne = queries == 1;
  if (!has(mask) && !has(starts) && window >= keys && (isOne || (!q.is_cpu() && queries == keys))) return std::nullopt;
  // On a CPU libtorch's kernel without a mask takes a query whose scores are all NaN for one that may see nothing: zeros,
  // which would hide weights that have broken.
  const auto ids = at::TensorOptions(q.device()).dtype(at::kLong);
  const Tensor places = at::arange(keys - queries, keys, ids).unsqueeze(1), others = at::arange(keys, ids).unsqueeze(0);
  Tensor sees = ((others <= places) & (others > places - window)).unsqueeze(0).unsqueeze(0);
  if (has(starts)) sees = sees & (others >= starts->unsqueeze(2)).unsqueeze(1);
  return has(mask) ? sees & *mask : sees;
}

Tensor repeatHeads(const Tensor& x, int64_t times) {
  return x.unsqueeze(2).expand({-1, -1, times, -1, -1}).flatten(1, 2);
}

Tensor composed(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, const Maybe& starts,
                int64_t window, double scale, double dropout, c10::string_view /*products*/) {
  check(q, k, v, mask, starts, window);
  const Maybe sees = wholeMask(q, k, mask, starts, window);
  const int64_t group = q.size(1) / k.size(1);
  // CUDA's fused kernels take grouped heads only without a mask; with one they would fall back to the plain product.
  const bool repeats = group > 1 && has(sees) && !q.is_cpu(), isCausal = !has(sees) && q.size(2) > 1;
  return at::scaled_dot_product_attention(q, repeats ? repeatHeads(k, group) : k, repeats ? repeatHeads(v, group) : v,
                                          sees, dropout, isCausal, scale, group > 1 && !repeats);
}

/// Whether the kernels take these.
bool takes(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, const Maybe& starts, double scale,
           double dropout) {
  const int64_t size = q.size(3);
  if ((has(mask) && !mask->is_cpu()) || (has(starts) && !starts->is_cpu())) return false;
  return isForKernels({q, k, v}) && size % 16 == 0 && size <= 256 && k.size(2) < INT32_MAX && scale > 0 && dropout == 0;
}

Tensor onCpu(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, const Maybe& starts, int64_t window,
             double scale, double dropout, c10::string_view products) {
  check(q, k, v, mask, starts, window);
  if (!takes(q, k, v, mask, starts, scale, dropout))
    return composed(q, k, v, mask, starts, window, scale, dropout, products);
  const AttendOptions options = optionsOf(mask, starts, window, scale, products);
  return compute(withRows(q), withRows(k), withRows(v), options, false).y;
}

Tensor withGrad(const Tensor& q, const Tensor& k, const Tensor& v, const Maybe& mask, const Maybe& starts,
                int64_t window, double scale, double dropout, c10::string_view products) {
  check(q, k, v, mask, starts, window);
  if (!takes(q, k, v, mask, starts, scale, dropout))
    return composed(q, k, v, mask, starts, window, scale, dropout, products);
  if (isRecorded({q, k, v})) return Attend::apply(q, k, v, mask, starts, window, scale, std::string(products));
  at::AutoDispatchBelowADInplaceOrView below;
  return onCpu(q, k, v, mask, starts, window, scale, dropout, products);
}

TORCH_LIBRARY_FRAGMENT(sluice, m) {
  m.def(
      "attend(Tensor q, Tensor k, Tensor v, Tensor? mask, Tensor? starts, int window, float scale, float dropout=0.0, "
      "str products='best') -> Tensor");
}
TORCH_LIBRARY_IMPL(sluice, CompositeImplicitAutograd, m) { m.impl("attend", composed); }
TORCH_LIBRARY_IMPL(sluice, CPU, m) { m.impl("attend", onCpu); }
TORCH_LIBRARY_IMPL(sluice, AutogradCPU, m) { m.impl("attend", withGrad); }

}  // namespace
}  // namespace sluice
