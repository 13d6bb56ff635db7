// The kernel TCP socket behind a flow; see carrier_socket.h.
#include "carrier_socket.h"

#include <linux/filter.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstring>

#include "headers.h"
#include "layout.h"

namespace faketcp {
namespace {

/** Where TCP_INFO has tcpi_rcv_wnd, since Linux 6.2; before, tcpi_rcv_ssthresh is at most a little less after the handshake. */
constexpr size_t kAdvertisedWindow = 232;

/** Of ip(7) and ipv6(7): as the route or the host says. */
constexpr int kDefaultHopLimit = -1;

/** An IPv6 socket may carry IPv4, for which it keeps a TTL of its own. 0 or a positive errno. */
int SetHopLimit(int fd, int hops) {
  int domain = 0;
  socklen_t size = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 || !SetInteger(fd, IPPROTO_IP, IP_TTL, hops)) return errno;
  return domain != AF_INET6 || SetInteger(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, hops) ? 0 : errno;
}

const char* Configure(int fd, const StreamSocket& wanted) {
  if (wanted.reuse_address && !SetInteger(fd, SOL_SOCKET, SO_REUSEADDR, 1)) return "setsockopt";
  if (wanted.reuse_port && !SetInteger(fd, SOL_SOCKET, SO_REUSEPORT, 1)) return "setsockopt";
  if (!ConfigureBound(fd, wanted)) return "setsockopt";
  // The kernel would label its handshake with a number of its own that nobody can ask it for, and what follows could not go on with it.
  if (wanted.v6() && !SetInteger(fd, IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, 0)) return "setsockopt";
  if (bind(fd, wanted.local.get(), wanted.local.size) != 0) return "bind";
  // Before connect or listen: the kernel must not acknowledge the first message.
  errno = AttachFilter(fd, wanted.filter);
  return errno == 0 || errno == EPERM ? nullptr : "setsockopt"; // EPERM: see MuteStream
}

/** The remote address is one of this host's: a datagram socket can be bound to it. */
bool IsLocal(int fd) {
  SocketAddress local;
  SocketAddress remote;
  if (Names(fd, &local, &remote) != 0) return false;
  int32_t words[4];
  WordsOf(remote, words);
  if (IsMapped(words) && (words[3] >> 24 & 0xff) == 127) return true;
  reinterpret_cast<sockaddr_in*>(&remote.storage)->sin_port = 0;
  const int probe = socket(remote.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return false;
  const bool bound = bind(probe, remote.get(), remote.size) == 0;
  close(probe);
  return bound;
}

bool LingerZero(int fd) {
  const linger zero = {1, 0};
  return setsockopt(fd, SOL_SOCKET, SO_LINGER, &zero, sizeof zero) == 0;
}

/** tcp_disconnect sends nothing for a socket under repair. Repair is not switched off again: that would send an ACK. */
bool Repair(int fd) { return SetInteger(fd, IPPROTO_TCP, TCP_REPAIR, TCP_REPAIR_ON); }

/** The reset of SO_LINGER 0 finds no route to the peer through the loopback device and is lost in the host. */
bool BindToLoopback(int fd) { return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2) == 0; }

const char* Silence(int fd) {
  // Through `lo` the reset would reach a peer on this host, so there it is repair or nothing.
  if (!IsLocal(fd) && BindToLoopback(fd) && LingerZero(fd)) return "device";
  if (Repair(fd)) return "repair";
  LingerZero(fd);
  return "reset";
}

}  // namespace

int OpenStream(const StreamSocket& wanted, Failure* failure) {
  return OpenSocket(wanted.local.storage.ss_family, SOCK_STREAM, IPPROTO_TCP, failure, [&](int fd) { return Configure(fd, wanted); });
}

int MuteStream(int fd, const Bytes& program) {
  const int error = AttachFilter(fd, program);
  if (error != EPERM) return error;
  constexpr int kHighest = 255;
  // An IPv6 socket may carry IPv4: the one option then counts for one, the other for the other (tcp_v4_rcv, tcp_v6_rcv).
  const bool v4 = SetInteger(fd, IPPROTO_IP, IP_MINTTL, kHighest);
  const int refused = errno;
  const bool v6 = SetInteger(fd, IPPROTO_IPV6, IPV6_MINHOPCOUNT, kHighest);
  if (!v4 && !v6) return refused;
  // Unread data would make the kernel's close a reset instead of the FIN that tells the peer.
  for (int i = 0; i < 64 && recv(fd, nullptr, INT_MAX, MSG_TRUNC | MSG_DONTWAIT) > 0; i++) continue;
  return 0;
}

int HopLimit(int fd) {
  SocketAddress local;
  SocketAddress remote;
  if (Names(fd, &local, &remote) != 0) return 0;
  int32_t words[4];
  WordsOf(remote, words);
  const bool v4 = IsMapped(words);
  int limit = 0;
  socklen_t size = sizeof limit;
  const int failed = v4 ? getsockopt(fd, IPPROTO_IP, IP_TTL, &limit, &size) : getsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &limit, &size);
  return failed == 0 ? limit : 0;
}

int QuietenStream(int fd, uint32_t mark) {
  if (setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return errno;
  return SetHopLimit(fd, 1);
}

void LoosenStream(int fd) {
  SetHopLimit(fd, kDefaultHopLimit);
  // Without the capability it stays marked, and nobody asks for the mark alone.
  SetInteger(fd, SOL_SOCKET, SO_MARK, 0);
}

int AttachSteering(int fd, const Bytes& program) {
  sock_fprog steering{};
  steering.len = static_cast<unsigned short>(program.size / sizeof(sock_filter));
  steering.filter = reinterpret_cast<sock_filter*>(const_cast<uint8_t*>(program.data));
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &steering, sizeof steering) == 0 ? 0 : errno;
}

int SetUserTimeout(int fd, uint32_t milliseconds) {
  return setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds) == 0 ? 0 : errno;
}

int ReadInfo(int fd, int32_t* out) {
  // Later kernels fill more than the headers here know of.
  alignas(tcp_info) uint8_t filled[512] = {};
  socklen_t size = sizeof filled;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, filled, &size) != 0) return errno;
  tcp_info info;
  memcpy(&info, filled, sizeof info);
  uint32_t window = info.tcpi_rcv_ssthresh;
  if (size >= kAdvertisedWindow + sizeof window) memcpy(&window, filled + kAdvertisedWindow, sizeof window);
  uint32_t timestamp = 0;
  size = sizeof timestamp;
  if (getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &timestamp, &size) != 0) return errno;
  out[INFO_STATE] = info.tcpi_state;
  out[INFO_OPTIONS] = info.tcpi_options;
  out[INFO_SEND_SCALE] = info.tcpi_snd_wscale;
  out[INFO_RECEIVE_SCALE] = info.tcpi_rcv_wscale;
  out[INFO_SEND_MSS] = static_cast<int32_t>(info.tcpi_snd_mss);
  out[INFO_ADVERTISED_MSS] = static_cast<int32_t>(info.tcpi_advmss);
  out[INFO_PATH_MTU] = static_cast<int32_t>(info.tcpi_pmtu);
  // do_tcp_getsockopt clears the lowest bit of a clock of milliseconds: the next one is never behind what the kernel has sent.
  out[INFO_TIMESTAMP] = static_cast<int32_t>(timestamp + 1);
  out[INFO_RTT_US] = static_cast<int32_t>(info.tcpi_rtt);
  int lowest = 0;
  size = sizeof lowest;
  const bool by_hop_limit = getsockopt(fd, IPPROTO_IP, IP_MINTTL, &lowest, &size) == 0 && lowest > 0;
  out[INFO_GUARD] = by_hop_limit ? GUARD_HOP_LIMIT : GUARD_FILTER;
  out[INFO_HOP_LIMIT] = HopLimit(fd);
  out[INFO_RECEIVE_WINDOW] = static_cast<int32_t>(window);
  return 0;
}

const char* EndStream(int fd, Ending how) {
  const char* way = "fin";
  if (how == Ending::kSilent) {
    way = Silence(fd);
  } else if (how == Ending::kReset) {
    LingerZero(fd);
    way = "reset";
  }
  close(fd);
  return way;
}

}  // namespace faketcp
