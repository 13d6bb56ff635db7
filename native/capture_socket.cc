// Opening and asking the sockets that capture packets; see capture_socket.h.
#include "capture_socket.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstring>

namespace faketcp {
namespace {

bool Enable(int fd, int level, int option) { return SetInteger(fd, level, option, 1); }

bool ConfigurePacket(int fd) {
  if (!Enable(fd, SOL_PACKET, PACKET_VNET_HDR) || !Enable(fd, SOL_PACKET, PACKET_AUXDATA)) return false;
  // Kernels before 4.20 lack it. ETH_P_IP and ETH_P_IPV6 are not shown outgoing packets anyway (dev_queue_xmit_nit serves ETH_P_ALL only).
  return Enable(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING) || errno == ENOPROTOOPT;
}

bool ConfigureRaw(int fd, bool v6) {
  if (!v6) {
    // Else any ICMP message about any TCP packet would lower the host's own path MTU for that destination (raw_err, ipv4_sk_update_pmtu).
    return Enable(fd, IPPROTO_IP, IP_PKTINFO) && SetInteger(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_INTERFACE);
  }
  return Enable(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO) && Enable(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT) && Enable(fd, IPPROTO_IPV6, IPV6_RECVTCLASS);
}

bool BindProtocol(int fd, bool v6) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(v6 ? ETH_P_IPV6 : ETH_P_IP);
  return bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
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
  const auto configure = [&](int fd) -> const char* {
    errno = AttachFilter(fd, program);
    if (errno == 0) errno = SetReceiveBuffer(fd, receive_buffer);
    if (errno != 0 || !(packet ? ConfigurePacket(fd) : ConfigureRaw(fd, v6))) return "setsockopt";
    if (packet) return BindProtocol(fd, v6) ? nullptr : "bind";
    // An IP raw socket received from the moment it was made: what came before the filter goes.
    uint8_t byte;
    for (int i = 0; i < 4096 && recv(fd, &byte, 1, MSG_DONTWAIT) >= 0; i++) {
    }
    return nullptr;
  };
  // A packet socket of protocol 0 receives nothing until bind names one, so nothing unfiltered is ever queued.
  return OpenSocket(packet ? AF_PACKET : v6 ? AF_INET6 : AF_INET, SOCK_RAW, packet ? 0 : IPPROTO_TCP, failure, configure);
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
