// Capture: reads packets from a packet or IP raw socket into the caller's slab, and calls JavaScript once for each system call that brought
// something. Knows no flow and keeps nothing of a packet.
#include <sys/socket.h>

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
#include "watched.h"

namespace faketcp {
namespace {

/** System calls for one poll event: a flood must not keep the event loop from timers and other sockets. */
constexpr int kRounds = 16;
constexpr int64_t kMaxSlots = 1024;
constexpr int64_t kMaxBufferBytes = 1 << 30;

class Capture final : public Watched {
 public:
  explicit Capture(Env& env) : Watched(env) {}

  bool Open(napi_value self, napi_value options);
  void Close() override;
  int64_t Read(napi_value self);
  bool SetFilter(napi_value program);
  bool KernelDrops(double* drops);
  bool GrantedBuffer(int* bytes);

 private:
  struct Slot {
    iovec vector;
    sockaddr_storage from;
    alignas(cmsghdr) uint8_t control[kCaptureControlBytes];
  };
  int Receive(const BatchMemory::View& memory);
  int32_t Describe(const BatchMemory::View& memory, int received);
  Verdict DescribeOne(const uint8_t* slot, uint32_t offset, const mmsghdr& message, int32_t* descriptor) const;
  void OnReadable() override;

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
  Own(OpenCapture(mode_, v6_, program, static_cast<int>(receive_buffer), &failure));
  return fd() >= 0 || ThrowSystem(napi, failure.error, failure.syscall);
}

void Capture::Close() {
  Watched::Close();
  on_batch_.Clear();
  memory_.Release();
}

void Capture::OnReadable() {
  if (Read(self()) < 0) Fail();
}

/** Packets read; -1 with an exception pending if the caller's memory is gone. `self` keeps this object alive meanwhile. */
int64_t Capture::Read(napi_value self) {
  if (reading_) return 0;
  reading_ = true;
  int64_t packets = 0;
  for (int round = 0; round < kRounds && fd() >= 0 && !env().ending(); round++) {
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
  const int received = recvmmsg(fd(), messages_.data(), static_cast<unsigned>(messages_.size()), MSG_DONTWAIT, nullptr);
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
  const int error = AttachFilter(fd(), program);
  return error == 0 || ThrowSystem(env().napi(), error, "setsockopt");
}

bool Capture::KernelDrops(double* drops) {
  uint32_t read = 0;
  const int error = ReadDrops(mode_, fd(), &read);
  if (error != 0) return ThrowSystem(env().napi(), error, "getsockopt");
  // PACKET_STATISTICS starts again at 0 with each read.
  packet_drops_ = mode_ == CaptureMode::kPacket ? packet_drops_ + read : read;
  *drops = packet_drops_;
  return true;
}

bool Capture::GrantedBuffer(int* bytes) {
  const int error = ReadReceiveBuffer(fd(), bytes);
  return error == 0 || ThrowSystem(env().napi(), error, "getsockopt");
}

napi_value Drain(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  Capture* capture = Wrapped::Of<Capture>(napi, args.self);
  if (capture == nullptr) return nullptr;
  const int64_t packets = capture->Read(args.self);
  return packets < 0 ? nullptr : Number(napi, static_cast<double>(packets));
}

}  // namespace

napi_value DefineCapture(napi_env napi) {
  return DefineClass(napi, "Capture", Construct<Capture>,
                     {
                         Method("setFilter", Taking<Capture, &Capture::SetFilter>),
                         Method("drain", Drain),
                         Method("kernelDrops", Reading<Capture, double, &Capture::KernelDrops>),
                         Getter("receiveBufferBytes", Reading<Capture, int, &Capture::GrantedBuffer>),
                         Method("ref", Plain<Watched, &Watched::Ref>),
                         Method("unref", Plain<Watched, &Watched::Unref>),
                         Method("close", Plain<Watched, &Watched::Close>),
                     });
}

}  // namespace faketcp
