// What is done to the kernel TCP socket behind a flow, from its making to its end without a packet. Knows nothing of JavaScript or polls.
#pragma once

#include <cstdint>

#include "js_values.h"
#include "kernel_socket.h"

namespace faketcp {

enum class Ending { kSilent, kFin, kReset };

struct StreamSocket : BoundSocket {
  Bytes filter;
  /** SO_REUSEADDR. */
  bool reuse_address;
  /** SO_REUSEPORT: every socket of the port must have it, and be of one user. */
  bool reuse_port;
};

/** A non-blocking stream socket, filtered where the kernel allows it, and bound. -1 with `failure` filled. */
int OpenStream(const StreamSocket& wanted, Failure* failure);

/**
 * From here on nothing reaches a connected socket, and it answers nothing: by the program, or where the kernel keeps filters on TCP sockets for
 * CAP_NET_ADMIN (seen on 6.18) by demanding a hop limit of 255 of what arrives (IP_MINTTL, RFC 5082), which
 * no sender but a neighbour who wants to can meet. What the kernel took before is discarded. 0 or a positive errno.
 */
int MuteStream(int fd, const Bytes& program);

/** Of what the socket sends, 0 if nobody knows. An IPv6 socket may carry IPv4, whose packets have a TTL of their own. */
int HopLimit(int fd);

/**
 * What a connected socket sends from here on carries the mark and TTL or hop limit 1, so that a rule of the firewall can tell it from everything else.
 * 0 or a positive errno: EPERM without CAP_NET_ADMIN (since 5.17: or CAP_NET_RAW).
 */
int QuietenStream(int fd, uint32_t mark);

/** What it sends from here on is ordinary again, as far as that is allowed. */
void LoosenStream(int fd);

/**
 * Gives a listening socket's group (SO_REUSEPORT) the program that picks one of its sockets for a SYN. Only after listen: a group of one that was
 * made for the program alone (reuseport_attach_prog) would make the bind of any further socket fail (inet_csk_bind_conflict). 0 or a positive errno.
 */
int AttachSteering(int fd, const Bytes& program);

/** Without it the kernel retransmits the carrier's FIN, which nobody will answer, for up to 107 s, and the 4-tuple is taken as long. */
int SetUserTimeout(int fd, uint32_t milliseconds);

/** INFO_WORDS words; 0 or a positive errno. */
int ReadInfo(int fd, int32_t* out);

/** Closes the socket. Returns 'device', 'repair', 'fin' or 'reset'. */
const char* EndStream(int fd, Ending how);

}  // namespace faketcp
