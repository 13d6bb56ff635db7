// rtnetlink as bytes; see netlink.h.
#include "netlink.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace faketcp {
namespace {

/** Answers to earlier questions may lie before the one that is waited for: that many at most are thrown away. */
constexpr int kMaxStale = 64;

}  // namespace

void NetlinkRequest::Add(uint16_t type, const void* data, size_t size) {
  const size_t at = NLMSG_ALIGN(size_);
  const size_t end = at + NLA_HDRLEN + size;
  if (end > kCapacity) return;
  nlattr attribute{};
  attribute.nla_len = static_cast<uint16_t>(NLA_HDRLEN + size);
  attribute.nla_type = type;
  memcpy(bytes_ + at, &attribute, sizeof attribute);
  memcpy(bytes_ + at + NLA_HDRLEN, data, size);
  size_ = end;
}

const void* NetlinkRequest::Finish(uint32_t sequence) {
  header()->nlmsg_len = static_cast<uint32_t>(size_);
  header()->nlmsg_seq = sequence;
  return bytes_;
}

bool NetlinkSocket::Open(uint32_t groups, Failure* failure) {
  fd_ = OpenSocket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, failure, [groups](int fd) {
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    return bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? nullptr : "bind";
  });
  return fd_ >= 0;
}

void NetlinkSocket::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

int NetlinkSocket::ReceiveDatagram(size_t* size) {
  sockaddr_nl from{};
  iovec vector = {buffer_, sizeof buffer_};
  msghdr message{};
  message.msg_name = &from;
  message.msg_namelen = sizeof from;
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  const ssize_t received = recvmsg(fd_, &message, MSG_DONTWAIT);
  if (received < 0) return errno;
  // Only the kernel is believed; a process with CAP_NET_ADMIN could write here too.
  *size = from.nl_pid == 0 ? static_cast<size_t>(received) : 0;
  return 0;
}

int NetlinkSocket::Ask(NetlinkRequest* request, uint16_t answer, NetlinkBody* body) {
  if (fd_ < 0) return EBADF;
  const uint32_t sequence = ++sequence_;
  if (send(fd_, request->Finish(sequence), request->size(), MSG_DONTWAIT) < 0) return errno;
  int result = EAGAIN;
  for (int i = 0; i < kMaxStale && result == EAGAIN; i++) {
    const int error = Receive([&](const nlmsghdr& header, const NetlinkBody& found) {
      if (header.nlmsg_seq != sequence || result != EAGAIN) return;
      if (header.nlmsg_type == answer) {
        *body = found;
        result = 0;
      } else if (nlmsgerr refusal; header.nlmsg_type == NLMSG_ERROR && found.Read(&refusal)) {
        result = refusal.error < 0 ? -refusal.error : ENODATA;
      }
    });
    // ENOBUFS: stale answers filled the buffer and something was lost; what is there is still read.
    if (error != 0 && error != ENOBUFS) return error;
  }
  return result;
}

}  // namespace faketcp
