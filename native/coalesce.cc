// Segments and datagrams that follow each other -> one train; see coalesce.h.
#include "coalesce.h"

#include <cstring>
#include <initializer_list>

#include "layout.h"

namespace faketcp {
namespace {

/** Whether both have payload and, put together, all segments but the last are of one size. */
bool SizesFit(const int32_t* train, const int32_t* next, size_t room) {
  const int32_t length = train[D_LENGTH];
  const int32_t more = next[D_LENGTH];
  const int32_t segment = train[D_SEGMENT];
  if (length == 0 || more == 0 || length % segment != 0) return false;
  // Cut at the same size, or one segment that is shorter: a train of shorter ones would become a single message.
  if (next[D_SEGMENT] != segment && (more > segment || next[D_SEGMENT] != more)) return false;
  return static_cast<size_t>(length) + static_cast<size_t>(more) <= room;
}

void Append(int32_t* train, const int32_t* next, uint8_t* slab) {
  memcpy(slab + train[D_OFFSET] + train[D_LENGTH], slab + next[D_OFFSET], static_cast<size_t>(next[D_LENGTH]));
  train[D_LENGTH] += next[D_LENGTH];
}

}  // namespace

bool Coalesce(int32_t* train, const int32_t* next, uint8_t* slab, size_t room) {
  constexpr int32_t kPlain = ACK | HAS_TIMESTAMPS;
  if (!SizesFit(train, next, room) || (train[D_FLAGS] & ~kPlain) != 0 || (next[D_FLAGS] & ~PSH) != train[D_FLAGS]) return false;
  if (static_cast<uint32_t>(next[D_SEQ]) != static_cast<uint32_t>(train[D_SEQ]) + static_cast<uint32_t>(train[D_LENGTH])) return false;
  if (memcmp(train, next, KEY_WORDS * sizeof *train) != 0) return false;
  for (const int32_t word : {D_ACK, D_WINDOW, D_TSVAL, D_TSECR, D_IFINDEX, D_TTL, D_MAC_HIGH, D_MAC_LOW, D_VLAN}) {
    if (train[word] != next[word]) return false;
  }
  Append(train, next, slab);
  train[D_FLAGS] = next[D_FLAGS];
  return true;
}

bool CoalesceDatagrams(int32_t* train, const int32_t* next, uint8_t* slab, size_t room) {
  constexpr size_t kMost = 65535;
  if (!SizesFit(train, next, room < kMost ? room : kMost) || train[D_IFINDEX] != next[D_IFINDEX]) return false;
  if (memcmp(train, next, KEY_WORDS * sizeof *train) != 0) return false;
  Append(train, next, slab);
  return true;
}

}  // namespace faketcp
