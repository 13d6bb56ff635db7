// The caller's memory into which a socket reads batches; see batch_memory.h.
#include "batch_memory.h"

#include <initializer_list>

#include "js_values.h"
#include "layout.h"

namespace faketcp {
namespace {

constexpr int64_t kMaxSlotBytes = 1 << 20;

bool Reference(napi_env napi, napi_value options, const char* name, napi_ref* out) {
  napi_value value = nullptr;
  if (!Property(napi, options, name, &value)) return false;
  return napi_create_reference(napi, value, 1, out) == napi_ok || ThrowType(napi, "%s must be a typed array", name);
}

}  // namespace

bool BatchMemory::Take(Env& env, napi_value options, int64_t max_slots, int64_t min_slot_bytes) {
  env_ = &env;
  const napi_env napi = env.napi();
  int64_t slots = 0;
  int64_t slot_bytes = 0;
  if (!GetInteger(napi, options, "slots", 1, max_slots, &slots) ||
      !GetInteger(napi, options, "slotBytes", min_slot_bytes, kMaxSlotBytes, &slot_bytes)) {
    return false;
  }
  slots_ = static_cast<size_t>(slots);
  slot_bytes_ = static_cast<size_t>(slot_bytes);
  if (!Reference(napi, options, "slab", &slab_) || !Reference(napi, options, "descriptors", &descriptors_) ||
      !Reference(napi, options, "counters", &counters_)) {
    return false;
  }
  View view;
  return Resolve(&view);
}

bool BatchMemory::Resolve(View* view) const {
  const napi_env napi = env_->napi();
  napi_value slab = nullptr;
  napi_value descriptors = nullptr;
  napi_value counters = nullptr;
  napi_get_reference_value(napi, slab_, &slab);
  napi_get_reference_value(napi, descriptors_, &descriptors);
  napi_get_reference_value(napi, counters_, &counters);
  Bytes bytes;
  if (!ToBytes(napi, slab, "slab", &bytes) || !ToWords(napi, descriptors, "descriptors", slots_ * D_WORDS, &view->descriptors) ||
      !ToNumbers(napi, counters, "counters", CAPTURE_COUNTERS, &view->counters)) {
    return false;
  }
  if (bytes.size < slots_ * slot_bytes_) {
    return ThrowRange(napi, "slab must have slots * slotBytes = %zu bytes, it has %zu", slots_ * slot_bytes_, bytes.size);
  }
  view->slab = const_cast<uint8_t*>(bytes.data);
  return true;
}

void BatchMemory::Release() {
  for (napi_ref* reference : {&slab_, &descriptors_, &counters_}) {
    if (*reference != nullptr) napi_delete_reference(env_->napi(), *reference);
    *reference = nullptr;
  }
}

}  // namespace faketcp
