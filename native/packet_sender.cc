// PacketSender: sends whole trains by AF_PACKET with virtio headers, the link header in front: equal segments that follow each other leave as one
// packet with a GSO size, payload taken from where it lies. Decides nothing: how a packet leaves is in the caller's table of hops.
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>

#include <cstring>

#include "classes.h"
#include "gso_sender.h"
#include "headers.h"
#include "kernel_socket.h"
#include "virtio.h"

namespace faketcp {
namespace {

constexpr size_t kMaxLinkHeader = (HOP_WORDS - HOP_HEADER) * sizeof(int32_t);
/** Where a TCP header has its checksum. */
constexpr uint16_t kChecksumOffset = 16;

/** Bounded here though CheckDescriptor has looked: another thread may have written to a table on a SharedArrayBuffer since. */
size_t LinkHeaderBytes(const int32_t* hop) {
  const size_t named = static_cast<size_t>(__atomic_load_n(&hop[HOP_BYTES], __ATOMIC_RELAXED));
  return named < kMaxLinkHeader ? named : kMaxLinkHeader;
}

class PacketSender final : public GsoSender {
 public:
  explicit PacketSender(Env& env) : GsoSender(env) {}
  bool Open(napi_value self, napi_value options);

 private:
  bool TakeArguments(const SendArguments& args) override;
  bool CheckDescriptor(const int32_t* descriptor, size_t index, size_t* headers) override;
  void SendTrain(const int32_t* descriptor, const Bytes* buffers) override;
  /** Behind the headers. */
  iovec* Parts() override { return vectors_[next()] + 1; }
  void SendPiece(const int32_t* descriptor, const Piece& piece, bool last) override;

  iovec vectors_[kBatch][1 + kMaxParts];
  uint8_t headers_[kBatch][sizeof(VirtioNetHeader) + kMaxLinkHeader + kMaxHeaderBytes];
  sockaddr_ll to_[kBatch];
  /** The caller's, for the length of one call. */
  const int32_t* hops_ = nullptr;
  size_t hop_count_ = 0;
};

bool PacketSender::Open(napi_value self, napi_value options) {
  // Protocol 0: it is shown no packet.
  Failure failure;
  const int fd = OpenSocket(AF_PACKET, SOCK_RAW, 0, &failure, [](int fd) { return SetInteger(fd, SOL_PACKET, PACKET_VNET_HDR, 1) ? nullptr : "setsockopt"; });
  return fd >= 0 ? Prepare(self, options, fd) : ThrowSystem(env().napi(), failure.error, failure.syscall);
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
  // With the link header less than the devices' gso_max_size (65 536 unless somebody changed it): the kernel would cut it up before the device
  // (gso_features_check), and hand over every segment by itself.
  const size_t room = kMaxPacket - LinkHeaderBytes(hops_ + d[D_HOP] * HOP_WORDS) - HeaderBytes(!IsMapped(d + KEY_REMOTE), d);
  SendPieces(d, buffers, {room, UINT32_MAX});
}

void PacketSender::SendPiece(const int32_t* d, const Piece& piece, bool last) {
  const size_t i = next();
  const bool v6 = !IsMapped(d + KEY_REMOTE);
  const int32_t* hop = hops_ + d[D_HOP] * HOP_WORDS;
  const size_t link = LinkHeaderBytes(hop);
  uint8_t* const header = headers_[i];
  uint8_t* const frame = header + sizeof(VirtioNetHeader);
  memcpy(frame, hop + HOP_HEADER, link);
  const size_t bytes = WriteHeaders(v6, d, {Word(d, D_SEQ) + piece.offset, piece.index, nullptr, piece.bytes, last, true}, frame + link);

  VirtioNetHeader virtio{};
  virtio.flags = VirtioNetHeader::kNeedsChecksum;
  virtio.csum_start = static_cast<uint16_t>(link + bytes - TcpHeaderBytes(d));
  virtio.csum_offset = kChecksumOffset;
  virtio.hdr_len = static_cast<uint16_t>(link + bytes);
  if (piece.segments > 1) {
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
  message(i) = {&to, sizeof to, vectors_[i], 1 + piece.parts, nullptr, 0, 0};
  Queue(piece.segments > 0 ? piece.segments : 1);
}

}  // namespace

napi_value DefinePacketSender(napi_env napi) { return Sender::Define(napi, "PacketSender", Construct<PacketSender>); }

}  // namespace faketcp
