// Descriptor -> IP and TCP header bytes, checksum included. Pure: no system call, no JavaScript. Knows nothing of sockets or trains:
// the caller says which segment of the train it is.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace faketcp {

/** IPv6 (40) + TCP (20) + NOP NOP timestamps (12) + NOP NOP SACK of one block (12). */
constexpr size_t kMaxHeaderBytes = 84;

/** The words of one side of a descriptor's key, as unsigned. */
inline uint32_t Word(const int32_t* descriptor, int32_t index) { return static_cast<uint32_t>(descriptor[index]); }

inline bool IsMapped(const int32_t* words) { return words[0] == 0 && words[1] == 0 && words[2] == 0xffff; }

/** Bytes of TCP header that WriteHeaders will write, and of both headers. */
size_t TcpHeaderBytes(const int32_t* descriptor);
size_t HeaderBytes(bool v6, const int32_t* descriptor);

/** One segment, or the consecutive ones that a packet with a GSO size stands for. */
struct Segment {
  uint32_t seq;
  /** Segments of its train before it: IPv4 identifications count up, as those of the kernel's own trains do (inet_gso_segment). */
  uint32_t index;
  const uint8_t* payload;
  size_t length;
  /** PSH and FIN of the descriptor go on the last segment of a train only. */
  bool last;
  /** The checksum is left to the kernel or the device (CHECKSUM_PARTIAL): the field holds the pseudo-header's sum, the payload is not read. */
  bool partial;
};

/** Returns the bytes written, at most kMaxHeaderBytes. The descriptor's family must be `v6`, which the caller has checked. */
size_t WriteHeaders(bool v6, const int32_t* descriptor, const Segment& segment, uint8_t* out);

}  // namespace faketcp
