// The Internet checksum (RFC 1071) over byte ranges. Sums are kept in memory byte order, so the folded result is stored as it is,
// on either endianness (RFC 1071, 2.B). It knows no protocol but the TCP pseudo-header.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace faketcp {

/** Sum of a range that starts at an even offset of the checksummed data. Four bytes into eight: no carry to look after, and it vectorises. */
inline uint64_t Sum(const uint8_t* data, size_t size) {
  uint64_t sum = 0;
  const size_t words = size / 4;
  for (size_t i = 0; i < words; i++) {
    uint32_t word;
    memcpy(&word, data + i * 4, 4);
    sum += word;
  }
  if (size % 4 != 0) {
    uint32_t tail = 0;
    memcpy(&tail, data + words * 4, size % 4);
    sum += tail;
  }
  return sum;
}

inline uint16_t Fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

/** RFC 9293, 3.1 and RFC 8200, 8.1. Addresses as four words in host order; an IPv4-mapped prefix must not be summed, so `v6` tells. */
inline uint64_t PseudoHeaderSum(bool v6, const uint32_t source[4], const uint32_t destination[4], uint32_t tcp_length) {
  uint64_t sum = htonl(IPPROTO_TCP) + static_cast<uint64_t>(htonl(tcp_length));
  for (int i = v6 ? 0 : 3; i < 4; i++) sum += static_cast<uint64_t>(htonl(source[i])) + htonl(destination[i]);
  return sum;
}

}  // namespace faketcp
