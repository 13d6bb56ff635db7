// ICMP message -> report that a packet of ours was too long for its path. Pure: no system call, no JavaScript, no allocation, so that a fuzzer can
// call it. Knows ICMP and the headers of the packet that it quotes; whether that packet was ever sent, others judge.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace faketcp {

/**
 * Fills REPORT_WORDS words. `message` is what an ICMP raw socket receives: for IPv4 the whole packet, for IPv6 the ICMP message alone, whose checksum
 * the kernel has verified (rawv6_rcv). False for everything but a well-formed fragmentation-needed or packet-too-big about a TCP packet.
 */
bool ParsePathReport(bool v6, const uint8_t* message, size_t size, int32_t* report);

}  // namespace faketcp
