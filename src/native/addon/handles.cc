// The thread-local table of tensors that JavaScript holds.

#include "addon.h"

#include <c10/util/Exception.h>

#include <utility>
#include <vector>

namespace sluice {
namespace {

constexpr double kSlots = 1 << 24;  // a handle is generation * kSlots + slot: 24 + 28 bits of a double's 53

struct Slot {
  at::Tensor tensor;
  uint32_t generation = 1;
  bool used = false;
};

struct Table {
  std::vector<Slot> slots;
  std::vector<uint32_t> free;
  size_t live = 0;
};

Table& table() {
  static thread_local Table* instance = new Table();  // never destroyed: libtorch may be gone before this thread is
  return *instance;
}

Slot* slotOf(double handle) {
  const auto bits = static_cast<uint64_t>(handle);
  const auto slot = static_cast<uint32_t>(bits & ((1u << 24) - 1));
  Table& t = table();
  if (slot >= t.slots.size()) return nullptr;
  Slot& found = t.slots[slot];
  return found.used && found.generation == (bits >> 24) ? &found : nullptr;
}

}  // namespace

double keepTensor(at::Tensor tensor) {
  if (!tensor.defined()) return 0;
  Table& t = table();
  uint32_t slot;
  if (t.free.empty()) {
    slot = static_cast<uint32_t>(t.slots.size());
    TORCH_CHECK(slot < kSlots, "more than 16 million tensors are alive; free them with scope() or dispose()");
    t.slots.emplace_back();
  } else {
    slot = t.free.back();
    t.free.pop_back();
  }
  Slot& s = t.slots[slot];
  s.tensor = std::move(tensor);
  s.used = true;
  ++t.live;
  return static_cast<double>(s.generation) * kSlots + slot;
}

const at::Tensor& tensorOf(double handle) {
  Slot* slot = handle > 0 ? slotOf(handle) : nullptr;
  TORCH_CHECK(slot, "expected a live tensor, received one that was disposed (or made on another thread)");
  return slot->tensor;
}

bool freeTensor(double handle) {
  Slot* slot = handle > 0 ? slotOf(handle) : nullptr;
  if (!slot) return false;
  Table& t = table();
  slot->used = false;
  slot->generation = (slot->generation + 1) & ((1u << 28) - 1);
  if (slot->generation == 0) slot->generation = 1;
  t.free.push_back(static_cast<uint32_t>(slot - t.slots.data()));
  --t.live;
  at::Tensor last = std::move(slot->tensor);  // destroyed after the table is consistent
  slot->tensor = at::Tensor();
  return true;
}

size_t liveTensors() { return table().live; }

}  // namespace sluice
