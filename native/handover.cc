// Connected sockets on their way; see handover.h. One connection for each: a datagram socket would need no connection, but its queue holds
// net.unix.max_dgram_qlen messages (10), and neither end could know the other's user before it trusts it with a socket.
#include "handover.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace faketcp {
namespace {

/** A name after a zero byte is in the abstract namespace (unix(7)): it goes with its socket. */
socklen_t AbstractName(const char* name, sockaddr_un* out) {
  *out = {};
  out->sun_family = AF_UNIX;
  const size_t length = strnlen(name, sizeof out->sun_path - 1);
  memcpy(out->sun_path + 1, name, length);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
}

constexpr int kType = SOCK_SEQPACKET;

/** Abstract names have no permissions: anybody in the network namespace may have taken or found this one. */
bool IsOurUser(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

/** A message of one byte, with one descriptor. */
struct Message {
  Message() {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    // Without the padding, in which a second descriptor would have room: the kernel closes what does not fit.
    header.msg_controllen = CMSG_LEN(sizeof(int));
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  char byte = 0;
  iovec part = {&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
};

int Pass(int connection, const char* inbox, int fd) {
  sockaddr_un name;
  const socklen_t size = AbstractName(inbox, &name);
  if (connect(connection, reinterpret_cast<sockaddr*>(&name), size) != 0) return errno;
  if (!IsOurUser(connection)) return EACCES;
  Message message;
  cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  control->cmsg_level = SOL_SOCKET;
  control->cmsg_type = SCM_RIGHTS;
  control->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(control), &fd, sizeof fd);
  return sendmsg(connection, &message.header, MSG_NOSIGNAL | MSG_DONTWAIT) == 1 ? 0 : errno;
}

}  // namespace

int PassSocket(const char* inbox, int fd) {
  const int connection = socket(AF_UNIX, kType | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection < 0) return errno;
  const int error = Pass(connection, inbox, fd);
  close(connection);  // what was sent stays readable
  return error;
}

int OpenInbox(const char* name, Failure* failure) {
  return OpenSocket(AF_UNIX, kType, 0, failure, [name](int fd) -> const char* {
    sockaddr_un address;
    const socklen_t size = AbstractName(name, &address);
    if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0) return "bind";
    return listen(fd, SOMAXCONN) == 0 ? nullptr : "listen";
  });
}

int AcceptSender(int inbox, int* error) {
  const int fd = accept4(inbox, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  *error = fd >= 0 || errno == EINTR || errno == ECONNABORTED ? 0 : errno;
  if (fd < 0 || IsOurUser(fd)) return fd;
  close(fd);
  return -1;
}

int ReceiveSocket(int sender, int* error) {
  Message message;
  const ssize_t size = recvmsg(sender, &message.header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  *error = size < 0 && errno != ECONNRESET ? errno : 0;
  if (size <= 0) return -1;
  const cmsghdr* control = CMSG_FIRSTHDR(&message.header);
  if (control == nullptr || control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS || control->cmsg_len != CMSG_LEN(sizeof(int))) {
    // The kernel has closed what it could not give us a descriptor for (scm_detach_fds).
    if ((message.header.msg_flags & MSG_CTRUNC) != 0) *error = EMFILE;
    return -1;
  }
  return Payload<int>(control);
}

}  // namespace faketcp
