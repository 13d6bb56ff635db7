// Numbers and addresses as they stand in packets. Knows no protocol.
#pragma once

#include <cstdint>

namespace faketcp {

inline uint32_t Read16(const uint8_t* at) { return static_cast<uint32_t>(at[0]) << 8 | at[1]; }
inline uint32_t Read32(const uint8_t* at) { return Read16(at) << 16 | Read16(at + 2); }

/** 48 bits, XORed with a mask. */
inline uint64_t ReadMasked48(const uint8_t* at, const uint8_t* mask) {
  const auto half = [&](int i) { return static_cast<uint64_t>(Read16(at + i) ^ Read16(mask + i)); };
  return half(0) << 32 | half(2) << 16 | half(4);
}

inline void WriteMasked48(uint8_t* at, uint64_t value, const uint8_t* mask) {
  for (int i = 0; i < 6; i++) at[i] = static_cast<uint8_t>(value >> (40 - 8 * i)) ^ mask[i];
}

/** The four key words of an address: IPv4 as IPv4-mapped. */
inline void ReadIpv4Address(const uint8_t* at, uint32_t words[4]) {
  words[0] = words[1] = 0;
  words[2] = 0xffff;
  words[3] = Read32(at);
}

inline void ReadIpv6Address(const uint8_t* at, uint32_t words[4]) {
  for (int i = 0; i < 4; i++) words[i] = Read32(at + 4 * i);
}

inline bool IsMapped(const uint32_t words[4]) { return words[0] == 0 && words[1] == 0 && words[2] == 0xffff; }

}  // namespace faketcp
