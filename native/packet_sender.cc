// PacketSender: sends whole trains by AF_PACKET with virtio headers, the link header in front: equal segments that follow each other leave as one
// packet with a GSO size, payload taken from where it lies. Decides nothing: how a packet leaves is in the caller's table of hops.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "classes.h"
#include "headers.h"
#include "sender.h"
#include "virtio.h"

namespace faketcp {
namespace {

constexpr size_t kMaxLinkHeader = (HOP_WORDS - HOP_HEADER) * sizeof(int32_t);
/** Pieces of memory that one packet is put together from, its headers aside. */
constexpr size_t kMaxParts = 64;
/** Where a TCP header has its checksum. */
constexpr uint16_t kChecksumOffset = 16;

/** Bounded here though CheckDescriptor has looked: another thread may have written to a table on a SharedArrayBuffer since. */
size_t LinkHeaderBytes(const int32_t* hop) {
  const size_t named = static_cast<size_t>(__atomic_load_n(&hop[HOP_BYTES], __ATOMIC_RELAXED));
  return named < kMaxLinkHeader ? named : kMaxLinkHeader;
}

class PacketSender final : public Sender {
 public:
  explicit PacketSender(Env& env) : Sender(env) {}
  bool Open(napi_value self, napi_value options);

 private:
  bool TakeArguments(const SendArguments& args) override;
  bool CheckDescriptor(const int32_t* descriptor, size_t index, size_t* headers) override;
  void SendTrain(const int32_t* descriptor, const Bytes* buffers) override;
  void Add(const uint8_t* data, size_t bytes);
  void Finish(const int32_t* descriptor, bool last);

  /** The packet that is being put together: consecutive segments from `seq` on. */
  struct {
    uint32_t seq;
    /** Segments of the train before it. */
    uint32_t index;
    size_t bytes;
    uint32_t segments;
    size_t parts;
  } packet_{};
  iovec vectors_[kBatch][1 + kMaxParts];
  uint8_t headers_[kBatch][sizeof(VirtioNetHeader) + kMaxLinkHeader + kMaxHeaderBytes];
  sockaddr_ll to_[kBatch];
  /** The caller's, for the length of one call. */
  const int32_t* hops_ = nullptr;
  size_t hop_count_ = 0;
};

bool PacketSender::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  // Protocol 0: it is shown no packet.
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return ThrowSystem(napi, errno, "socket");
  const int one = 1;
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) != 0) {
    const int error = errno;
    close(fd);
    return ThrowSystem(napi, error, "setsockopt");
  }
  return Prepare(self, options, fd);
}

bool PacketSender::TakeArguments(const SendArguments& args) {
  int32_t* hops = nullptr;
  size_t words = 0;
  if (!ToWords(env().napi(), args[4], "hops", 0, &hops, &words)) return false;
  hops_ = hops;
  hop_count_ = words / HOP_WORDS;
  return true;
}

bool PacketSender::CheckDescriptor(const int32_t* d, size_t index, size_t* headers) {
  const napi_env napi = env().napi();
  const bool v6 = !IsMapped(d + KEY_REMOTE);
  if (IsMapped(d + KEY_LOCAL) == v6) return ThrowRange(napi, "descriptor %zu has addresses of both families", index);
  if (d[D_HOP] < 0 || static_cast<size_t>(d[D_HOP]) >= hop_count_) {
    return ThrowRange(napi, "descriptor %zu names hop %d of %zu", index, d[D_HOP], hop_count_);
  }
  const int32_t* hop = hops_ + d[D_HOP] * HOP_WORDS;
  if (hop[HOP_BYTES] < 0 || static_cast<size_t>(hop[HOP_BYTES]) > kMaxLinkHeader) {
    return ThrowRange(napi, "hop %d has a link header of %d bytes, 0 to %zu can be sent", d[D_HOP], hop[HOP_BYTES], kMaxLinkHeader);
  }
  *headers = HeaderBytes(v6, d);
  return true;
}

void PacketSender::SendTrain(const int32_t* d, const Bytes* buffers) {
  int32_t skip = d[D_SKIP];
  const int32_t length = d[D_LENGTH];
  const size_t size = static_cast<size_t>(d[D_SEGMENT]);
  // With the link header less than the devices' gso_max_size (65 536 unless somebody changed it): the kernel would cut it up before the device
  // (gso_features_check), and hand over every segment by itself.
  const size_t room = kMaxPacket - LinkHeaderBytes(hops_ + d[D_HOP] * HOP_WORDS) - HeaderBytes(!IsMapped(d + KEY_REMOTE), d);
  packet_ = {Word(d, D_SEQ), 0, 0, 0, 0};
  if (length == 0) {
    if (skip == 0) Finish(d, true);
    return;
  }
  for (int32_t i = 0; i < length; i++) {
    const Bytes& buffer = buffers[i];
    for (size_t at = 0; at < buffer.size; at += size) {
      const size_t left = buffer.size - at;
      const size_t bytes = left < size ? left : size;
      if (skip > 0) {
        skip--;
        packet_.seq += static_cast<uint32_t>(bytes);
        packet_.index++;
        continue;
      }
      // Only the last segment of a packet may be shorter than its GSO size.
      const bool uneven = packet_.bytes != packet_.segments * size;
      if (packet_.segments > 0 && (uneven || packet_.bytes + bytes > room || packet_.parts == kMaxParts)) {
        Finish(d, false);
        if (failed()) return;
      }
      Add(buffer.data + at, bytes);
    }
  }
  if (packet_.segments > 0) Finish(d, true);
}

void PacketSender::Add(const uint8_t* data, size_t bytes) {
  iovec* parts = vectors_[next()] + 1;
  iovec* last = packet_.parts > 0 ? &parts[packet_.parts - 1] : nullptr;
  if (last != nullptr && static_cast<uint8_t*>(last->iov_base) + last->iov_len == data) {
    last->iov_len += bytes;
  } else {
    parts[packet_.parts++] = {const_cast<uint8_t*>(data), bytes};
  }
  packet_.bytes += bytes;
  packet_.segments++;
}

/** Queues the packet that was put together; the next one follows it in sequence. */
void PacketSender::Finish(const int32_t* d, bool last) {
  const size_t i = next();
  const bool v6 = !IsMapped(d + KEY_REMOTE);
  const int32_t* hop = hops_ + d[D_HOP] * HOP_WORDS;
  const size_t link = LinkHeaderBytes(hop);
  uint8_t* const header = headers_[i];
  uint8_t* const frame = header + sizeof(VirtioNetHeader);
  memcpy(frame, hop + HOP_HEADER, link);
  const size_t bytes = WriteHeaders(v6, d, {packet_.seq, packet_.index, nullptr, packet_.bytes, last, true}, frame + link);

  VirtioNetHeader virtio{};
  virtio.flags = VirtioNetHeader::kNeedsChecksum;
  virtio.csum_start = static_cast<uint16_t>(link + bytes - TcpHeaderBytes(d));
  virtio.csum_offset = kChecksumOffset;
  virtio.hdr_len = static_cast<uint16_t>(link + bytes);
  if (packet_.segments > 1) {
    virtio.gso_type = v6 ? VirtioNetHeader::kGsoTcpv6 : VirtioNetHeader::kGsoTcpv4;
    virtio.gso_size = static_cast<uint16_t>(d[D_SEGMENT]);
  }
  memcpy(header, &virtio, sizeof virtio);

  sockaddr_ll& to = to_[i];
  to = {};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(v6 ? ETH_P_IPV6 : ETH_P_IP);
  to.sll_ifindex = hop[HOP_IFINDEX];
  vectors_[i][0] = {header, sizeof virtio + link + bytes};
  message(i) = {&to, sizeof to, vectors_[i], 1 + packet_.parts, nullptr, 0, 0};
  const uint32_t segments = packet_.segments > 0 ? packet_.segments : 1;
  packet_ = {packet_.seq + static_cast<uint32_t>(packet_.bytes), packet_.index + segments, 0, 0, 0};
  Queue(segments);
}

}  // namespace

napi_value DefinePacketSender(napi_env napi) { return Sender::Define(napi, "PacketSender", Construct<PacketSender>); }

}  // namespace faketcp
