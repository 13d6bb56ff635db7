// Opening and asking kernel UDP sockets; see udp_socket.h.
#include "udp_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#include <cerrno>
#include <cstring>

namespace faketcp {
namespace {

/** Both protocols' options: an IPv6 socket may carry IPv4. */
bool ConfigureIp(int fd, const DatagramSocket& wanted) {
  const bool v6 = wanted.v6();
  if (!ConfigureBound(fd, wanted)) return false;
  if (wanted.dont_fragment) {
    if (!SetInteger(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)) return false;
    if (v6 && !(SetInteger(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO) && SetInteger(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1))) return false;
  }
  // An IPv6 socket tells of IPv4 by IPv4-mapped addresses (ip6_datagram_recv_common_ctl).
  return v6 ? SetInteger(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) : SetInteger(fd, IPPROTO_IP, IP_PKTINFO, 1);
}

/*
 * Two sockets may have one port if both have SO_REUSEPORT, or both SO_REUSEADDR (udp_lib_lport_inuse), and what counts is what they have when the later one is
 * bound. So an offering socket is bound with SO_REUSEADDR and then has SO_REUSEPORT, those that join the other way round:
 *
 *                     to bind an offering one    a joining one
 *   has offered       EADDRINUSE                 allowed
 *   has joined        allowed                    allowed
 */
int BindsWith(PortSharing sharing) { return sharing == PortSharing::kOffer ? SO_REUSEADDR : SO_REUSEPORT; }

bool ChangeSharing(int fd, PortSharing sharing) {
  switch (sharing) {
    case PortSharing::kNone: return true;
    case PortSharing::kOffer: return SetInteger(fd, SOL_SOCKET, SO_REUSEADDR, 0) && SetInteger(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    case PortSharing::kJoin: return SetInteger(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  }
  return false;
}

const char* Configure(int fd, const DatagramSocket& wanted) {
  if (!ConfigureIp(fd, wanted)) return "setsockopt";
  // Kernels before 5.0 lack it, and never merge datagrams then.
  if (!SetInteger(fd, IPPROTO_UDP, UDP_GRO, 1) && errno != ENOPROTOOPT) return "setsockopt";
  errno = SetReceiveBuffer(fd, wanted.receive_buffer);
  if (errno != 0) return "setsockopt";
  if (wanted.sharing != PortSharing::kNone && !SetInteger(fd, SOL_SOCKET, BindsWith(wanted.sharing), 1)) return "setsockopt";
  if (bind(fd, wanted.local.get(), wanted.local.size) != 0) return "bind";
  return ChangeSharing(fd, wanted.sharing) ? nullptr : "setsockopt";
}

}  // namespace

int OpenDatagram(const DatagramSocket& wanted, Failure* failure) {
  return OpenSocket(wanted.local.storage.ss_family, SOCK_DGRAM, IPPROTO_UDP, failure, [&](int fd) { return Configure(fd, wanted); });
}

void ReadDelivery(const msghdr& message, Delivery* delivery) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(const_cast<msghdr*>(&message), control)) {
    if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
      delivery->segment = static_cast<uint32_t>(Payload<int>(control));
    } else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
      const auto info = Payload<in_pktinfo>(control);
      delivery->has_local = true;
      delivery->local[0] = delivery->local[1] = 0;
      delivery->local[2] = 0xffff;
      delivery->local[3] = static_cast<int32_t>(ntohl(info.ipi_addr.s_addr));
      delivery->ifindex = static_cast<uint32_t>(info.ipi_ifindex);
    } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
      const auto info = Payload<in6_pktinfo>(control);
      delivery->has_local = true;
      memcpy(delivery->local, info.ipi6_addr.s6_addr, sizeof delivery->local);
      for (int32_t& word : delivery->local) word = static_cast<int32_t>(ntohl(static_cast<uint32_t>(word)));
      delivery->ifindex = info.ipi6_ifindex;
    }
  }
}

}  // namespace faketcp
