// The words that cross the boundary to TypeScript, as lib/native/layout.ts documents them: one list, from which both the constants and
// the object that the addon exports are made. It knows numbers only.
#pragma once

#include <cstdint>

namespace faketcp {

#define FAKETCP_LAYOUT(X) \
  X(KEY_WORDS, 9)         \
  X(KEY_REMOTE, 0)        \
  X(KEY_LOCAL, 4)         \
  X(KEY_PORTS, 8)         \
  X(FIN, 0x01)            \
  X(SYN, 0x02)            \
  X(RST, 0x04)            \
  X(PSH, 0x08)            \
  X(ACK, 0x10)            \
  X(HAS_TIMESTAMPS, 1 << 8) \
  X(HAS_SACK, 1 << 9)     \
  X(HAS_SCALE, 1 << 10)   \
  X(SCALE_SHIFT, 16)      \
  X(D_KEY, 0)             \
  X(D_SEQ, 9)             \
  X(D_ACK, 10)            \
  X(D_FLAGS, 11)          \
  X(D_WINDOW, 12)         \
  X(D_TSVAL, 13)          \
  X(D_TSECR, 14)          \
  X(D_OFFSET, 15)         \
  X(D_LENGTH, 16)         \
  X(D_SEGMENT, 17)        \
  X(D_MSS, 18)            \
  X(D_SKIP, 18)           \
  X(D_IFINDEX, 19)        \
  X(D_TTL, 20)            \
  X(D_MAC_HIGH, 21)       \
  X(D_MAC_LOW, 22)        \
  X(D_HOP, 21)            \
  X(D_SACK_FROM, 22)      \
  X(D_VLAN, 23)           \
  X(D_SACK_TO, 23)        \
  X(D_IP_ID, 24)          \
  X(D_WORDS, 25)          \
  X(HOP_IFINDEX, 0)       \
  X(HOP_BYTES, 1)         \
  X(HOP_HEADER, 2)        \
  X(HOP_WORDS, 8)         \
  X(REJECT_TRUNCATED, 0)  \
  X(REJECT_HEADER, 1)     \
  X(REJECT_CHECKSUM, 2)   \
  X(REJECT_FRAGMENT, 3)   \
  X(REJECT_FOREIGN, 4)    \
  X(COUNT_CALLS, 5)       \
  X(COUNT_PACKETS, 6)     \
  X(CAPTURE_COUNTERS, 8)  \
  X(INFO_STATE, 0)        \
  X(INFO_OPTIONS, 1)      \
  X(INFO_SEND_SCALE, 2)   \
  X(INFO_RECEIVE_SCALE, 3) \
  X(INFO_SEND_MSS, 4)     \
  X(INFO_ADVERTISED_MSS, 5) \
  X(INFO_PATH_MTU, 6)     \
  X(INFO_TIMESTAMP, 7)    \
  X(INFO_RTT_US, 8)       \
  X(INFO_GUARD, 9)        \
  X(INFO_HOP_LIMIT, 10)   \
  X(INFO_RECEIVE_WINDOW, 11) \
  X(INFO_WORDS, 12)       \
  X(GUARD_FILTER, 0)      \
  X(GUARD_HOP_LIMIT, 1)   \
  X(GUARD_TTL, 2)         \
  X(ROUTE_TYPE, 0)        \
  X(ROUTE_IFINDEX, 1)     \
  X(ROUTE_GATEWAY, 2)     \
  X(ROUTE_FLAGS, 6)       \
  X(ROUTE_MTU, 7)         \
  X(ROUTE_WORDS, 8)       \
  X(ROUTE_ENCAPSULATED, 1) \
  X(NEIGHBOUR_STATE, 0)   \
  X(NEIGHBOUR_MAC_HIGH, 1) \
  X(NEIGHBOUR_MAC_LOW, 2) \
  X(NEIGHBOUR_WORDS, 3)   \
  X(LINK_TYPE, 0)         \
  X(LINK_FLAGS, 1)        \
  X(LINK_MAC_HIGH, 2)     \
  X(LINK_MAC_LOW, 3)      \
  X(LINK_MTU, 4)          \
  X(LINK_HEADER, 5)       \
  X(LINK_WORDS, 6)        \
  X(LINK_HEADER_OTHER, -1) \
  X(LINK_HEADER_UNKNOWN, -2) \
  X(CHANGED_LINK, 1)      \
  X(CHANGED_NEIGHBOUR, 2) \
  X(CHANGED_ROUTE, 4)     \
  X(CHANGED_ADDRESS, 8)   \
  X(CHANGED_ALL, 15)      \
  X(REPORT_KEY, 0)        \
  X(REPORT_SEQ, 9)        \
  X(REPORT_MTU, 10)       \
  X(REPORT_SIZE, 11)      \
  X(REPORT_WORDS, 12)     \
  X(RUN_TYPE, 0)          \
  X(RUN_SESSION, 1)       \
  X(RUN_OFFSET, 2)        \
  X(RUN_LENGTH, 3)        \
  X(RUN_SEGMENT, 4)       \
  X(RUN_MESSAGES, 5)      \
  X(RUN_WORDS, 6)         \
  X(CODEC_PACKED, 0)      \
  X(CODEC_UNPACKED, 1)    \
  X(CODEC_TRUNCATED, 2)   \
  X(CODEC_REPLAYED, 3)    \
  X(CODEC_FORGED, 4)      \
  X(CODEC_COUNTERS, 5)    \
  X(OFFLOAD_TSO, 1)       \
  X(OFFLOAD_GSO, 2)       \
  X(OFFLOAD_GRO, 4)       \
  X(OFFLOAD_LRO, 8)

#define FAKETCP_CONSTANT(name, value) constexpr int32_t name = value;
FAKETCP_LAYOUT(FAKETCP_CONSTANT)
#undef FAKETCP_CONSTANT

}  // namespace faketcp
