// Opening and asking kernel UDP sockets, and what a received datagram's control messages say. Knows nothing of JavaScript, slabs or polls.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "kernel_socket.h"

namespace faketcp {

/** Who else may have the port. */
enum class PortSharing {
  kNone,
  /** The bind fails if anybody has it, but sockets that have joined; sockets of the same user may join from then on. */
  kOffer,
  /** Joins a socket that has offered it, and does not keep others from offering it anew. */
  kJoin,
};

struct DatagramSocket : BoundSocket {
  PortSharing sharing;
  /** Datagrams that do not fit the path are refused with EMSGSIZE (IP_PMTUDISC_DO), not fragmented. */
  bool dont_fragment;
  int receive_buffer;
};

/** Non-blocking, merged datagrams wanted (UDP_GRO, where the kernel has it), bound. -1 with `failure` filled. */
int OpenDatagram(const DatagramSocket& wanted, Failure* failure);

/** Room for every control message that such a socket asks for. */
constexpr size_t kDatagramControlBytes = CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(int));

/** What a received message says beside its bytes. */
struct Delivery {
  /** The datagram's destination, where told (IP_PKTINFO): IPv4 as IPv4-mapped. */
  bool has_local = false;
  int32_t local[4];
  uint32_t ifindex = 0;
  /** Bytes of each datagram of those that the kernel has merged; 0 if it is one. */
  uint32_t segment = 0;
};
void ReadDelivery(const msghdr& message, Delivery* delivery);

}  // namespace faketcp
