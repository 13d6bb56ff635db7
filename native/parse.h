// Packet bytes -> descriptor. Pure: no system call, no JavaScript, no allocation, so that a fuzzer can call it. Knows IPv4, IPv6 and TCP
// headers; knows nothing of sockets, link headers or flows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace faketcp {

enum class Verdict : int32_t {
  kAccepted = -1,
  kTruncated = REJECT_TRUNCATED,
  kHeader = REJECT_HEADER,
  kChecksum = REJECT_CHECKSUM,
  kFragment = REJECT_FRAGMENT,
  kForeign = REJECT_FOREIGN,
};

/** How far the TCP checksum of a packet can be trusted or checked. */
enum class Checksum {
  /** The kernel vouches for it, or it is unfinished and never crossed a wire (virtio flags DATA_VALID and NEEDS_CSUM). */
  kKnownGood,
  /** Must be right. */
  kVerify,
  /** Must be right, or be the pseudo-header sum alone: see `ParseTcp`. */
  kVerifyOrPartial,
};

/** What came beside the packet's bytes. */
struct PacketMeta {
  Checksum checksum = Checksum::kVerify;
  /** Segment size of a packet that GRO or the sender's GSO put together, else 0. */
  uint32_t gso_size = 0;
  uint32_t ifindex = 0;
  uint32_t vlan = 0;
  uint32_t mac_high = 0;
  uint32_t mac_low = 0;
};

/** `packet[0]` is the first byte of the IP header and stands at `offset` in the slab. `descriptor` has D_WORDS words. */
Verdict ParseIpv4(const uint8_t* packet, size_t size, uint32_t offset, const PacketMeta& meta, int32_t* descriptor);
Verdict ParseIpv6(const uint8_t* packet, size_t size, uint32_t offset, const PacketMeta& meta, int32_t* descriptor);

/** The packet without its IP header, which an IPv6 raw socket takes away. `tos_ttl` as in D_TTL. */
struct IpHeader {
  bool v6;
  uint32_t source[4];
  uint32_t destination[4];
  uint32_t tos_ttl;
};
Verdict ParseTcp(const IpHeader& ip, const uint8_t* segment, size_t size, uint32_t offset, const PacketMeta& meta, int32_t* descriptor);

}  // namespace faketcp
