// Opening and asking the sockets that capture packets. Knows kernel options; knows nothing of JavaScript, slabs or descriptors.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "js_values.h"
#include "kernel_socket.h"
#include "parse.h"
#include "virtio.h"

namespace faketcp {

constexpr size_t kEthernetHeader = 14;
constexpr size_t kMinSlotBytes = sizeof(VirtioNetHeader) + kEthernetHeader + 65535;
/** Room for every control message that a capture socket asks for. */
constexpr size_t kCaptureControlBytes = 128;

enum class CaptureMode { kPacket, kRaw };

/** A socket into which nothing comes that `program` refuses. -1 with `failure` filled. */
int OpenCapture(CaptureMode mode, bool v6, const Bytes& program, int receive_buffer, Failure* failure);

/** Drops since the last call (kPacket) or since the socket was opened (kRaw), in `drops`. 0 or a positive errno. */
int ReadDrops(CaptureMode mode, int fd, uint32_t* drops);

/** Control messages and source address of a received packet -> what the parser needs. For raw IPv6, addresses and hop limit too. */
struct Arrival {
  PacketMeta meta;
  /** Where the network header starts, from the first byte after the virtio header. */
  size_t network_offset = 0;
  IpHeader ip{};
};
void ReadArrival(CaptureMode mode, bool v6, const msghdr& message, Arrival* arrival);

}  // namespace faketcp
