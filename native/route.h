// Where a segment is sent: destination and control message for sendmsg on an IP raw socket. Knows descriptors; makes no system call.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

namespace faketcp {

/** What all messages of one train in one sendmmsg share. */
struct Route {
  sockaddr_storage to;
  socklen_t to_size;
  alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(in6_pktinfo))];
  size_t control_size;
};

/** The descriptor's addresses must be of the family `v6` says. */
void WriteRoute(bool v6, const int32_t* descriptor, Route* route);

}  // namespace faketcp
