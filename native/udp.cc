// UdpSocket: reads trains of datagrams from a kernel UDP socket into the caller's slab, one call of JavaScript for each system call that brought
// something, and sends trains, each in as few packets as the kernel cuts up again (UDP_SEGMENT). Knows no peer and keeps nothing of a datagram.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "address.h"
#include "batch_memory.h"
#include "callback.h"
#include "classes.h"
#include "coalesce.h"
#include "gso_sender.h"
#include "headers.h"
#include "route.h"
#include "udp_socket.h"

namespace faketcp {
namespace {

/** System calls for one poll event: a flood must not keep the event loop from timers and other sockets. */
constexpr int kRounds = 16;
constexpr size_t kMaxSlots = 64;
/** What the kernel merges is no longer than an IP packet. */
constexpr int64_t kLeastSlotBytes = 65535;
constexpr int64_t kMaxBufferBytes = 1 << 30;
/** UDP_MAX_SEGMENTS, before it became 128 in 6.9. */
constexpr uint32_t kMaxSegments = 64;
constexpr size_t kUdpHeader = 8;
constexpr size_t kIpv4Header = 20;

/** What system calls point to, shared by the sockets of a thread: nothing in it outlives a call of Receive or Send. */
struct Scratch {
  struct Slot {
    iovec vector;
    sockaddr_storage from;
    alignas(cmsghdr) uint8_t control[kDatagramControlBytes];
  };
  struct Outgoing {
    Route route;
    alignas(cmsghdr) uint8_t control[CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(uint16_t))];
    iovec parts[kMaxParts];
  };
  Slot slots[kMaxSlots];
  mmsghdr messages[kMaxSlots];
  Outgoing outgoing[kBatch];
  /** Where the message headers point, and how many of them the last call has written to. */
  const uint8_t* prepared = nullptr;
  size_t prepared_slots = 0;
  size_t prepared_bytes = 0;
  size_t used = 0;

  /** That of this thread, made for its first socket, gone with its last. */
  static std::shared_ptr<Scratch> Own() {
    static thread_local std::weak_ptr<Scratch> own;
    std::shared_ptr<Scratch> scratch = own.lock();
    if (scratch == nullptr) own = scratch = std::make_shared<Scratch>();
    return scratch;
  }
};

class UdpSocket final : public GsoSender {
 public:
  explicit UdpSocket(Env& env) : GsoSender(env), scratch_(Scratch::Own()) {}
  ~UdpSocket() override { Close(); }

  bool Open(napi_value self, napi_value options);
  bool Watch(napi_value self);
  void EnvironmentEnds() override { Close(); }
  void Close() override;
  int64_t Read(napi_value self);
  bool Connect(const char* address, uint16_t port);
  bool Key(int32_t* out);
  bool PathMtu(int* mtu);
  bool KernelDrops(double* drops);
  bool GrantedBuffer(int* bytes);
  uint16_t local_port() const { return PortOf(local_); }
  void Ref() { readable_.Ref(); }
  void Unref() { readable_.Unref(); }

 private:
  bool TakeArguments(const SendArguments&) override { return true; }
  bool CheckDescriptor(const int32_t* descriptor, size_t index, size_t* headers) override;
  void SendTrain(const int32_t* descriptor, const Bytes* buffers) override;
  iovec* Parts() override { return scratch_->outgoing[next()].parts; }
  void SendPiece(const int32_t* descriptor, const Piece& piece, bool last) override;
  int Refused(size_t index, int error, uint32_t* sent) override;
  int WritableDescriptor() override;
  bool listens() const override { return readable_.open(); }
  void Sent(napi_value self) override;

  bool OpenSocket(napi_value self, napi_value options);
  int SendSingly(const msghdr& whole, size_t segment, uint32_t* sent);
  int Receive(const BatchMemory::View& memory);
  int32_t Describe(const BatchMemory::View& memory, int received);
  void DescribeOne(uint32_t offset, const mmsghdr& message, const sockaddr_storage& from, int32_t* descriptor) const;
  bool Usable(const char* syscall);
  /** The address that the socket is bound to now. False with an exception pending. */
  bool LearnName();
  static void OnReadable(void* owner, int status);

  std::shared_ptr<Scratch> scratch_;
  Poll readable_;
  Callback on_batch_;
  Callback on_error_;
  BatchMemory memory_;
  SocketAddress local_;
  int32_t local_words_[4] = {};
  bool v6_ = false;
  bool connected_ = false;
  bool reading_ = false;
  /** The kernel cuts up trains: until it refuses one for good. */
  bool gso_ = true;
  /** Of what is being sent: an earlier datagram's error, which the kernel reports to whoever comes next (sock_error). */
  int pending_error_ = 0;
  int writable_fd_ = -1;
};

bool ReadSharing(napi_env napi, napi_value options, PortSharing* sharing) {
  char text[16];
  if (!GetText(napi, options, "sharing", text, sizeof text)) return false;
  for (const auto& [name, value] : {std::pair{"none", PortSharing::kNone}, {"offer", PortSharing::kOffer}, {"join", PortSharing::kJoin}}) {
    if (strcmp(text, name) != 0) continue;
    *sharing = value;
    return true;
  }
  return ThrowRange(napi, "sharing must be 'none', 'offer' or 'join', it is '%s'", text);
}

bool UdpSocket::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  napi_value on_batch = nullptr;
  napi_value on_error = nullptr;
  return GetFamily(napi, options, &v6_) && GetFunction(napi, options, "onBatch", &on_batch) && GetFunction(napi, options, "onError", &on_error) &&
         memory_.Take(env(), options, static_cast<int64_t>(kMaxSlots), kLeastSlotBytes) &&
         on_batch_.Set(env(), self, on_batch, "FAKETCP_UDP") && on_error_.Set(env(), self, on_error, "FAKETCP_UDP") && OpenSocket(self, options);
}

bool UdpSocket::OpenSocket(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  char address[kAddressText];
  int64_t port = 0;
  int64_t tos = 0;
  int64_t receive_buffer = 0;
  DatagramSocket wanted{};
  if (!GetText(napi, options, "address", address, sizeof address) || !GetInteger(napi, options, "port", 0, 65535, &port) ||
      !GetInteger(napi, options, "tos", 0, 255, &tos) || !GetBoolean(napi, options, "ipv6Only", &wanted.v6_only) ||
      !GetBoolean(napi, options, "dontFragment", &wanted.dont_fragment) || !ReadSharing(napi, options, &wanted.sharing) ||
      !GetInteger(napi, options, "receiveBufferBytes", 1, kMaxBufferBytes, &receive_buffer)) {
    return false;
  }
  if (!ParseSocketAddress(v6_ ? AF_INET6 : AF_INET, address, static_cast<uint16_t>(port), &wanted.local)) {
    return ThrowRange(napi, "address must be of IPv%d, it is '%s'", v6_ ? 6 : 4, address);
  }
  wanted.tos = static_cast<int>(tos);
  wanted.receive_buffer = static_cast<int>(receive_buffer);
  Failure failure;
  const int fd = OpenDatagram(wanted, &failure);
  if (fd < 0) return ThrowSystem(napi, failure.error, failure.syscall);
  if (!Prepare(self, options, fd)) return false;
  // Prepare has made the buffer small.
  const int refused = SetReceiveBuffer(fd, wanted.receive_buffer);
  if (refused != 0) return ThrowSystem(napi, refused, "setsockopt");
  return LearnName();
}

bool UdpSocket::Watch(napi_value self) {
  const int failed = readable_.Start(env(), fd(), UV_READABLE, OnReadable, this);
  if (failed != 0) {
    Close();
    return ThrowSystem(env().napi(), -failed, "epoll_ctl");
  }
  Hold(self);
  return true;
}

void UdpSocket::Close() {
  readable_.Close();
  on_batch_.Clear();
  on_error_.Clear();
  memory_.Release();
  Sender::Close();
  if (writable_fd_ >= 0) close(writable_fd_);
  writable_fd_ = -1;
}

bool UdpSocket::LearnName() {
  const int error = LocalName(fd(), &local_);
  WordsOf(local_, local_words_);
  return error == 0 || ThrowSystem(env().napi(), error, "getsockname");
}

bool UdpSocket::Usable(const char* syscall) { return fd() >= 0 || ThrowSystem(env().napi(), EBADF, syscall); }

bool UdpSocket::Connect(const char* address, uint16_t port) {
  const napi_env napi = env().napi();
  SocketAddress remote;
  if (!Usable("connect")) return false;
  if (!ParseSocketAddress(v6_ ? AF_INET6 : AF_INET, address, port, &remote)) {
    return ThrowRange(napi, "address must be of IPv%d, it is '%s'", v6_ ? 6 : 4, address);
  }
  if (connect(fd(), remote.get(), remote.size) != 0) return ThrowSystem(napi, errno, "connect");
  if (!LearnName()) return false;
  connected_ = true;
  return true;
}

/** Of an unconnected socket the remote end is 0. */
bool UdpSocket::Key(int32_t* out) {
  if (!Usable("getpeername")) return false;
  SocketAddress remote;
  remote.size = sizeof remote.storage;
  if (connected_ && getpeername(fd(), remote.get(), &remote.size) != 0) return ThrowSystem(env().napi(), errno, "getpeername");
  memset(out, 0, KEY_WORDS * sizeof *out);
  if (connected_) WordsOf(remote, out + KEY_REMOTE);
  memcpy(out + KEY_LOCAL, local_words_, sizeof local_words_);
  out[KEY_PORTS] = static_cast<int32_t>(static_cast<uint32_t>(connected_ ? PortOf(remote) : 0) << 16 | local_port());
  return true;
}

bool UdpSocket::PathMtu(int* mtu) {
  const int error = ReadPathMtu(fd(), v6_, mtu);
  return error == 0 || ThrowSystem(env().napi(), error, "getsockopt");
}

bool UdpSocket::KernelDrops(double* drops) {
  uint32_t read = 0;
  const int error = ReadSocketDrops(fd(), &read);
  if (error != 0) return ThrowSystem(env().napi(), error, "getsockopt");
  *drops = read;
  return true;
}

bool UdpSocket::GrantedBuffer(int* bytes) {
  const int error = ReadReceiveBuffer(fd(), bytes);
  return error == 0 || ThrowSystem(env().napi(), error, "getsockopt");
}

bool UdpSocket::CheckDescriptor(const int32_t* d, size_t index, size_t* headers) {
  const bool mapped = IsMapped(d + KEY_REMOTE);
  if (!v6_ && !mapped && !connected_) return ThrowRange(env().napi(), "descriptor %zu has an address of IPv6, this socket is for IPv4", index);
  // The payload length of an IPv6 header does not count that header.
  *headers = v6_ && !mapped ? kUdpHeader : kIpv4Header + kUdpHeader;
  return true;
}

void UdpSocket::SendTrain(const int32_t* d, const Bytes* buffers) {
  // Of either family, IPv6 header included: devices' gso_max_size is 65 536.
  constexpr size_t kRoom = kMaxPacket - 40 - kUdpHeader;
  const uint32_t segments = gso_ ? kMaxSegments : 1;
  SendPieces(d, buffers, {kRoom, segments});
}

void UdpSocket::SendPiece(const int32_t* d, const Piece& piece, bool) {
  Scratch::Outgoing& out = scratch_->outgoing[next()];
  msghdr& message = this->message(next());
  message = {nullptr, 0, out.parts, piece.parts, nullptr, 0, 0};
  if (!connected_) {
    WriteRoute(v6_, d, &out.route);
    // The port stands at the same place in both families.
    reinterpret_cast<sockaddr_in*>(&out.route.to)->sin_port = htons(static_cast<uint16_t>(Word(d, KEY_PORTS) >> 16));
    memcpy(out.control, out.route.control, out.route.control_size);
    message.msg_name = &out.route.to;
    message.msg_namelen = out.route.to_size;
    message.msg_control = out.control;
    message.msg_controllen = out.route.control_size;
  }
  if (piece.segments > 1) {
    auto* control = reinterpret_cast<cmsghdr*>(out.control + message.msg_controllen);
    const uint16_t segment = static_cast<uint16_t>(d[D_SEGMENT]);
    control->cmsg_level = IPPROTO_UDP;
    control->cmsg_type = UDP_SEGMENT;
    control->cmsg_len = CMSG_LEN(sizeof segment);
    memcpy(CMSG_DATA(control), &segment, sizeof segment);
    message.msg_control = out.control;
    message.msg_controllen += CMSG_SPACE(sizeof segment);
  }
  Queue(piece.segments > 0 ? piece.segments : 1);
}

int UdpSocket::Refused(size_t index, int error, uint32_t* sent) {
  const msghdr& refused = message(index);
  // A connected socket's next call is told why an earlier datagram did not arrive (ICMP); the datagram of this call may well be taken.
  if (connected_) {
    if (sendmsg(fd(), &refused, MSG_DONTWAIT) >= 0) {
      pending_error_ = error;
      *sent = segments(index);
      return 0;
    }
    error = errno;
  }
  const bool cut = segments(index) > 1;
  if (!cut || (error != EIO && error != EINVAL && error != EMSGSIZE)) return error;
  // EIO: the device, or what is in front of it (IPsec), cannot finish checksums (udp_send_skb), now or later. The others concern this train.
  if (error == EIO) gso_ = false;
  const uint8_t* gso = reinterpret_cast<const uint8_t*>(refused.msg_control) + refused.msg_controllen - CMSG_SPACE(sizeof(uint16_t));
  uint16_t segment = 0;
  memcpy(&segment, CMSG_DATA(reinterpret_cast<const cmsghdr*>(gso)), sizeof segment);
  return SendSingly(refused, segment, sent);
}

/** One datagram a call: no part of memory holds the end of one and the beginning of another (SendPieces cuts buffers at multiples of the segment). */
int UdpSocket::SendSingly(const msghdr& whole, size_t segment, uint32_t* sent) {
  msghdr one = whole;
  one.msg_controllen -= CMSG_SPACE(sizeof(uint16_t));
  if (one.msg_controllen == 0) one.msg_control = nullptr;
  for (size_t part = 0; part < whole.msg_iovlen; part++) {
    const auto* data = static_cast<uint8_t*>(whole.msg_iov[part].iov_base);
    const size_t size = whole.msg_iov[part].iov_len;
    for (size_t at = 0; at < size; at += segment) {
      iovec vector = {const_cast<uint8_t*>(data + at), size - at < segment ? size - at : segment};
      one.msg_iov = &vector;
      one.msg_iovlen = 1;
      if (sendmsg(fd(), &one, MSG_DONTWAIT) < 0) return errno;
      (*sent)++;
    }
  }
  return 0;
}

/** libuv refuses a second poll of a descriptor. */
int UdpSocket::WritableDescriptor() {
  if (writable_fd_ < 0) writable_fd_ = fcntl(fd(), F_DUPFD_CLOEXEC, 0);
  return writable_fd_;
}

void UdpSocket::OnReadable(void* owner, int status) {
  auto* socket = static_cast<UdpSocket*>(owner);
  const napi_env napi = socket->env().napi();
  const Scope scope(napi);
  // libuv stops a poll that reports EPOLLERR; the error itself is what the next read reports.
  if (status < 0) socket->readable_.Start(socket->env(), socket->fd(), UV_READABLE, OnReadable, socket);
  if (socket->Read(socket->self()) >= 0) return;
  socket->Close();
  ReportPending(napi);
}

/** Datagrams read, merged ones counted once; -1 with an exception pending if the caller's memory is gone. `self` keeps this object alive meanwhile. */
int64_t UdpSocket::Read(napi_value self) {
  if (reading_) return 0;
  reading_ = true;
  int64_t datagrams = 0;
  for (int round = 0; round < kRounds && fd() >= 0 && !env().ending(); round++) {
    BatchMemory::View memory;
    if (!memory_.Resolve(&memory)) {
      datagrams = -1;
      break;
    }
    const int received = Receive(memory);
    if (received < 0) {
      if (errno == EAGAIN) break;
      if (errno == EINTR) continue;
      const napi_value error = Integer(env().napi(), -errno);
      on_error_.Call(self, 1, &error);
      continue;
    }
    datagrams += received;
    const int32_t described = Describe(memory, received);
    if (described > 0) {
      const napi_value count = Integer(env().napi(), described);
      on_batch_.Call(self, 1, &count);
    }
    if (static_cast<size_t>(received) < memory_.slots()) break;
  }
  reading_ = false;
  return datagrams;
}

int UdpSocket::Receive(const BatchMemory::View& memory) {
  Scratch& s = *scratch_;
  const size_t slots = memory_.slots();
  if (s.prepared != memory.slab || s.prepared_bytes != memory_.slot_bytes() || s.prepared_slots != slots) {
    s.prepared = memory.slab;
    s.prepared_bytes = memory_.slot_bytes();
    s.prepared_slots = s.used = slots;
  }
  for (size_t i = 0; i < s.used; i++) {
    Scratch::Slot& slot = s.slots[i];
    slot.vector = {memory.slab + i * s.prepared_bytes, s.prepared_bytes};
    s.messages[i].msg_hdr = {&slot.from, sizeof slot.from, &slot.vector, 1, slot.control, sizeof slot.control, 0};
  }
  memory.counters[COUNT_CALLS]++;
  const int received = recvmmsg(fd(), s.messages, static_cast<unsigned>(slots), MSG_DONTWAIT, nullptr);
  s.used = received > 0 ? static_cast<size_t>(received) : 0;
  return received;
}

int32_t UdpSocket::Describe(const BatchMemory::View& memory, int received) {
  memory.counters[COUNT_PACKETS] += received;
  int32_t described = 0;
  for (int i = 0; i < received; i++) {
    const mmsghdr& message = scratch_->messages[i];
    if (message.msg_hdr.msg_flags & MSG_TRUNC) {
      memory.counters[REJECT_TRUNCATED]++;
      continue;
    }
    const size_t offset = static_cast<size_t>(i) * memory_.slot_bytes();
    int32_t* const descriptor = memory.descriptors + described * D_WORDS;
    DescribeOne(static_cast<uint32_t>(offset), message, scratch_->slots[i].from, descriptor);
    const bool first = described == 0;
    if (first || !CoalesceDatagrams(descriptor - D_WORDS, descriptor, memory.slab, memory_.RoomOf(descriptor[-D_WORDS + D_OFFSET]))) described++;
  }
  return described;
}

void UdpSocket::DescribeOne(uint32_t offset, const mmsghdr& message, const sockaddr_storage& from, int32_t* d) const {
  Delivery delivery;
  ReadDelivery(message.msg_hdr, &delivery);
  SocketAddress remote;
  memcpy(&remote.storage, &from, message.msg_hdr.msg_namelen < sizeof from ? message.msg_hdr.msg_namelen : sizeof from);
  WordsOf(remote, d + KEY_REMOTE);
  memcpy(d + KEY_LOCAL, delivery.has_local ? delivery.local : local_words_, sizeof local_words_);
  d[KEY_PORTS] = static_cast<int32_t>(static_cast<uint32_t>(PortOf(remote)) << 16 | local_port());
  d[D_OFFSET] = static_cast<int32_t>(offset);
  d[D_LENGTH] = static_cast<int32_t>(message.msg_len);
  d[D_SEGMENT] = delivery.segment != 0 && delivery.segment < message.msg_len ? static_cast<int32_t>(delivery.segment) : d[D_LENGTH];
  d[D_IFINDEX] = static_cast<int32_t>(delivery.ifindex);
}

void UdpSocket::Sent(napi_value self) {
  if (pending_error_ == 0) return;
  const napi_value error = Integer(env().napi(), -pending_error_);
  pending_error_ = 0;
  on_error_.Call(self, 1, &error);
}

napi_value Connect(napi_env napi, napi_callback_info info) {
  const Arguments<2> args(napi, info);
  char address[kAddressText];
  int64_t port = 0;
  UdpSocket* socket = Wrapped::Of<UdpSocket>(napi, args.self);
  if (socket != nullptr && ToText(napi, args[0], "address", address, sizeof address) && ToInteger(napi, args[1], "port", 1, 65535, &port)) {
    socket->Connect(address, static_cast<uint16_t>(port));
  }
  return nullptr;
}

napi_value Key(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  int32_t* out = nullptr;
  UdpSocket* socket = Wrapped::Of<UdpSocket>(napi, args.self);
  if (socket != nullptr && ToWords(napi, args[0], "out", KEY_WORDS, &out)) socket->Key(out);
  return nullptr;
}

napi_value Drain(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  UdpSocket* socket = Wrapped::Of<UdpSocket>(napi, args.self);
  if (socket == nullptr) return nullptr;
  const int64_t datagrams = socket->Read(args.self);
  return datagrams < 0 ? nullptr : Number(napi, static_cast<double>(datagrams));
}

napi_value LocalPort(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  UdpSocket* socket = Wrapped::Of<UdpSocket>(napi, args.self);
  return socket != nullptr ? Integer(napi, socket->local_port()) : nullptr;
}

}  // namespace

napi_value DefineUdpSocket(napi_env napi) {
  return Sender::Define(napi, "UdpSocket", Construct<UdpSocket>,
                        {
                            Getter("localPort", LocalPort),
                            Getter("receiveBufferBytes", Reading<UdpSocket, int, &UdpSocket::GrantedBuffer>),
                            Method("connect", Connect),
                            Method("key", Key),
                            Method("pathMtu", Reading<UdpSocket, int, &UdpSocket::PathMtu>),
                            Method("drain", Drain),
                            Method("kernelDrops", Reading<UdpSocket, double, &UdpSocket::KernelDrops>),
                            Method("ref", Plain<UdpSocket, &UdpSocket::Ref>),
                            Method("unref", Plain<UdpSocket, &UdpSocket::Unref>),
                        });
}

}  // namespace faketcp
