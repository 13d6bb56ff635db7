// Connected sockets on their way from one thread or process to another, through Unix sockets: the kernel owns what is under way. Knows nothing of
// JavaScript or polls.
#pragma once

#include <cstddef>

#include "kernel_socket.h"

namespace faketcp {

/** Longest name of an inbox with its terminator; sockaddr_un has room for a little more. */
constexpr size_t kInboxName = 101;

/** Passes a descriptor to the inbox of this name; the caller's stays open. 0 or a positive errno: ECONNREFUSED where nobody has the name. */
int PassSocket(const char* inbox, int fd);

/** A listening Unix socket of this name in the abstract namespace. -1 with `failure` filled. */
int OpenInbox(const char* name, Failure* failure);

/** A connection of one sender to an inbox: -1 with 0 when it was none of ours, or with the positive errno of accept(2). */
int AcceptSender(int inbox, int* error);

/** What a sender has passed. -1 with EAGAIN when it is still to come, with 0 when it never will, or with another positive errno. */
int ReceiveSocket(int sender, int* error);

}  // namespace faketcp
