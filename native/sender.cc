// What all senders have in common; see sender.h.
#include "sender.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernel_socket.h"

namespace faketcp {
namespace {

constexpr char kOnWritable[] = "onWritable";

napi_value SendMethod(napi_env napi, napi_callback_info info) {
  const Sender::SendArguments args(napi, info);
  double sent = 0;
  Sender* sender = Wrapped::Of<Sender>(napi, args.self);
  return sender != nullptr && sender->Send(args, &sent) ? Number(napi, sent) : nullptr;
}

napi_value Errno(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  const Sender* sender = Wrapped::Of<Sender>(napi, args.self);
  return sender != nullptr ? Integer(napi, sender->error()) : nullptr;
}

}  // namespace

Sender::Sender(Env& env) : Wrapped(env) { memset(messages_, 0, sizeof messages_); }

bool Sender::Prepare(napi_value self, napi_value options, int fd) {
  fd_ = fd;
  const napi_env napi = env().napi();
  int64_t send_buffer = 0;
  napi_value on_writable = nullptr;
  if (!GetInteger(napi, options, "sendBufferBytes", 1, kMaxSendBufferBytes, &send_buffer) ||
      !GetFunction(napi, options, kOnWritable, &on_writable)) {
    return false;
  }
  // The object holds its callback, not a root: a callback that refers to the sender must not keep it from being collected.
  const napi_property_descriptor property = {kOnWritable, nullptr, nullptr, nullptr, nullptr, on_writable, napi_default, nullptr};
  if (!Check(napi, napi_define_properties(napi, self, 1, &property)) || !context_.Create(env(), self, "FAKETCP_SENDER")) return false;
  if (const int error = SetSendBuffer(fd_, static_cast<int>(send_buffer)); error != 0) return ThrowSystem(napi, error, "setsockopt");
  // Nobody reads what arrives on a socket that sends: as little as the kernel permits.
  SetInteger(fd_, SOL_SOCKET, SO_RCVBUF, 1);
  return true;
}

void Sender::Close() {
  poll_.Close();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  context_.Destroy();
  Unhold();
}

bool Sender::Send(const SendArguments& args, double* sent) {
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
  if (!TakeArguments(args) || !Validate(first, static_cast<size_t>(count), args[3])) return false;

  sent_ = 0;
  error_ = 0;
  queued_ = 0;
  Restart();
  const Bytes* buffers = parts_.data();
  for (int64_t i = 0; i < count && error_ == 0; i++) {
    const int32_t* descriptor = first + i * D_WORDS;
    SendTrain(descriptor, buffers);
    buffers += descriptor[D_LENGTH];
  }
  if (error_ == 0) Flush();
  *sent = static_cast<double>(sent_);
  if (error_ == EAGAIN && !AwaitWritable(args.self)) return false;
  Sent(args.self);
  return true;
}

// Everything is checked and every buffer looked up before the first packet leaves: an exception means that nothing was sent.
bool Sender::Validate(const int32_t* descriptors, size_t count, napi_value buffers) {
  const napi_env napi = env().napi();
  uint32_t available = 0;
  if (napi_get_array_length(napi, buffers, &available) != napi_ok) return ThrowType(napi, "buffers must be an array of Uint8Array");
  parts_.clear();
  for (size_t i = 0; i < count; i++) {
    if (!ValidateTrain(descriptors + i * D_WORDS, i, buffers, available)) return false;
  }
  return true;
}

bool Sender::ValidateTrain(const int32_t* d, size_t index, napi_value buffers, uint32_t available) {
  const napi_env napi = env().napi();
  size_t headers = 0;
  if (!CheckDescriptor(d, index, &headers)) return false;
  const int64_t first = d[D_OFFSET];
  const int64_t length = d[D_LENGTH];
  const int64_t segment = d[D_SEGMENT];
  const size_t room = kMaxPacket - headers;
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

void Sender::Queue(uint32_t segments) {
  segments_[queued_++] = segments;
  if (queued_ == kBatch) Flush();
}

/** Sends what is queued; sendmmsg reports an error only when its first message is refused, so a partial one is called again. */
void Sender::Flush() {
  size_t done = 0;
  while (done < queued_) {
    const int taken = sendmmsg(fd_, messages_ + done, static_cast<unsigned>(queued_ - done), MSG_DONTWAIT);
    if (taken > 0) {
      for (int i = 0; i < taken; i++) sent_ += segments_[done++];
    } else if (errno != EINTR) {
      uint32_t taken = 0;
      error_ = errno == EAGAIN ? EAGAIN : Refused(done, errno, &taken);
      sent_ += taken;
      if (error_ != 0) break;
      done++;
    }
  }
  queued_ = 0;
  Restart();
}

int Sender::Refused(size_t, int error, uint32_t*) { return error; }

bool Sender::AwaitWritable(napi_value self) {
  const int watched = WritableDescriptor();
  const int failed = watched < 0 ? -errno : poll_.Start(env(), watched, UV_WRITABLE, OnWritable, this);
  if (failed != 0) return ThrowSystem(env().napi(), -failed, "epoll_ctl");
  Hold(self);
  return true;
}

void Sender::OnWritable(void* owner, int) {
  Sender* sender = static_cast<Sender*>(owner);
  const napi_env napi = sender->env().napi();
  const Scope scope(napi);
  const napi_value self = sender->self();
  napi_value on_writable = nullptr;
  napi_get_named_property(napi, self, kOnWritable, &on_writable);
  // Closed rather than stopped: a stopped poll would still be a handle for the garbage collector's sake to look after.
  sender->poll_.Close();
  if (!sender->listens()) sender->Unhold();
  sender->context_.Call(self, on_writable, 0, nullptr);
}

napi_value Sender::Define(napi_env napi, const char* name, napi_callback construct, std::initializer_list<napi_property_descriptor> more) {
  std::vector<napi_property_descriptor> members = {
      Method("send", SendMethod),
      Getter("errno", Errno),
      Method("close", Plain<Sender, &Sender::Close>),
  };
  members.insert(members.end(), more);
  return DefineClass(napi, name, construct, members);
}

}  // namespace faketcp
