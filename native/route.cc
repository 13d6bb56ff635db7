// Destination and control message of a segment; see route.h.
//
// The source address goes along as a control message, because the kernel routes by that (raw_sendmsg: ipc.addr), not by the header's bytes:
// without it, policy routing by source would not apply.
#include "route.h"

#include <arpa/inet.h>

#include <cstring>

#include "headers.h"

namespace faketcp {
namespace {

template <class T>
void WriteControl(Route* route, int level, int type, const T& info) {
  auto* control = reinterpret_cast<cmsghdr*>(route->control);
  control->cmsg_level = level;
  control->cmsg_type = type;
  control->cmsg_len = CMSG_LEN(sizeof info);
  memcpy(CMSG_DATA(control), &info, sizeof info);
  route->control_size = CMSG_SPACE(sizeof info);
}

void WriteIpv4(const int32_t* d, Route* route) {
  auto* to = reinterpret_cast<sockaddr_in*>(&route->to);
  to->sin_family = AF_INET;
  to->sin_addr.s_addr = htonl(Word(d, KEY_REMOTE + 3));
  route->to_size = sizeof *to;
  in_pktinfo info{};
  info.ipi_spec_dst.s_addr = htonl(Word(d, KEY_LOCAL + 3));
  WriteControl(route, IPPROTO_IP, IP_PKTINFO, info);
}

void WriteIpv6(const int32_t* d, Route* route) {
  auto* to = reinterpret_cast<sockaddr_in6*>(&route->to);
  to->sin6_family = AF_INET6;
  route->to_size = sizeof *to;
  in6_pktinfo info{};
  for (int i = 0; i < 4; i++) {
    const uint32_t remote = htonl(Word(d, KEY_REMOTE + i));
    const uint32_t local = htonl(Word(d, KEY_LOCAL + i));
    memcpy(to->sin6_addr.s6_addr + 4 * i, &remote, 4);
    memcpy(info.ipi6_addr.s6_addr + 4 * i, &local, 4);
  }
  if (IN6_IS_ADDR_LINKLOCAL(&to->sin6_addr) || IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr)) {
    to->sin6_scope_id = Word(d, D_IFINDEX);
    info.ipi6_ifindex = Word(d, D_IFINDEX);
  }
  WriteControl(route, IPPROTO_IPV6, IPV6_PKTINFO, info);
}

}  // namespace

void WriteRoute(bool v6, const int32_t* descriptor, Route* route) {
  memset(route, 0, sizeof *route);
  if (v6) {
    WriteIpv6(descriptor, route);
  } else {
    WriteIpv4(descriptor, route);
  }
}

}  // namespace faketcp
