// RawSender: writes the headers of whole trains and sends their segments through a header-included IP raw socket, payload taken from where it
// lies. Decides nothing: addresses, sequence numbers and sizes come from the descriptors.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "callback.h"
#include "classes.h"
#include "headers.h"
#include "js_values.h"
#include "layout.h"
#include "poll.h"
#include "route.h"
#include "wrapped.h"

namespace faketcp {
namespace {

/** Messages for one sendmmsg. 128 and 256 gained nothing measurable: route look-up and device cost far more than the system call. */
constexpr size_t kBatch = 64;
/** The largest IP packet: 16 bits of total length (IPv4), of payload length beside the header (IPv6). */
constexpr size_t kMaxPacket = 65535;
constexpr int64_t kMaxBufferBytes = 1 << 30;
constexpr char kOnWritable[] = "onWritable";

class RawSender final : public Wrapped {
 public:
  explicit RawSender(Env& env) : Wrapped(env) {}
  ~RawSender() override { Close(); }

  bool Open(napi_value self, napi_value options);
  void EnvironmentEnds() override { Close(); }
  void Close();
  /** False with an exception pending, and nothing sent, when the arguments are wrong. */
  bool Send(const Arguments<4>& args, double* sent);
  int error() const { return -error_; }

 private:
  bool Validate(const int32_t* descriptors, size_t count, napi_value buffers);
  bool ValidateTrain(const int32_t* descriptor, size_t index, napi_value buffers, uint32_t available);
  void SendTrain(const int32_t* descriptor, const Bytes* buffers);
  void Append(const int32_t* descriptor, const Segment& segment);
  void Flush();
  bool AwaitWritable(napi_value self);
  static void OnWritable(void* owner, int status);

  Poll poll_;
  AsyncContext context_;
  /** The descriptors of one call, and the buffers of all its trains in order; kept to be filled again. */
  std::vector<int32_t> trains_;
  std::vector<Bytes> parts_;
  mmsghdr messages_[kBatch];
  iovec vectors_[kBatch][2];
  uint8_t headers_[kBatch][kMaxHeaderBytes];
  Route routes_[kBatch];
  /** The train whose route the next message may share. */
  const int32_t* routed_ = nullptr;
  Route* route_ = nullptr;
  size_t queued_ = 0;
  size_t sent_ = 0;
  int error_ = 0;
  bool v6_ = false;
  int fd_ = -1;
};

bool RawSender::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  int64_t send_buffer = 0;
  napi_value on_writable = nullptr;
  if (!GetFamily(napi, options, &v6_) || !GetInteger(napi, options, "sendBufferBytes", 1, kMaxBufferBytes, &send_buffer) ||
      !GetFunction(napi, options, kOnWritable, &on_writable)) {
    return false;
  }
  // The object holds its callback, not a root: a callback that refers to the sender must not keep it from being collected.
  const napi_property_descriptor property = {kOnWritable, nullptr, nullptr, nullptr, nullptr, on_writable, napi_default, nullptr};
  if (!Check(napi, napi_define_properties(napi, self, 1, &property)) || !context_.Create(env(), self, "FAKETCP_SENDER")) return false;

  // IPPROTO_RAW implies header-included, and no packet of protocol TCP is ever queued on it, so it needs no filter.
  fd_ = socket(v6_ ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
  if (fd_ < 0) return ThrowSystem(napi, errno, "socket");
  const int bytes = static_cast<int>(send_buffer);
  if (setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) != 0 && setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) != 0) {
    return ThrowSystem(napi, errno, "setsockopt");
  }
  // Packets of protocol 255 do arrive, and nobody reads them: as few as the kernel permits.
  const int least = 1;
  setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
  memset(messages_, 0, sizeof messages_);
  return true;
}

void RawSender::Close() {
  poll_.Close();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  context_.Destroy();
  Unhold();
}

bool RawSender::Send(const Arguments<4>& args, double* sent) {
  const napi_env napi = env().napi();
  int32_t* descriptors = nullptr;
  size_t words = 0;
  int64_t from = 0;
  int64_t count = 0;
  if (!ToWords(napi, args[0], "descriptors", 0, &descriptors, &words)) return false;
  const int64_t rows = static_cast<int64_t>(words / D_WORDS);
  if (!ToInteger(napi, args[1], "from", 0, rows, &from) || !ToInteger(napi, args[2], "count", 0, rows - from, &count)) return false;
  // A copy: another thread may write to a table on a SharedArrayBuffer, and what was checked must be what is sent.
  trains_.assign(descriptors + from * D_WORDS, descriptors + (from + count) * D_WORDS);
  const int32_t* first = trains_.data();
  if (fd_ < 0) return ThrowSystem(napi, EBADF, "sendmmsg");
  if (!Validate(first, static_cast<size_t>(count), args[3])) return false;

  sent_ = 0;
  error_ = 0;
  queued_ = 0;
  routed_ = nullptr;
  const Bytes* buffers = parts_.data();
  for (int64_t i = 0; i < count && error_ == 0; i++) {
    const int32_t* descriptor = first + i * D_WORDS;
    SendTrain(descriptor, buffers);
    buffers += descriptor[D_LENGTH];
  }
  if (error_ == 0) Flush();
  *sent = static_cast<double>(sent_);
  return error_ != EAGAIN || AwaitWritable(args.self);
}

// Everything is checked and every buffer looked up before the first packet leaves: an exception means that nothing was sent.
bool RawSender::Validate(const int32_t* descriptors, size_t count, napi_value buffers) {
  const napi_env napi = env().napi();
  uint32_t available = 0;
  if (napi_get_array_length(napi, buffers, &available) != napi_ok) return ThrowType(napi, "buffers must be an array of Uint8Array");
  parts_.clear();
  for (size_t i = 0; i < count; i++) {
    if (!ValidateTrain(descriptors + i * D_WORDS, i, buffers, available)) return false;
  }
  return true;
}

bool RawSender::ValidateTrain(const int32_t* d, size_t index, napi_value buffers, uint32_t available) {
  const napi_env napi = env().napi();
  for (const int32_t* address : {d + KEY_REMOTE, d + KEY_LOCAL}) {
    if (IsMapped(address) == v6_) {
      return ThrowRange(napi, "descriptor %zu has an address of IPv%d, this sender is for IPv%d", index, v6_ ? 4 : 6, v6_ ? 6 : 4);
    }
  }
  const int64_t first = d[D_OFFSET];
  const int64_t length = d[D_LENGTH];
  const int64_t segment = d[D_SEGMENT];
  const size_t room = kMaxPacket - HeaderBytes(v6_, d);
  if (length < 0 || (length > 0 && (first < 0 || first + length > available))) {
    return ThrowRange(napi, "descriptor %zu names buffers %lld to %lld of %u", index, static_cast<long long>(first),
                      static_cast<long long>(first + length), available);
  }
  if (length > 0 && (segment < 1 || segment > static_cast<int64_t>(room))) {
    return ThrowRange(napi, "descriptor %zu has segments of %lld bytes, 1 to %zu can be sent", index, static_cast<long long>(segment), room);
  }
  size_t segments = length == 0 ? 1 : 0;
  for (int64_t i = first; i < first + length; i++) {
    napi_value element = nullptr;
    Bytes bytes;
    if (!Check(napi, napi_get_element(napi, buffers, static_cast<uint32_t>(i), &element)) || !ToBytes(napi, element, "each of buffers", &bytes)) {
      return false;
    }
    if (bytes.size == 0) return ThrowRange(napi, "buffer %lld is empty: it would be no segment", static_cast<long long>(i));
    segments += (bytes.size - 1) / static_cast<size_t>(segment) + 1;
    parts_.push_back(bytes);
  }
  if (d[D_SKIP] < 0 || static_cast<size_t>(d[D_SKIP]) > segments) {
    return ThrowRange(napi, "descriptor %zu skips %d of %zu segments", index, d[D_SKIP], segments);
  }
  return true;
}

void RawSender::SendTrain(const int32_t* d, const Bytes* buffers) {
  int32_t skip = d[D_SKIP];
  uint32_t seq = Word(d, D_SEQ);
  const int32_t length = d[D_LENGTH];
  if (length == 0) {
    if (skip == 0) Append(d, {seq, nullptr, 0, true});
    return;
  }
  const size_t size = static_cast<size_t>(d[D_SEGMENT]);
  for (int32_t i = 0; i < length; i++) {
    const Bytes& buffer = buffers[i];
    for (size_t at = 0; at < buffer.size; at += size) {
      const size_t left = buffer.size - at;
      const size_t bytes = left < size ? left : size;
      if (skip > 0) {
        skip--;
      } else {
        Append(d, {seq, buffer.data + at, bytes, i == length - 1 && bytes == left});
        if (error_ != 0) return;
      }
      seq += static_cast<uint32_t>(bytes);
    }
  }
}

void RawSender::Append(const int32_t* d, const Segment& segment) {
  const size_t i = queued_++;
  if (routed_ != d) {
    routed_ = d;
    route_ = &routes_[i];
    WriteRoute(v6_, d, route_);
  }
  vectors_[i][0] = {headers_[i], WriteHeaders(v6_, d, segment, headers_[i])};
  vectors_[i][1] = {const_cast<uint8_t*>(segment.payload), segment.length};
  messages_[i].msg_hdr = {&route_->to, route_->to_size, vectors_[i], 2, route_->control, route_->control_size, 0};
  if (queued_ == kBatch) Flush();
}

/** Sends what is queued; sendmmsg reports an error only when its first message is refused, so a partial one is called again. */
void RawSender::Flush() {
  size_t done = 0;
  while (done < queued_) {
    const int taken = sendmmsg(fd_, messages_ + done, static_cast<unsigned>(queued_ - done), MSG_DONTWAIT);
    if (taken > 0) {
      done += static_cast<size_t>(taken);
    } else if (errno != EINTR) {
      error_ = errno;
      break;
    }
  }
  sent_ += done;
  queued_ = 0;
  routed_ = nullptr;
}

bool RawSender::AwaitWritable(napi_value self) {
  const int failed = poll_.Start(env(), fd_, UV_WRITABLE, OnWritable, this);
  if (failed != 0) return ThrowSystem(env().napi(), -failed, "epoll_ctl");
  Hold(self);
  return true;
}

void RawSender::OnWritable(void* owner, int) {
  RawSender* sender = static_cast<RawSender*>(owner);
  const napi_env napi = sender->env().napi();
  const Scope scope(napi);
  const napi_value self = sender->self();
  napi_value on_writable = nullptr;
  napi_get_named_property(napi, self, kOnWritable, &on_writable);
  // Closed rather than stopped: a stopped poll would still be a handle for the garbage collector's sake to look after.
  sender->poll_.Close();
  sender->Unhold();
  sender->context_.Call(self, on_writable, 0, nullptr);
}

napi_value Construct(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  if (!IsConstructing(napi, info)) return nullptr;
  auto sender = std::make_unique<RawSender>(Env::Of(napi));
  if (!sender->Open(args.self, args[0]) || !sender->Attach(args.self)) return nullptr;
  sender.release();
  return args.self;
}

napi_value Send(napi_env napi, napi_callback_info info) {
  const Arguments<4> args(napi, info);
  double sent = 0;
  RawSender* sender = Wrapped::Of<RawSender>(napi, args.self);
  return sender != nullptr && sender->Send(args, &sent) ? Number(napi, sent) : nullptr;
}

napi_value Errno(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  const RawSender* sender = Wrapped::Of<RawSender>(napi, args.self);
  return sender != nullptr ? Integer(napi, sender->error()) : nullptr;
}

}  // namespace

napi_value DefineRawSender(napi_env napi) {
  const napi_property_descriptor members[] = {
      Method("send", Send),
      Getter("errno", Errno),
      Method("close", Plain<RawSender, &RawSender::Close>),
  };
  napi_value constructor = nullptr;
  napi_define_class(napi, "RawSender", NAPI_AUTO_LENGTH, Construct, nullptr, sizeof members / sizeof *members, members, &constructor);
  return constructor;
}

}  // namespace faketcp
