// What sockets of every kind have in common: opening one, options that do not depend on what it carries, the address that it has. Knows nothing of
// the objects that own one.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "address.h"
#include "js_values.h"

namespace faketcp {

struct Failure {
  int error = 0;
  const char* syscall = nullptr;
};

/**
 * A non-blocking socket, closed on exec, once `configure(fd)` has prepared it: that returns null, or the system call that failed, with errno.
 * -1 with `failure` filled.
 */
template <class Configure>
int OpenSocket(int family, int type, int protocol, Failure* failure, Configure configure) {
  const int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  const char* failed = fd < 0 ? "socket" : configure(fd);
  if (failed == nullptr) return fd;
  *failure = {errno, failed};
  if (fd >= 0) close(fd);
  return -1;
}

/** What a socket that is to be bound has, whatever its type. */
struct BoundSocket {
  SocketAddress local;
  /** IPV6_V6ONLY, for AF_INET6. */
  bool v6_only;
  /** Type of service, or traffic class, of every packet; its two ECN bits are the kernel's. */
  int tos;

  bool v6() const { return local.storage.ss_family == AF_INET6; }
};

/** All of it but the address. False with errno. */
bool ConfigureBound(int fd, const BoundSocket& wanted);

/** False with errno. */
bool SetInteger(int fd, int level, int option, int value);

/** SO_ATTACH_FILTER; replaces what is attached. 0 or a positive errno. */
int AttachFilter(int fd, const Bytes& program);

/** SO_RCVBUFFORCE (CAP_NET_ADMIN), else SO_RCVBUF. 0 or a positive errno. */
int SetReceiveBuffer(int fd, int bytes);

/** SO_SNDBUFFORCE (CAP_NET_ADMIN), else SO_SNDBUF. 0 or a positive errno. */
int SetSendBuffer(int fd, int bytes);

/** SO_RCVBUF, which is twice what was asked for. 0 or a positive errno. */
int ReadReceiveBuffer(int fd, int* bytes);

/** What any IP socket has dropped for want of buffer since it was opened (SO_MEMINFO). 0 or a positive errno. */
int ReadSocketDrops(int fd, uint32_t* drops);

/** IP_MTU or IPV6_MTU of a connected socket; 0 or a positive errno. */
int ReadPathMtu(int fd, bool v6, int* mtu);

/** SO_ERROR; reading clears it. */
int PendingError(int fd);

/** 0 or a positive errno. */
int LocalName(int fd, SocketAddress* local);
/** Local and remote address; 0 or a positive errno. */
int Names(int fd, SocketAddress* local, SocketAddress* remote);

/** A control message's payload, copied out because its alignment is not that of T. */
template <class T>
T Payload(const cmsghdr* control) {
  T value{};
  memcpy(&value, CMSG_DATA(control), sizeof value);
  return value;
}

}  // namespace faketcp
