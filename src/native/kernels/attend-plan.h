// What the queries of attend.cc see, block by block: which keys they reach, and which tiles of keys all, some or none of
// them see.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "attend-kernels.h"
#include "composed.h"

namespace sluice {

inline int64_t upTo(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

struct AttendOptions {
  std::optional<at::Tensor> mask, starts;
  int64_t window;
  double scale;
  bool isPlain, isBfloat16;
};

/// The rows of each head, wherever they lie.
struct Rows {
  explicit Rows(const at::Tensor& x)
      : data(x.const_data_ptr()), batch(x.stride(0)), head(x.stride(1)), row(x.stride(2)) {}
  template <class T>
  T* at(int64_t b, int64_t h, int64_t r) const {
    return static_cast<T*>(const_cast<void*>(data)) + b * batch + h * head + r * row;
  }
  const void* data;
  int64_t batch, head, row;
};

/// Of one attention, and what its queries see.
struct AttendPlan {
  AttendPlan(const at::Tensor& q, const at::Tensor& k, const AttendOptions& options)
      : batch(q.size(0)), heads(q.size(1)), kvHeads(k.size(1)), group(heads / kvHeads), queries(q.size(2)),
        keys(k.size(2)), size(q.size(3)), blocks(upTo(queries, kTile) / kTile), tiles(upTo(keys, kTile) / kTile),
        scale(static_cast<float>(options.scale)), isPlain(options.isPlain), window_(options.window),
        starts_(options.starts), mask_(options.mask) {
    if (has(mask_)) sumUpMask();
  }

  int64_t batch, heads, kvHeads, group, queries, keys, size, blocks, tiles;
  float scale;
  bool isPlain;

  int64_t rowsOf(int64_t block) const { return std::min(kTile, queries - block * kTile); }
  int64_t keysOf(int64_t tile) const { return std::min(kTile, keys - tile * kTile); }
  /// Numbers of a head's padded keys.
  int64_t keyNumbers() const { return tiles * kTile * size; }

  enum class Seen : uint8_t { kNothing, kPart, kAll };

  /// Keys, and queries of a block.
  struct Strip {
    int64_t key, keys, query, queries;
    bool seenByAll;
  };

  /// What a block's queries see of a row of the batch.
  struct Block {
    /// Tiles: what lies outside is hidden from all of them.
    int64_t first, last;
    Sight sight;
    int32_t firsts[kTile], lasts[kTile];
    /// The narrowest of all queries.
    int64_t latestFirst, earliestLast;
    const Seen* mask;

    Seen sees(int64_t tile) const {
      if (mask && mask[tile] != Seen::kAll) return mask[tile];
      return latestFirst <= tile * kTile && (tile + 1) * kTile <= earliestLast ? Seen::kAll : Seen::kPart;
    }

    /// The keys among `width` from `start` on that some of the rows see, in multiples of half a tile.
    std::pair<int64_t, int64_t> reach(int64_t row, int64_t end, int64_t start, int64_t width) const {
      int64_t first = width, last = 0;
      for (; row < end; ++row) {
        first = std::min<int64_t>(first, firsts[row] - start);
        last = std::max<int64_t>(last, lasts[row] - start);
      }
      constexpr int64_t half = kTile / 2;
      return {std::max<int64_t>(first, 0) / half * half, upTo(std::min(last, width), half)};
    }

    /// body(strip) for keys of a tile and those queries of which some see some of them, in multiples of 16: all of a tile
    /// that all see, halves of others.
    template <class Body>
    void inStrips(int64_t tile, int64_t keys, int64_t queries, const Body& body) const {
      const Seen seen = sees(tile);
      if (seen == Seen::kNothing) return;
      const int64_t step = seen == Seen::kAll ? keys : kTile / 2;
      for (int64_t begin = 0; begin < keys; begin += step) {
        Strip strip{tile * kTile + begin, std::min(step, keys - begin), 0, queries, seen == Seen::kAll};
        if (!strip.seenByAll) {
          const auto isBlind = [&](int64_t r) { return lasts[r] <= strip.key || strip.key + strip.keys <= firsts[r]; };
          while (strip.query < queries && isBlind(strip.query)) ++strip.query;
          int64_t end = queries;
          while (end > strip.query && isBlind(end - 1)) --end;
          if (strip.query == end) continue;
          strip.query = strip.query / 16 * 16;
          strip.queries = upTo(end, 16) - strip.query;
        }
        body(strip);
      }
    }
  };

  void look(int64_t b, int64_t block, Block& to) const {
    const int64_t rows = rowsOf(block), begin = block * kTile;
    const int32_t* starts = nullptr;
    if (has(starts_)) starts = starts_->const_data_ptr<int32_t>() + (starts_->size(0) > 1 ? b * queries : 0) + begin;
    int64_t first = keys, last = 0;
    to.latestFirst = 0, to.earliestLast = keys;
    for (int64_t r = 0; r < kTile; ++r) to.firsts[r] = to.lasts[r] = 0;
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t place = keys - queries + begin + r;
      const int64_t reach = std::max<int64_t>({0, place - window_ + 1, starts ? starts[r] : 0});
      to.firsts[r] = static_cast<int32_t>(reach), to.lasts[r] = static_cast<int32_t>(place + 1);
      first = std::min(first, reach), last = place + 1;
      to.latestFirst = std::max(to.latestFirst, reach), to.earliestLast = std::min(to.earliestLast, place + 1);
    }
    to.first = first / kTile, to.last = upTo(last, kTile) / kTile;
    to.sight = {to.firsts, to.lasts, nullptr, 0};
    to.mask = nullptr;
    if (!has(mask_)) return;

    const int64_t perBatch = maskBlocks_ * tiles, of = mask_->size(0) > 1 ? b : 0;
    to.mask = maskSeen_.data() + of * perBatch + (maskBlocks_ > 1 ? block * tiles : 0);
    const bool isEach = mask_->size(2) > 1;
    to.sight.mask = mask_->const_data_ptr<bool>() + (of * mask_->size(2) + (isEach ? begin : 0)) * keys;
    to.sight.maskStride = isEach ? keys : 0;
    while (to.first < to.last && to.mask[to.first] == Seen::kNothing) ++to.first;
    while (to.first < to.last && to.mask[to.last - 1] == Seen::kNothing) --to.last;
  }

 private:
  void sumUpMask() {
    const bool* mask = mask_->const_data_ptr<bool>();
    const int64_t rows = mask_->size(2);
    maskBlocks_ = upTo(rows, kTile) / kTile;
    maskSeen_.resize(mask_->size(0) * maskBlocks_ * tiles);
    for (int64_t i = 0; i < static_cast<int64_t>(maskSeen_.size()); ++i) {
      const int64_t tile = i % tiles, block = i / tiles % maskBlocks_, b = i / tiles / maskBlocks_;
      const int64_t height = std::min(kTile, rows - block * kTile), width = keysOf(tile);
      int64_t count = 0;
      for (int64_t r = 0; r < height; ++r) {
        const bool* row = mask + (b * rows + block * kTile + r) * keys + tile * kTile;
        for (int64_t s = 0; s < width; ++s) count += row[s];
      }
      maskSeen_[i] = count == 0 ? Seen::kNothing : count == height * width ? Seen::kAll : Seen::kPart;
    }
  }

  int64_t window_;
  std::optional<at::Tensor> starts_, mask_;
  int64_t maskBlocks_ = 0;
  std::vector<Seen> maskSeen_;
};

}  // namespace sluice
