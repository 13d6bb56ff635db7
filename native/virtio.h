// The ten bytes before each packet of an AF_PACKET socket under PACKET_VNET_HDR. `<linux/virtio_net.h>` does not compile as C++. Knows nothing else.
#pragma once

#include <cstdint>

namespace faketcp {

/** struct virtio_net_hdr, host byte order. */
struct VirtioNetHeader {
  static constexpr uint8_t kNeedsChecksum = 1;
  static constexpr uint8_t kDataValid = 2;
  static constexpr uint8_t kGsoTcpv4 = 1;
  static constexpr uint8_t kGsoTcpv6 = 4;
  static constexpr uint8_t kGsoEcn = 0x80;
  uint8_t flags;
  uint8_t gso_type;
  uint16_t hdr_len;
  uint16_t gso_size;
  uint16_t csum_start;
  uint16_t csum_offset;
};
static_assert(sizeof(VirtioNetHeader) == 10);

}  // namespace faketcp
