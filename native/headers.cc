// Descriptor -> IP and TCP header bytes; see headers.h.
#include "headers.h"

#include "checksum.h"

namespace faketcp {
namespace {

constexpr size_t kIpv4Header = 20;
constexpr size_t kIpv6Header = 40;
constexpr size_t kTcpHeader = 20;
constexpr size_t kTimestamps = 12;
constexpr size_t kSack = 12;
constexpr uint8_t kDefaultTtl = 64;

void Put16(uint8_t* at, uint32_t value) {
  at[0] = static_cast<uint8_t>(value >> 8);
  at[1] = static_cast<uint8_t>(value);
}

void Put32(uint8_t* at, uint32_t value) {
  Put16(at, value >> 16);
  Put16(at + 2, value);
}

void PutChecksum(uint8_t* at, uint64_t sum) {
  const uint16_t field = static_cast<uint16_t>(~Fold(sum));
  memcpy(at, &field, 2);
}

void WriteIpv4(const int32_t* d, uint32_t index, uint8_t tos, uint8_t ttl, size_t total, uint8_t* out) {
  memset(out, 0, kIpv4Header);
  out[0] = 0x45;
  out[1] = tos;
  Put16(out + 2, static_cast<uint32_t>(total));
  Put16(out + 4, Word(d, D_IP_ID) + index);
  // Don't fragment: a fragmented train would be lost to the receiver, and path MTU discovery needs it.
  Put16(out + 6, 0x4000);
  out[8] = ttl;
  out[9] = IPPROTO_TCP;
  Put32(out + 12, Word(d, KEY_LOCAL + 3));
  Put32(out + 16, Word(d, KEY_REMOTE + 3));
  PutChecksum(out + 10, Sum(out, kIpv4Header));
}

void WriteIpv6(const int32_t* d, uint8_t traffic_class, uint8_t hop_limit, size_t payload_length, uint8_t* out) {
  Put32(out, 6u << 28 | static_cast<uint32_t>(traffic_class) << 20);
  Put16(out + 4, static_cast<uint32_t>(payload_length));
  out[6] = IPPROTO_TCP;
  out[7] = hop_limit;
  for (int i = 0; i < 4; i++) {
    Put32(out + 8 + 4 * i, Word(d, KEY_LOCAL + i));
    Put32(out + 24 + 4 * i, Word(d, KEY_REMOTE + i));
  }
}

}  // namespace

size_t TcpHeaderBytes(const int32_t* descriptor) {
  const int32_t flags = descriptor[D_FLAGS];
  return kTcpHeader + (flags & HAS_TIMESTAMPS ? kTimestamps : 0) + (flags & HAS_SACK ? kSack : 0);
}

size_t HeaderBytes(bool v6, const int32_t* descriptor) { return (v6 ? kIpv6Header : kIpv4Header) + TcpHeaderBytes(descriptor); }

size_t WriteHeaders(bool v6, const int32_t* d, const Segment& segment, uint8_t* out) {
  const bool timestamps = (d[D_FLAGS] & HAS_TIMESTAMPS) != 0;
  const size_t tcp_header = TcpHeaderBytes(d);
  const size_t tcp_length = tcp_header + segment.length;
  const uint32_t tos_ttl = Word(d, D_TTL);
  const uint8_t tos = static_cast<uint8_t>(tos_ttl >> 8);
  const uint8_t ttl = tos_ttl & 0xff ? static_cast<uint8_t>(tos_ttl) : kDefaultTtl;
  const size_t ip_header = v6 ? kIpv6Header : kIpv4Header;
  if (v6) {
    WriteIpv6(d, tos, ttl, tcp_length, out);
  } else {
    WriteIpv4(d, segment.index, tos, ttl, ip_header + tcp_length, out);
  }

  uint8_t* tcp = out + ip_header;
  const uint32_t ports = Word(d, KEY_PORTS);
  Put16(tcp, ports & 0xffff);
  Put16(tcp + 2, ports >> 16);
  Put32(tcp + 4, segment.seq);
  Put32(tcp + 8, Word(d, D_ACK));
  tcp[12] = static_cast<uint8_t>(tcp_header / 4 << 4);
  const uint32_t flags = Word(d, D_FLAGS) & 0xff;
  tcp[13] = static_cast<uint8_t>(segment.last ? flags : flags & ~static_cast<uint32_t>(PSH | FIN));
  Put16(tcp + 14, Word(d, D_WINDOW));
  Put32(tcp + 16, 0);  // checksum, urgent pointer
  if (timestamps) {
    Put32(tcp + 20, 0x0101080a);  // NOP NOP, kind 8, length 10: RFC 7323, appendix A
    Put32(tcp + 24, Word(d, D_TSVAL));
    Put32(tcp + 28, Word(d, D_TSECR));
  }
  if ((d[D_FLAGS] & HAS_SACK) != 0) {
    uint8_t* const sack = tcp + tcp_header - kSack;
    Put32(sack, 0x0101050a);  // NOP NOP, kind 5, length 10: RFC 2018, 3
    Put32(sack + 4, Word(d, D_SACK_FROM));
    Put32(sack + 8, Word(d, D_SACK_TO));
  }
  uint32_t source[4];
  uint32_t destination[4];
  for (int i = 0; i < 4; i++) {
    source[i] = Word(d, KEY_LOCAL + i);
    destination[i] = Word(d, KEY_REMOTE + i);
  }
  const uint64_t pseudo = PseudoHeaderSum(v6, source, destination, static_cast<uint32_t>(tcp_length));
  if (segment.partial) {
    const uint16_t field = Fold(pseudo);
    memcpy(tcp + 16, &field, 2);
  } else {
    PutChecksum(tcp + 16, pseudo + Sum(tcp, tcp_header) + Sum(segment.payload, segment.length));
  }
  return ip_header + tcp_header;
}

}  // namespace faketcp
