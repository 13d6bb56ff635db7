// What sockets of every kind have in common; see kernel_socket.h.
#include "kernel_socket.h"

#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>

namespace faketcp {
namespace {

/** The capability lets the first option pass the limit of net.core that the second keeps to. */
int SetBuffer(int fd, int force, int option, int bytes) {
  return SetInteger(fd, SOL_SOCKET, force, bytes) || SetInteger(fd, SOL_SOCKET, option, bytes) ? 0 : errno;
}

}  // namespace

bool ConfigureBound(int fd, const BoundSocket& wanted) {
  if (wanted.v6() && !SetInteger(fd, IPPROTO_IPV6, IPV6_V6ONLY, wanted.v6_only ? 1 : 0)) return false;
  if (wanted.tos == 0) return true;
  // What a socket for both families does over IPv4 follows the one option, the rest the other.
  return SetInteger(fd, IPPROTO_IP, IP_TOS, wanted.tos) && (!wanted.v6() || SetInteger(fd, IPPROTO_IPV6, IPV6_TCLASS, wanted.tos));
}

bool SetInteger(int fd, int level, int option, int value) { return setsockopt(fd, level, option, &value, sizeof value) == 0; }

int AttachFilter(int fd, const Bytes& program) {
  sock_fprog filter{};
  filter.len = static_cast<unsigned short>(program.size / sizeof(sock_filter));
  filter.filter = reinterpret_cast<sock_filter*>(const_cast<uint8_t*>(program.data));
  return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0 ? 0 : errno;
}

int SetReceiveBuffer(int fd, int bytes) { return SetBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, bytes); }

int SetSendBuffer(int fd, int bytes) { return SetBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, bytes); }

int ReadReceiveBuffer(int fd, int* bytes) {
  socklen_t size = sizeof *bytes;
  return getsockopt(fd, SOL_SOCKET, SO_RCVBUF, bytes, &size) == 0 ? 0 : errno;
}

int ReadSocketDrops(int fd, uint32_t* drops) {
  uint32_t memory[SK_MEMINFO_VARS] = {};
  socklen_t size = sizeof memory;
  if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, memory, &size) != 0) return errno;
  *drops = memory[SK_MEMINFO_DROPS];
  return 0;
}

int ReadPathMtu(int fd, bool v6, int* mtu) {
  socklen_t size = sizeof *mtu;
  return getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IPV6_MTU : IP_MTU, mtu, &size) == 0 ? 0 : errno;
}

int PendingError(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

int LocalName(int fd, SocketAddress* local) {
  local->size = sizeof local->storage;
  return getsockname(fd, local->get(), &local->size) == 0 ? 0 : errno;
}

int Names(int fd, SocketAddress* local, SocketAddress* remote) {
  if (const int error = LocalName(fd, local); error != 0) return error;
  remote->size = sizeof remote->storage;
  return getpeername(fd, remote->get(), &remote->size) == 0 ? 0 : errno;
}

}  // namespace faketcp
