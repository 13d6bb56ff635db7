// ICMP message -> report that a packet was too long; see path_report.h.
#include "path_report.h"

#include "bytes.h"
#include "checksum.h"

namespace faketcp {
namespace {

constexpr size_t kIpv4Header = 20;
constexpr size_t kIpv6Header = 40;
constexpr size_t kIcmpHeader = 8;
/** Ports and sequence number: all that RFC 792 has a router quote of what follows the IP header. */
constexpr size_t kTcpQuoted = 8;
constexpr uint8_t kUnreachable = 3;
constexpr uint8_t kFragmentationNeeded = 4;
constexpr uint8_t kPacketTooBig = 2;

void WriteKey(const uint32_t local[4], const uint32_t remote[4], const uint8_t* tcp, int32_t* report) {
  for (int i = 0; i < 4; i++) {
    report[REPORT_KEY + KEY_REMOTE + i] = static_cast<int32_t>(remote[i]);
    report[REPORT_KEY + KEY_LOCAL + i] = static_cast<int32_t>(local[i]);
  }
  report[REPORT_KEY + KEY_PORTS] = static_cast<int32_t>(Read16(tcp + 2) << 16 | Read16(tcp));
  report[REPORT_SEQ] = static_cast<int32_t>(Read32(tcp + 4));
}

bool ParseIpv4Report(const uint8_t* message, size_t size, int32_t* report) {
  if (size < kIpv4Header || message[0] >> 4 != 4) return false;
  const size_t outer = (message[0] & 15u) * 4;
  if (outer < kIpv4Header || size < outer + kIcmpHeader + kIpv4Header + kTcpQuoted) return false;
  const uint8_t* icmp = message + outer;
  if (icmp[0] != kUnreachable || icmp[1] != kFragmentationNeeded) return false;
  // A raw socket is served before the kernel verifies (raw_local_deliver, icmp_rcv).
  if (Fold(Sum(icmp, size - outer)) != 0xffff) return false;
  const uint8_t* quoted = icmp + kIcmpHeader;
  const size_t inner = (quoted[0] & 15u) * 4;
  if (quoted[0] >> 4 != 4 || inner < kIpv4Header || quoted[9] != IPPROTO_TCP || size < outer + kIcmpHeader + inner + kTcpQuoted) return false;
  // Of a later fragment, of which we send none, there are no ports.
  if ((Read16(quoted + 6) & 0x1fff) != 0) return false;
  uint32_t local[4];
  uint32_t remote[4];
  ReadIpv4Address(quoted + 12, local);
  ReadIpv4Address(quoted + 16, remote);
  WriteKey(local, remote, quoted + inner, report);
  report[REPORT_MTU] = static_cast<int32_t>(Read16(icmp + 6));
  report[REPORT_SIZE] = static_cast<int32_t>(Read16(quoted + 2));
  return true;
}

bool ParseIpv6Report(const uint8_t* message, size_t size, int32_t* report) {
  if (size < kIcmpHeader + kIpv6Header + kTcpQuoted || message[0] != kPacketTooBig) return false;
  const uint8_t* quoted = message + kIcmpHeader;
  // We send no extension headers.
  if (quoted[0] >> 4 != 6 || quoted[6] != IPPROTO_TCP) return false;
  uint32_t local[4];
  uint32_t remote[4];
  ReadIpv6Address(quoted + 8, local);
  ReadIpv6Address(quoted + 24, remote);
  // Neither is a packet of ours: a mapped address names a flow over IPv4.
  if (IsMapped(local) || IsMapped(remote)) return false;
  WriteKey(local, remote, quoted + kIpv6Header, report);
  const uint32_t mtu = Read32(message + 4);
  report[REPORT_MTU] = static_cast<int32_t>(mtu < INT32_MAX ? mtu : INT32_MAX);
  report[REPORT_SIZE] = static_cast<int32_t>(kIpv6Header + Read16(quoted + 4));
  return true;
}

}  // namespace

bool ParsePathReport(bool v6, const uint8_t* message, size_t size, int32_t* report) {
  return v6 ? ParseIpv6Report(message, size, report) : ParseIpv4Report(message, size, report);
}

}  // namespace faketcp
