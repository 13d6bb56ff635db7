// Opening and asking kernel UDP sockets; see udp_socket.h.
#include "udp_socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace faketcp {
namespace {

bool Set(int fd, int level, int option, int value) { return setsockopt(fd, level, option, &value, sizeof value) == 0; }

/** Both protocols' options: an IPv6 socket may carry IPv4. */
bool ConfigureIp(int fd, bool v6, const DatagramSocket& wanted) {
  if (v6 && !Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, wanted.v6_only ? 1 : 0)) return false;
  if (wanted.tos != 0 && !Set(fd, IPPROTO_IP, IP_TOS, wanted.tos)) return false;
  if (wanted.tos != 0 && v6 && !Set(fd, IPPROTO_IPV6, IPV6_TCLASS, wanted.tos)) return false;
  if (wanted.dont_fragment) {
    if (!Set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)) return false;
    if (v6 && !(Set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO) && Set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1))) return false;
  }
  // An IPv6 socket tells of IPv4 by IPv4-mapped addresses (ip6_datagram_recv_common_ctl).
  return v6 ? Set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) : Set(fd, IPPROTO_IP, IP_PKTINFO, 1);
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
    case PortSharing::kOffer: return Set(fd, SOL_SOCKET, SO_REUSEADDR, 0) && Set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    case PortSharing::kJoin: return Set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  }
  return false;
}

const char* Configure(int fd, const DatagramSocket& wanted) {
  if (!ConfigureIp(fd, wanted.local.storage.ss_family == AF_INET6, wanted)) return "setsockopt";
  // Kernels before 5.0 lack it, and never merge datagrams then.
  if (!Set(fd, IPPROTO_UDP, UDP_GRO, 1) && errno != ENOPROTOOPT) return "setsockopt";
  errno = SetReceiveBuffer(fd, wanted.receive_buffer);
  if (errno != 0) return "setsockopt";
  if (wanted.sharing != PortSharing::kNone && !Set(fd, SOL_SOCKET, BindsWith(wanted.sharing), 1)) return "setsockopt";
  if (bind(fd, wanted.local.get(), wanted.local.size) != 0) return "bind";
  return ChangeSharing(fd, wanted.sharing) ? nullptr : "setsockopt";
}

template <class T>
T Payload(const cmsghdr* control) {
  T value{};
  memcpy(&value, CMSG_DATA(control), sizeof value);
  return value;
}

}  // namespace

int OpenDatagram(const DatagramSocket& wanted, Failure* failure) {
  const int fd = socket(wanted.local.storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP);
  if (fd < 0) {
    *failure = {errno, "socket"};
    return -1;
  }
  if (const char* syscall = Configure(fd, wanted)) {
    *failure = {errno, syscall};
    close(fd);
    return -1;
  }
  return fd;
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

int ReadPathMtu(int fd, bool v6, int* mtu) {
  socklen_t size = sizeof *mtu;
  return getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, mtu, &size) == 0 ? 0 : errno;
}

}  // namespace faketcp
