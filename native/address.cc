// Addresses as text, sockaddr and key words; see address.h.
#include "address.h"

#include <arpa/inet.h>
#include <net/if.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace faketcp {
namespace {

bool ParseZone(const char* zone, uint32_t* scope) {
  char* end = nullptr;
  const unsigned long number = strtoul(zone, &end, 10);
  *scope = zone[0] >= '0' && zone[0] <= '9' && *end == '\0' && number <= UINT32_MAX ? static_cast<uint32_t>(number) : if_nametoindex(zone);
  return *scope != 0;
}

/** The text without its zone; null if there is no zone. */
const char* SplitZone(const char* text, char address[kAddressText]) {
  snprintf(address, kAddressText, "%s", text);
  char* percent = strchr(address, '%');
  if (percent == nullptr) return nullptr;
  *percent = '\0';
  return text + (percent - address) + 1;
}

}  // namespace

int FamilyOf(const char* text) {
  char address[kAddressText];
  in6_addr parsed;
  const char* zone = SplitZone(text, address);
  if (zone == nullptr && inet_pton(AF_INET, address, &parsed) == 1) return AF_INET;
  if (inet_pton(AF_INET6, address, &parsed) == 1 && (zone == nullptr || *zone != '\0')) return AF_INET6;
  return 0;
}

bool ParseWords(const char* text, int32_t words[4]) {
  const int family = FamilyOf(text);
  if (family == 0) return false;
  char address[kAddressText];
  SplitZone(text, address);
  SocketAddress parsed;
  ParseSocketAddress(family, address, 0, &parsed);
  WordsOf(parsed, words);
  return true;
}

bool ParseSocketAddress(int family, const char* text, uint16_t port, SocketAddress* out) {
  out->storage = {};
  const int written = FamilyOf(text);
  if (family == AF_INET) {
    auto* in = reinterpret_cast<sockaddr_in*>(&out->storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    out->size = sizeof *in;
    return written == AF_INET && inet_pton(AF_INET, text, &in->sin_addr) == 1;
  }
  auto* in6 = reinterpret_cast<sockaddr_in6*>(&out->storage);
  in6->sin6_family = AF_INET6;
  in6->sin6_port = htons(port);
  out->size = sizeof *in6;
  if (written == AF_INET) {
    in6->sin6_addr.s6_addr[10] = in6->sin6_addr.s6_addr[11] = 0xff;
    return inet_pton(AF_INET, text, &in6->sin6_addr.s6_addr[12]) == 1;
  }
  char address[kAddressText];
  const char* zone = SplitZone(text, address);
  if (written != AF_INET6 || inet_pton(AF_INET6, address, &in6->sin6_addr) != 1) return false;
  return zone == nullptr || ParseZone(zone, &in6->sin6_scope_id);
}

void WordsOf(const SocketAddress& address, int32_t words[4]) {
  if (address.storage.ss_family == AF_INET) {
    words[0] = words[1] = 0;
    words[2] = 0xffff;
    words[3] = static_cast<int32_t>(ntohl(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_addr.s_addr));
    return;
  }
  const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  for (int i = 0; i < 4; i++) {
    uint32_t word;
    memcpy(&word, in6->sin6_addr.s6_addr + 4 * i, 4);
    words[i] = static_cast<int32_t>(ntohl(word));
  }
}

uint16_t PortOf(const SocketAddress& address) {
  // The port stands at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

}  // namespace faketcp
