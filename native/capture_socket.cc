// Opening and asking the sockets that capture packets; see capture_socket.h.
#include "capture_socket.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace faketcp {
namespace {

bool Enable(int fd, int level, int option) {
  const int one = 1;
  return setsockopt(fd, level, option, &one, sizeof one) == 0;
}

bool ConfigurePacket(int fd) {
  if (!Enable(fd, SOL_PACKET, PACKET_VNET_HDR) || !Enable(fd, SOL_PACKET, PACKET_AUXDATA)) return false;
  // Kernels before 4.20 lack it. ETH_P_IP and ETH_P_IPV6 are not shown outgoing packets anyway (dev_queue_xmit_nit serves ETH_P_ALL only).
  return Enable(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING) || errno == ENOPROTOOPT;
}

bool ConfigureRaw(int fd, bool v6) {
  if (!v6) {
    // Else any ICMP message about any TCP packet would lower the host's own path MTU for that destination (raw_err, ipv4_sk_update_pmtu).
    const int never = IP_PMTUDISC_INTERFACE;
    return Enable(fd, IPPROTO_IP, IP_PKTINFO) && setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &never, sizeof never) == 0;
  }
  return Enable(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO) && Enable(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT) && Enable(fd, IPPROTO_IPV6, IPV6_RECVTCLASS);
}

bool BindProtocol(int fd, bool v6) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(v6 ? ETH_P_IPV6 : ETH_P_IP);
  return bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

/** A control message's payload, copied out because its alignment is not that of T. */
template <class T>
T Payload(const cmsghdr* control) {
  T value{};
  memcpy(&value, CMSG_DATA(control), sizeof value);
  return value;
}

void ReadWords(const in6_addr& address, uint32_t words[4]) {
  memcpy(words, address.s6_addr, 16);
  for (int i = 0; i < 4; i++) words[i] = ntohl(words[i]);
}

void ReadLinkAddress(const sockaddr_ll& from, PacketMeta* meta) {
  meta->ifindex = static_cast<uint32_t>(from.sll_ifindex);
  if (from.sll_halen != 6) return;
  const uint8_t* mac = from.sll_addr;
  meta->mac_high = 1u << 31 | static_cast<uint32_t>(mac[0]) << 8 | mac[1];
  meta->mac_low = static_cast<uint32_t>(mac[2]) << 24 | static_cast<uint32_t>(mac[3]) << 16 | static_cast<uint32_t>(mac[4]) << 8 | mac[5];
}

}  // namespace

int OpenCapture(CaptureMode mode, bool v6, const Bytes& program, int receive_buffer, Failure* failure) {
  const bool packet = mode == CaptureMode::kPacket;
  // A packet socket of protocol 0 receives nothing until bind names one, so nothing unfiltered is ever queued.
  const int fd = packet ? socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
                        : socket(v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) {
    *failure = {errno, "socket"};
    return -1;
  }
  if (const int error = AttachFilter(fd, program); error != 0) {
    *failure = {error, "setsockopt"};
  } else if (const int refused = SetReceiveBuffer(fd, receive_buffer); refused != 0) {
    *failure = {refused, "setsockopt"};
  } else if (!(packet ? ConfigurePacket(fd) : ConfigureRaw(fd, v6))) {
    *failure = {errno, "setsockopt"};
  } else if (packet && !BindProtocol(fd, v6)) {
    *failure = {errno, "bind"};
  } else {
    // An IP raw socket received from the moment it was made: what came before the filter goes.
    if (!packet) {
      uint8_t byte;
      for (int i = 0; i < 4096 && recv(fd, &byte, 1, MSG_DONTWAIT) >= 0; i++) {
      }
    }
    return fd;
  }
  close(fd);
  return -1;
}

int AttachFilter(int fd, const Bytes& program) {
  sock_fprog filter{};
  filter.len = static_cast<unsigned short>(program.size / sizeof(sock_filter));
  filter.filter = reinterpret_cast<sock_filter*>(const_cast<uint8_t*>(program.data));
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0 ? 0 : errno;
}

int SetReceiveBuffer(int fd, int bytes) {
  if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) == 0) return 0;
  return setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0 ? 0 : errno;
}

int ReadDrops(CaptureMode mode, int fd, uint32_t* drops) {
  if (mode == CaptureMode::kPacket) {
    tpacket_stats stats{};
    socklen_t size = sizeof stats;
    if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) != 0) return errno;
    *drops = stats.tp_drops;
    return 0;
  }
  return ReadSocketDrops(fd, drops);
}

int ReadSocketDrops(int fd, uint32_t* drops) {
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t size = sizeof memory;
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) != 0) return errno;
  *drops = memory[SK_MEMINFO_DROPS];
  return 0;
}

void ReadArrival(CaptureMode mode, bool v6, const msghdr& message, Arrival* arrival) {
  PacketMeta& meta = arrival->meta;
  if (mode == CaptureMode::kPacket) {
    sockaddr_ll from{};
    memcpy(&from, message.msg_name, sizeof from);
    ReadLinkAddress(from, &meta);
    arrival->network_offset = kEthernetHeader;
  } else {
    meta.checksum = Checksum::kVerifyOrPartial;
    if (v6) {
      sockaddr_in6 from{};
      memcpy(&from, message.msg_name, sizeof from);
      arrival->ip.v6 = true;
      ReadWords(from.sin6_addr, arrival->ip.source);
    }
  }
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr; control = CMSG_NXTHDR(const_cast<msghdr*>(&message), control)) {
    if (control->cmsg_level == SOL_PACKET && control->cmsg_type == PACKET_AUXDATA) {
      const auto aux = Payload<tpacket_auxdata>(control);
      // Devices without a link header (tun, PPP, WireGuard) have their network header at 0.
      arrival->network_offset = aux.tp_net;
      if (aux.tp_status & TP_STATUS_VLAN_VALID) meta.vlan = aux.tp_vlan_tci;
    } else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
      meta.ifindex = static_cast<uint32_t>(Payload<in_pktinfo>(control).ipi_ifindex);
    } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
      const auto info = Payload<in6_pktinfo>(control);
      ReadWords(info.ipi6_addr, arrival->ip.destination);
      meta.ifindex = info.ipi6_ifindex;
    } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_HOPLIMIT) {
      arrival->ip.tos_ttl |= static_cast<uint32_t>(Payload<int>(control)) & 0xff;
    } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_TCLASS) {
      arrival->ip.tos_ttl |= (static_cast<uint32_t>(Payload<int>(control)) & 0xff) << 8;
    }
  }
}

}  // namespace faketcp
