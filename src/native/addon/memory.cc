// Memory of tensors on a CPU. Freed blocks wait for the next tensors of about their size instead of going back to the
// kernel: a training step frees what it made, and fresh pages, which the kernel clears, took a tenth of its time.
//
// What waits is bounded: with what is in use it stays within the most that was ever in use and a quarter more.
//
// The bytes in use are counted, and the most that they came to, so that what a computation takes can be measured.

#include "addon.h"

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>

namespace sluice {
namespace {

constexpr size_t kAlignment = 64;  // also the room for a block's header, before its data
constexpr size_t kSmallest = 64 << 10;  // smaller ones malloc keeps by itself
constexpr size_t kSlack = 64 << 20;

struct Header {
  size_t capacity;  // of the data; 0 where the block does not wait
  size_t bytes;     // asked for
};

std::atomic<int64_t> bytesInUse{0}, mostInUse{0};

void count(int64_t bytes) {
  const int64_t now = bytesInUse.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t most = mostInUse.load(std::memory_order_relaxed);
  while (now > most && !mostInUse.compare_exchange_weak(most, now, std::memory_order_relaxed)) {
  }
}

Header& headerOf(void* data) { return *reinterpret_cast<Header*>(static_cast<char*>(data) - kAlignment); }

/// Rounded up, by at most an eighth.
size_t capacityFor(size_t bytes) {
  size_t step = kSmallest / 8;
  while (bytes > 16 * step) step *= 2;
  return (bytes + step - 1) / step * step;
}

void* fresh(size_t bytes, size_t capacity) {
  void* block = nullptr;
  if (bytes > SIZE_MAX - 2 * kAlignment || posix_memalign(&block, kAlignment, bytes + kAlignment) != 0) return nullptr;
  void* data = static_cast<char*>(block) + kAlignment;
  headerOf(data).capacity = capacity;
  return data;
}

void release(void* data) { std::free(static_cast<char*>(data) - kAlignment); }

class Pool {
 public:
  void* take(size_t bytes) {
    const size_t capacity = capacityFor(bytes);
    {
      std::lock_guard lock(mutex_);
      // The smallest that is large enough, if it wastes no more than a quarter.
      const auto fit = waiting_.lower_bound(capacity);
      if (fit != waiting_.end() && fit->first <= capacity + capacity / 4) return takeFrom(fit);
      used_ += capacity;
      most_ = std::max(most_, used_);
      shrink(most_ + most_ / 4 + kSlack);
    }
    void* data = fresh(capacity, capacity);
    if (data) return data;
    std::lock_guard lock(mutex_);
    shrink(0);
    data = fresh(capacity, capacity);
    if (!data) used_ -= capacity;
    return data;
  }

  void put(void* data) {
    std::lock_guard lock(mutex_);
    const size_t capacity = headerOf(data).capacity;
    used_ -= capacity;
    held_ += capacity;
    waiting_[capacity].push_back({data, ++clock_});
  }

 private:
  struct Block {
    void* data;
    uint64_t since;
  };
  using Waiting = std::map<size_t, std::deque<Block>>;  // by capacity, the newest last: its memory may be in the cache

  void* takeFrom(Waiting::iterator fit) {
    void* data = fit->second.back().data;
    fit->second.pop_back();
    used_ += fit->first;
    held_ -= fit->first;
    most_ = std::max(most_, used_);
    if (fit->second.empty()) waiting_.erase(fit);
    return data;
  }

  /// Gives back what has waited longest until at most `limit` bytes are in use or waiting.
  void shrink(size_t limit) {
    while (held_ > 0 && used_ + held_ > limit) {
      const auto oldest = std::min_element(waiting_.begin(), waiting_.end(), [](const auto& a, const auto& b) {
        return a.second.front().since < b.second.front().since;
      });
      release(oldest->second.front().data);
      oldest->second.pop_front();
      held_ -= oldest->first;
      if (oldest->second.empty()) waiting_.erase(oldest);
    }
  }

  std::mutex mutex_;
  Waiting waiting_;
  size_t used_ = 0, held_ = 0, most_ = 0;
  uint64_t clock_ = 0;
};

Pool& pool() {
  static Pool* instance = new Pool();  // never destroyed: tensors may outlive the addon's statics
  return *instance;
}

void giveBack(void* data) {
  if (!data) return;
  count(-static_cast<int64_t>(headerOf(data).bytes));
  if (headerOf(data).capacity > 0) pool().put(data);
  else release(data);
}

class PooledAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = nullptr;
    if (bytes > 0) {
      data = bytes < kSmallest ? fresh(bytes, 0) : pool().take(bytes);
      TORCH_CHECK(data, "expected ", bytes, " bytes of memory for a tensor, received none: the machine has no more");
      headerOf(data).bytes = bytes;
      count(static_cast<int64_t>(bytes));
    }
    return {data, data, giveBack, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return giveBack; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

}  // namespace

void InitMemory() {
  static const bool once = [] {
    c10::SetCPUAllocator(new PooledAllocator(), 1);
    return true;
  }();
  (void)once;
}

/// tensorMemory(restart) -> [bytes in use by tensors on a CPU, the most since the last restart]. Of the whole process;
/// without what is mapped from files or belongs to JavaScript.
static Napi::Value TensorMemory(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const double used = static_cast<double>(bytesInUse.load()), most = static_cast<double>(mostInUse.load());
  if (info[0].ToBoolean()) mostInUse.store(bytesInUse.load());
  Napi::Array result = Napi::Array::New(env, 2);
  result[0u] = Napi::Number::New(env, used);
  result[1u] = Napi::Number::New(env, most);
  return result;
}

void InitMemoryCounters(Napi::Env env, Napi::Object exports) {
  exports.Set("tensorMemory", Napi::Function::New(env, TensorMemory, "tensorMemory"));
}

}  // namespace sluice
