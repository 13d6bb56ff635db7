// rtnetlink as bytes: requests put together, answers taken apart, and the socket that carries both. Knows the framing (RFC 3549), nothing of
// what the messages mean.
#pragma once

#include <linux/netlink.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernel_socket.h"

namespace faketcp {

/** One request: header, body, attributes, in a fixed buffer that holds every request made here. */
class NetlinkRequest {
 public:
  template <class Body>
  NetlinkRequest(uint16_t type, const Body& body) : size_(NLMSG_LENGTH(sizeof body)) {
    static_assert(NLMSG_LENGTH(sizeof(Body)) <= kCapacity);
    header()->nlmsg_type = type;
    header()->nlmsg_flags = NLM_F_REQUEST;
    memcpy(bytes_ + NLMSG_HDRLEN, &body, sizeof body);
  }

  void Add(uint16_t type, const void* data, size_t size);
  /** The whole message under this sequence number. */
  const void* Finish(uint32_t sequence);
  size_t size() const { return size_; }

 private:
  static constexpr size_t kCapacity = 128;
  nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(bytes_); }

  alignas(nlmsghdr) uint8_t bytes_[kCapacity] = {};
  size_t size_;
};

/** What follows a message's header, as it lies in the socket's buffer: valid until the next call. */
struct NetlinkBody {
  const uint8_t* data = nullptr;
  size_t size = 0;

  /** False, and `out` as it was, when the body is shorter than that. */
  template <class T>
  bool Read(T* out) const {
    if (size < sizeof *out) return false;
    memcpy(out, data, sizeof *out);
    return true;
  }

  /** Calls `visit(type, data, size)` for each attribute behind a fixed part of `fixed` bytes. */
  template <class Visit>
  void EachAttribute(size_t fixed, Visit visit) const {
    for (size_t at = NLMSG_ALIGN(fixed); at + NLA_HDRLEN <= size;) {
      nlattr attribute;
      memcpy(&attribute, data + at, sizeof attribute);
      if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > size - at) return;
      visit(attribute.nla_type & NLA_TYPE_MASK, data + at + NLA_HDRLEN, static_cast<size_t>(attribute.nla_len - NLA_HDRLEN));
      at += NLA_ALIGN(static_cast<size_t>(attribute.nla_len));
    }
  }
};

/** A socket of NETLINK_ROUTE. Never blocks on itself; the kernel answers a request within send(), where it may have to wait for its RTNL lock. */
class NetlinkSocket {
 public:
  NetlinkSocket() = default;
  ~NetlinkSocket() { Close(); }
  NetlinkSocket(const NetlinkSocket&) = delete;
  NetlinkSocket& operator=(const NetlinkSocket&) = delete;

  /** `groups`: one bit for each of the first 32 multicast groups. False with `failure` filled. */
  bool Open(uint32_t groups, Failure* failure);
  void Close();
  int fd() const { return fd_; }

  /** Asks and takes the first answer of that type. Returns 0 or a positive errno: the kernel's own, or EAGAIN when no answer came. */
  int Ask(NetlinkRequest* request, uint16_t answer, NetlinkBody* body);

  /** Takes the next datagram that waits and calls `visit(header, body)` for each of its messages. Returns 0 or a positive errno: EAGAIN when none
   * waits, ENOBUFS when some were lost. A datagram too long for the buffer is visited as far as it was read. */
  template <class Visit>
  int Receive(Visit visit) {
    size_t size = 0;
    if (const int error = ReceiveDatagram(&size); error != 0) return error;
    for (size_t at = 0; at + NLMSG_HDRLEN <= size;) {
      nlmsghdr header;
      memcpy(&header, buffer_ + at, sizeof header);
      if (header.nlmsg_len < NLMSG_HDRLEN) break;
      const size_t length = header.nlmsg_len < size - at ? header.nlmsg_len : size - at;
      visit(header, NetlinkBody{buffer_ + at + NLMSG_HDRLEN, length - NLMSG_HDRLEN});
      at += NLMSG_ALIGN(length);
    }
    return 0;
  }

 private:
  int ReceiveDatagram(size_t* size);

  int fd_ = -1;
  uint32_t sequence_ = 0;
  /** The kernel makes its answers about links, the longest ones here, no longer than that without being asked for more (NLMSG_GOODSIZE). */
  alignas(nlmsghdr) uint8_t buffer_[16384];
};

}  // namespace faketcp
