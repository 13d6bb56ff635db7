// Capture: reads packets from a packet or IP raw socket into the caller's slab, and calls JavaScript once for each system call that brought
// something. Knows no flow and keeps nothing of a packet.
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include <linux/if_packet.h>
#include <netinet/in.h>

#include "batch_memory.h"
#include "callback.h"
#include "capture_socket.h"
#include "classes.h"
#include "coalesce.h"
#include "js_values.h"
#include "layout.h"
#include "parse.h"
#include "poll.h"
#include "wrapped.h"

namespace faketcp {
namespace {

/** System calls for one poll event: a flood must not keep the event loop from timers and other sockets. */
constexpr int kRounds = 16;
constexpr int64_t kMaxSlots = 1024;
constexpr int64_t kMaxBufferBytes = 1 << 30;

class Capture final : public Wrapped {
 public:
  explicit Capture(Env& env) : Wrapped(env) {}
  ~Capture() override { Close(); }

  bool Open(napi_value self, napi_value options);
  bool Watch(napi_value self);
  void EnvironmentEnds() override { Close(); }
  void Close();
  int64_t Read(napi_value self);
  bool SetFilter(napi_value program);
  bool KernelDrops(double* drops);
  bool GrantedBuffer(int* bytes);
  void Ref() { poll_.Ref(); }
  void Unref() { poll_.Unref(); }

 private:
  struct Slot {
    iovec vector;
    sockaddr_storage from;
    alignas(cmsghdr) uint8_t control[kCaptureControlBytes];
  };
  int Receive(const BatchMemory::View& memory);
  int32_t Describe(const BatchMemory::View& memory, int received);
  Verdict DescribeOne(const uint8_t* slot, uint32_t offset, const mmsghdr& message, int32_t* descriptor) const;
  static void OnReadable(void* owner, int status);

  Poll poll_;
  Callback on_batch_;
  BatchMemory memory_;
  std::vector<Slot> slots_;
  std::vector<mmsghdr> messages_;
  /** Where the message headers point, and how many of them the last call has written to. */
  const uint8_t* prepared_ = nullptr;
  size_t used_ = 0;
  double packet_drops_ = 0;
  CaptureMode mode_ = CaptureMode::kPacket;
  bool v6_ = false;
  bool reading_ = false;
  int fd_ = -1;
};

bool Capture::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  char mode[16];
  Bytes program;
  int64_t receive_buffer = 0;
  napi_value on_batch = nullptr;
  if (!GetText(napi, options, "mode", mode, sizeof mode) || !GetFamily(napi, options, &v6_) ||
      !GetInteger(napi, options, "receiveBufferBytes", 1, kMaxBufferBytes, &receive_buffer) ||
      !GetFunction(napi, options, "onBatch", &on_batch) || !GetProgram(napi, options, "program", &program)) {
    return false;
  }
  if (strcmp(mode, "packet") != 0 && strcmp(mode, "raw") != 0) return ThrowRange(napi, "mode must be 'packet' or 'raw', it is '%s'", mode);
  mode_ = strcmp(mode, "raw") == 0 ? CaptureMode::kRaw : CaptureMode::kPacket;
  if (!memory_.Take(env(), options, kMaxSlots, kMinSlotBytes) || !on_batch_.Set(env(), self, on_batch, "FAKETCP_CAPTURE")) return false;
  slots_.resize(memory_.slots());
  messages_.resize(memory_.slots());

  Failure failure;
  fd_ = OpenCapture(mode_, v6_, program, static_cast<int>(receive_buffer), &failure);
  return fd_ >= 0 || ThrowSystem(napi, failure.error, failure.syscall);
}

bool Capture::Watch(napi_value self) {
  const int failed = poll_.Start(env(), fd_, UV_READABLE, OnReadable, this);
  if (failed != 0) {
    Close();
    return ThrowSystem(env().napi(), -failed, "epoll_ctl");
  }
  Hold(self);
  return true;
}

void Capture::Close() {
  poll_.Close();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  on_batch_.Clear();
  memory_.Release();
  Unhold();
}

void Capture::OnReadable(void* owner, int status) {
  Capture* capture = static_cast<Capture*>(owner);
  const napi_env napi = capture->env().napi();
  const Scope scope(napi);
  if (status < 0) {
    // libuv stops a poll that reports EPOLLERR. Reading SO_ERROR clears the condition, then watching goes on.
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(capture->fd_, SOL_SOCKET, SO_ERROR, &error, &size);
    capture->poll_.Start(capture->env(), capture->fd_, UV_READABLE, OnReadable, capture);
  }
  if (capture->Read(capture->self()) >= 0) return;
  capture->Close();
  ReportPending(napi);
}

/** Packets read; -1 with an exception pending if the caller's memory is gone. `self` keeps this object alive meanwhile. */
int64_t Capture::Read(napi_value self) {
  if (reading_) return 0;
  reading_ = true;
  int64_t packets = 0;
  for (int round = 0; round < kRounds && fd_ >= 0 && !env().ending(); round++) {
    BatchMemory::View memory;
    if (!memory_.Resolve(&memory)) {
      packets = -1;
      break;
    }
    const int received = Receive(memory);
    if (received <= 0) break;
    packets += received;
    const int32_t described = Describe(memory, received);
    if (described > 0) {
      const napi_value count = Integer(env().napi(), described);
      on_batch_.Call(self, 1, &count);
    }
    if (static_cast<size_t>(received) < slots_.size()) break;
  }
  reading_ = false;
  return packets;
}

int Capture::Receive(const BatchMemory::View& memory) {
  if (prepared_ != memory.slab) {
    prepared_ = memory.slab;
    used_ = slots_.size();
  }
  for (size_t i = 0; i < used_; i++) {
    Slot& slot = slots_[i];
    slot.vector = {memory.slab + i * memory_.slot_bytes(), memory_.slot_bytes()};
    messages_[i].msg_hdr = {&slot.from, sizeof slot.from, &slot.vector, 1, slot.control, sizeof slot.control, 0};
  }
  memory.counters[COUNT_CALLS]++;
  const int received = recvmmsg(fd_, messages_.data(), static_cast<unsigned>(messages_.size()), MSG_DONTWAIT, nullptr);
  used_ = received > 0 ? static_cast<size_t>(received) : 0;
  return received;
}

int32_t Capture::Describe(const BatchMemory::View& memory, int received) {
  memory.counters[COUNT_PACKETS] += received;
  int32_t described = 0;
  for (int i = 0; i < received; i++) {
    const size_t offset = static_cast<size_t>(i) * memory_.slot_bytes();
    int32_t* const descriptor = memory.descriptors + described * D_WORDS;
    const Verdict verdict = DescribeOne(memory.slab + offset, static_cast<uint32_t>(offset), messages_[static_cast<size_t>(i)], descriptor);
    if (verdict != Verdict::kAccepted) {
      memory.counters[static_cast<int32_t>(verdict)]++;
    } else if (described == 0 || !Coalesce(descriptor - D_WORDS, descriptor, memory.slab, memory_.RoomOf(descriptor[-D_WORDS + D_OFFSET]))) {
      described++;
    }
  }
  return described;
}

Verdict Capture::DescribeOne(const uint8_t* slot, uint32_t offset, const mmsghdr& message, int32_t* descriptor) const {
  if (message.msg_hdr.msg_flags & MSG_TRUNC) return Verdict::kTruncated;
  Arrival arrival;
  ReadArrival(mode_, v6_, message.msg_hdr, &arrival);
  size_t size = message.msg_len;
  if (mode_ == CaptureMode::kRaw) {
    return v6_ ? ParseTcp(arrival.ip, slot, size, offset, arrival.meta, descriptor) : ParseIpv4(slot, size, offset, arrival.meta, descriptor);
  }

  VirtioNetHeader virtio;
  const size_t skipped = sizeof virtio + arrival.network_offset;
  if (size < skipped) return Verdict::kTruncated;
  memcpy(&virtio, slot, sizeof virtio);
  if (virtio.flags & (VirtioNetHeader::kNeedsChecksum | VirtioNetHeader::kDataValid)) arrival.meta.checksum = Checksum::kKnownGood;
  const uint8_t gso = virtio.gso_type & static_cast<uint8_t>(~VirtioNetHeader::kGsoEcn);
  if (gso == VirtioNetHeader::kGsoTcpv4 || gso == VirtioNetHeader::kGsoTcpv6) arrival.meta.gso_size = virtio.gso_size;
  const auto parse = v6_ ? ParseIpv6 : ParseIpv4;
  return parse(slot + skipped, size - skipped, offset + static_cast<uint32_t>(skipped), arrival.meta, descriptor);
}

bool Capture::SetFilter(napi_value value) {
  Bytes program;
  if (!ToProgram(env().napi(), value, "program", &program)) return false;
  const int error = fd_ < 0 ? EBADF : AttachFilter(fd_, program);
  return error == 0 || ThrowSystem(env().napi(), error, "setsockopt");
}

bool Capture::KernelDrops(double* drops) {
  uint32_t read = 0;
  const int error = fd_ < 0 ? EBADF : ReadDrops(mode_, fd_, &read);
  if (error != 0) return ThrowSystem(env().napi(), error, "getsockopt");
  // PACKET_STATISTICS starts again at 0 with each read.
  packet_drops_ = mode_ == CaptureMode::kPacket ? packet_drops_ + read : read;
  *drops = packet_drops_;
  return true;
}

bool Capture::GrantedBuffer(int* bytes) {
  socklen_t size = sizeof *bytes;
  const int error = fd_ < 0 ? EBADF : getsockopt(fd_, SOL_SOCKET, SO_RCVBUF, bytes, &size) == 0 ? 0 : errno;
  return error == 0 || ThrowSystem(env().napi(), error, "getsockopt");
}

napi_value SetFilter(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  if (Capture* capture = Wrapped::Of<Capture>(napi, args.self)) capture->SetFilter(args[0]);
  return nullptr;
}

napi_value Drain(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  Capture* capture = Wrapped::Of<Capture>(napi, args.self);
  if (capture == nullptr) return nullptr;
  const int64_t packets = capture->Read(args.self);
  return packets < 0 ? nullptr : Number(napi, static_cast<double>(packets));
}

napi_value KernelDrops(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  double drops = 0;
  Capture* capture = Wrapped::Of<Capture>(napi, args.self);
  return capture != nullptr && capture->KernelDrops(&drops) ? Number(napi, drops) : nullptr;
}

napi_value ReceiveBufferBytes(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  int bytes = 0;
  Capture* capture = Wrapped::Of<Capture>(napi, args.self);
  return capture != nullptr && capture->GrantedBuffer(&bytes) ? Integer(napi, bytes) : nullptr;
}

}  // namespace

napi_value DefineCapture(napi_env napi) {
  const napi_property_descriptor members[] = {
      Method("setFilter", SetFilter),
      Method("drain", Drain),
      Method("kernelDrops", KernelDrops),
      Getter("receiveBufferBytes", ReceiveBufferBytes),
      Method("ref", Plain<Capture, &Capture::Ref>),
      Method("unref", Plain<Capture, &Capture::Unref>),
      Method("close", Plain<Capture, &Capture::Close>),
  };
  napi_value constructor = nullptr;
  napi_define_class(napi, "Capture", NAPI_AUTO_LENGTH, Construct<Capture>, nullptr, sizeof members / sizeof *members, members, &constructor);
  return constructor;
}

}  // namespace faketcp
