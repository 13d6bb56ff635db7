// Segments that follow each other in sequence -> one train; see coalesce.h.
#include "coalesce.h"

#include <cstring>
#include <initializer_list>

#include "layout.h"

namespace faketcp {

bool Coalesce(int32_t* train, const int32_t* next, uint8_t* slab, size_t room) {
  const int32_t length = train[D_LENGTH];
  const int32_t more = next[D_LENGTH];
  const int32_t segment = train[D_SEGMENT];
  constexpr int32_t kPlain = ACK | HAS_TIMESTAMPS;
  if (length == 0 || more == 0 || length % segment != 0 || (train[D_FLAGS] & ~kPlain) != 0 || (next[D_FLAGS] & ~PSH) != train[D_FLAGS]) return false;
  // Cut at the same size, or one segment that is shorter: a train of shorter ones would become a single message.
  if (next[D_SEGMENT] != segment && (more > segment || next[D_SEGMENT] != more)) return false;
  if (static_cast<uint32_t>(next[D_SEQ]) != static_cast<uint32_t>(train[D_SEQ]) + static_cast<uint32_t>(length)) return false;
  if (static_cast<size_t>(length) + static_cast<size_t>(more) > room) return false;
  if (memcmp(train, next, KEY_WORDS * sizeof *train) != 0) return false;
  for (const int32_t word : {D_ACK, D_WINDOW, D_TSVAL, D_TSECR, D_IFINDEX, D_TTL, D_MAC_HIGH, D_MAC_LOW, D_VLAN}) {
    if (train[word] != next[word]) return false;
  }
  memcpy(slab + train[D_OFFSET] + length, slab + next[D_OFFSET], static_cast<size_t>(more));
  train[D_LENGTH] = length + more;
  train[D_FLAGS] = next[D_FLAGS];
  return true;
}

}  // namespace faketcp
