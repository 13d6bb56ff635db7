// The caller's memory into which a socket reads batches: slots for bytes, descriptors, counters. Knows their sizes; nothing of what is read.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>

#include "env.h"

namespace faketcp {

class BatchMemory {
 public:
  /** Valid until JavaScript runs: it may detach the memory. */
  struct View {
    uint8_t* slab;
    int32_t* descriptors;
    double* counters;
  };

  BatchMemory() = default;
  ~BatchMemory() { Release(); }
  BatchMemory(const BatchMemory&) = delete;
  BatchMemory& operator=(const BatchMemory&) = delete;

  /** Reads `slab`, `slots`, `slotBytes`, `descriptors` and `counters` of the options. False with an exception pending. */
  bool Take(Env& env, napi_value options, int64_t max_slots, int64_t min_slot_bytes);
  /** False with an exception pending when the arrays are not (or no longer) as large as the slots need. */
  bool Resolve(View* view) const;
  /** Idempotent. */
  void Release();

  size_t slots() const { return slots_; }
  size_t slot_bytes() const { return slot_bytes_; }
  /** Bytes from `offset` to the end of its slot. */
  size_t RoomOf(int32_t offset) const { return slot_bytes_ - static_cast<size_t>(offset) % slot_bytes_; }

 private:
  Env* env_ = nullptr;
  napi_ref slab_ = nullptr;
  napi_ref descriptors_ = nullptr;
  napi_ref counters_ = nullptr;
  size_t slots_ = 0;
  size_t slot_bytes_ = 0;
};

}  // namespace faketcp
