// Packet bytes -> descriptor; see parse.h.
#include "parse.h"

#include "bytes.h"
#include "checksum.h"

namespace faketcp {
namespace {

constexpr size_t kIpv4Header = 20;
constexpr size_t kIpv6Header = 40;
constexpr size_t kTcpHeader = 20;
/** RFC 8200, 4.1 names seven extension headers, each at most once (destination options twice). */
constexpr int kMaxExtensionHeaders = 8;
/** RFC 7323, 2.3: a larger shift is to be taken as 14. */
constexpr uint32_t kMaxWindowScale = 14;

struct Options {
  uint32_t flags = 0;
  uint32_t mss = 0;
  uint32_t tsval = 0;
  uint32_t tsecr = 0;
};

/** RFC 9293, 3.1 and 3.2; RFC 7323; RFC 2018. False if a length leads out of the header or does not fit its kind. */
bool ParseOptions(const uint8_t* at, size_t size, bool syn, Options* options) {
  enum : uint8_t { kEnd = 0, kNop = 1, kMss = 2, kWindowScale = 3, kSackPermitted = 4, kTimestamps = 8 };
  size_t i = 0;
  while (i < size) {
    const uint8_t kind = at[i];
    if (kind == kEnd) return true;
    if (kind == kNop) {
      i++;
      continue;
    }
    if (size - i < 2) return false;
    const size_t length = at[i + 1];
    if (length < 2 || length > size - i) return false;
    const uint8_t* value = at + i + 2;
    switch (kind) {
      case kMss:
        if (length != 4) return false;
        if (syn) options->mss = Read16(value);
        break;
      case kWindowScale:
        if (length != 3) return false;
        if (syn) {
          const uint32_t scale = *value > kMaxWindowScale ? kMaxWindowScale : *value;
          options->flags = (options->flags & ~(0xffu << SCALE_SHIFT)) | HAS_SCALE | scale << SCALE_SHIFT;
        }
        break;
      case kSackPermitted:
        if (length != 2) return false;
        if (syn) options->flags |= HAS_SACK;
        break;
      case kTimestamps:
        if (length != 10) return false;
        options->flags |= HAS_TIMESTAMPS;
        options->tsval = Read32(value);
        options->tsecr = Read32(value + 4);
        break;
      default:
        break;
    }
    i += length;
  }
  return true;
}

/** Congruent modulo 0xffff, the two representations of zero included. */
bool SameSum(uint32_t a, uint32_t b) { return a % 0xffff == b % 0xffff; }

bool ChecksumHolds(const IpHeader& ip, const uint8_t* segment, size_t size, Checksum known) {
  if (known == Checksum::kKnownGood) return true;
  const uint64_t pseudo = PseudoHeaderSum(ip.v6, ip.source, ip.destination, static_cast<uint32_t>(size));
  // A packet that never left the host, came over veth or virtio, or was merged by GRO carries what CHECKSUM_PARTIAL leaves in the field: the
  // folded pseudo-header sum, for the device to finish (tcp_v4_send_check, tcp4_gro_complete). A raw socket is not told, so this
  // value has to count as right; a corrupted packet hits it by chance once in 65 535, as it would hit the true sum.
  if (known == Checksum::kVerifyOrPartial) {
    uint16_t field;
    memcpy(&field, segment + 16, 2);
    if (SameSum(field, Fold(pseudo))) return true;
  }
  return Fold(pseudo + Sum(segment, size)) == 0xffff;
}

}  // namespace

Verdict ParseTcp(const IpHeader& ip, const uint8_t* segment, size_t size, uint32_t offset, const PacketMeta& meta, int32_t* descriptor) {
  if (ip.v6 && (IsMapped(ip.source) || IsMapped(ip.destination))) return Verdict::kForeign;
  if (size < kTcpHeader) return Verdict::kHeader;
  const size_t header = static_cast<size_t>(segment[12] >> 4) * 4;
  if (header < kTcpHeader || header > size) return Verdict::kHeader;
  const uint32_t flags = segment[13];
  Options options;
  if (!ParseOptions(segment + kTcpHeader, header - kTcpHeader, (flags & SYN) != 0, &options)) return Verdict::kHeader;
  if (!ChecksumHolds(ip, segment, size, meta.checksum)) return Verdict::kChecksum;

  const uint32_t length = static_cast<uint32_t>(size - header);
  const auto put = [descriptor](int32_t word, uint32_t value) { descriptor[word] = static_cast<int32_t>(value); };
  for (int i = 0; i < 4; i++) {
    put(KEY_REMOTE + i, ip.source[i]);
    put(KEY_LOCAL + i, ip.destination[i]);
  }
  // Source port is the remote one, and both stand in the order that the key wants.
  put(KEY_PORTS, Read32(segment));
  put(D_SEQ, Read32(segment + 4));
  put(D_ACK, Read32(segment + 8));
  put(D_FLAGS, flags | options.flags);
  put(D_WINDOW, Read16(segment + 14));
  put(D_TSVAL, options.tsval);
  put(D_TSECR, options.tsecr);
  put(D_OFFSET, offset + static_cast<uint32_t>(header));
  put(D_LENGTH, length);
  put(D_SEGMENT, meta.gso_size > 0 && meta.gso_size < length ? meta.gso_size : length);
  put(D_MSS, options.mss);
  put(D_IFINDEX, meta.ifindex);
  put(D_TTL, ip.tos_ttl);
  put(D_MAC_HIGH, meta.mac_high);
  put(D_MAC_LOW, meta.mac_low);
  put(D_VLAN, meta.vlan);
  return Verdict::kAccepted;
}

Verdict ParseIpv4(const uint8_t* packet, size_t size, uint32_t offset, const PacketMeta& meta, int32_t* descriptor) {
  if (size < kIpv4Header) return Verdict::kTruncated;
  const size_t header = static_cast<size_t>(packet[0] & 0x0f) * 4;
  if (packet[0] >> 4 != 4 || header < kIpv4Header) return Verdict::kHeader;
  if (size < header) return Verdict::kTruncated;
  size_t total = Read16(packet + 2);
  // BIG TCP leaves the length at 0 when it does not fit (iph_set_totlen).
  if (total == 0 && meta.gso_size > 0) total = size;
  if (total < header) return Verdict::kHeader;
  if (total > size) return Verdict::kTruncated;
  if (Fold(Sum(packet, header)) != 0xffff) return Verdict::kChecksum;
  constexpr uint32_t kMoreFragmentsOrOffset = 0x3fff;
  if (Read16(packet + 6) & kMoreFragmentsOrOffset) return Verdict::kFragment;
  if (packet[9] != IPPROTO_TCP) return Verdict::kForeign;

  IpHeader ip;
  ip.v6 = false;
  ReadIpv4Address(packet + 12, ip.source);
  ReadIpv4Address(packet + 16, ip.destination);
  ip.tos_ttl = static_cast<uint32_t>(packet[1]) << 8 | packet[8];
  return ParseTcp(ip, packet + header, total - header, offset + static_cast<uint32_t>(header), meta, descriptor);
}

Verdict ParseIpv6(const uint8_t* packet, size_t size, uint32_t offset, const PacketMeta& meta, int32_t* descriptor) {
  if (size < kIpv6Header) return Verdict::kTruncated;
  if (packet[0] >> 4 != 6) return Verdict::kHeader;
  size_t total = kIpv6Header + Read16(packet + 4);
  // A jumbogram (RFC 2675) and BIG TCP say 0; of those only what GRO or GSO made is TCP that ends where the packet ends.
  if (total == kIpv6Header && meta.gso_size > 0) total = size;
  if (total > size) return Verdict::kTruncated;

  size_t at = kIpv6Header;
  uint8_t next = packet[6];
  for (int i = 0; next != IPPROTO_TCP; i++) {
    if (next == IPPROTO_FRAGMENT) return Verdict::kFragment;
    if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS) return Verdict::kForeign;
    if (i == kMaxExtensionHeaders || total - at < 8) return Verdict::kHeader;
    const size_t length = (static_cast<size_t>(packet[at + 1]) + 1) * 8;
    if (length > total - at) return Verdict::kHeader;
    // Segments left: the address in the header is a stop on the way, not the destination.
    if (next == IPPROTO_ROUTING && packet[at + 3] != 0) return Verdict::kForeign;
    next = packet[at];
    at += length;
  }

  IpHeader ip;
  ip.v6 = true;
  ReadIpv6Address(packet + 8, ip.source);
  ReadIpv6Address(packet + 24, ip.destination);
  ip.tos_ttl = ((Read16(packet) >> 4) & 0xff) << 8 | packet[7];
  return ParseTcp(ip, packet + at, total - at, offset + static_cast<uint32_t>(at), meta, descriptor);
}

}  // namespace faketcp
