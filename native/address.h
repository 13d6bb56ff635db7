// Addresses in their three shapes: text, sockaddr, four key words. No system call but the name of a zone.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

namespace faketcp {

/** Longest text accepted: an IPv6 address, `%`, an interface name, and the terminator. */
constexpr size_t kAddressText = 64;

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

/** The family that the text is written in; 0 if it is no address. */
int FamilyOf(const char* text);

/** The key words of an address, any zone left out. False, and nothing written, if the text is none. */
bool ParseWords(const char* text, int32_t words[4]);

/** `fe80::1%eth0` and `fe80::1%2` set the scope. IPv4 text becomes an IPv4-mapped address in family AF_INET6. False if the text does not fit. */
bool ParseSocketAddress(int family, const char* text, uint16_t port, SocketAddress* out);

/** Key words: IPv4 as IPv4-mapped. */
void WordsOf(const SocketAddress& address, int32_t words[4]);
uint16_t PortOf(const SocketAddress& address);

}  // namespace faketcp
