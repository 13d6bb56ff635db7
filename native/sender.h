// What all senders have in common: the arguments of `send` and their checks, the batch on its way to sendmmsg, waiting for room. Knows
// descriptors and buffers; which bytes go in front of the payload, and to which address, the derived class decides.
#pragma once

#include <sys/socket.h>

#include <initializer_list>
#include <vector>

#include "callback.h"
#include "js_values.h"
#include "layout.h"
#include "poll.h"
#include "wrapped.h"

namespace faketcp {

/** Messages for one sendmmsg. 128 and 256 gained nothing measurable: route look-up and device cost far more than the system call. */
constexpr size_t kBatch = 64;
/** The largest IP packet: 16 bits of total length (IPv4), of payload length beside the header (IPv6). */
constexpr size_t kMaxPacket = 65535;
constexpr int64_t kMaxSendBufferBytes = 1 << 30;

class Sender : public Wrapped {
 public:
  using SendArguments = Arguments<5>;

  void EnvironmentEnds() override { Close(); }
  /** There is nothing to listen to until room is awaited. */
  bool Watch(napi_value) { return true; }
  virtual void Close();
  /** False with an exception pending, and nothing sent, when the arguments are wrong. */
  bool Send(const SendArguments& args, double* sent);
  int error() const { return -error_; }

  /** The JavaScript class of a derived one, which may have `more` members. */
  static napi_value Define(napi_env napi, const char* name, napi_callback construct, std::initializer_list<napi_property_descriptor> more = {});

 protected:
  explicit Sender(Env& env);
  ~Sender() override { Sender::Close(); }

  /** Takes `fd` over and gives it the send buffer and the callback of `options`. False with an exception pending. */
  bool Prepare(napi_value self, napi_value options, int fd);
  /** Reads the arguments that only the derived class has. False with an exception pending. */
  virtual bool TakeArguments(const SendArguments& args) = 0;
  /** Whether a descriptor's addresses and the like can be sent; `*headers` are the bytes that will stand in front of a segment's payload. */
  virtual bool CheckDescriptor(const int32_t* descriptor, size_t index, size_t* headers) = 0;
  /** Queues the messages of one train; stops when error() is set. `buffers` are its own. */
  virtual void SendTrain(const int32_t* descriptor, const Bytes* buffers) = 0;
  /** Runs before the first train of a call and after each Flush: nothing that was queued is referred to any more. */
  virtual void Restart() {}
  /**
   * The kernel has refused message `index` with `error`. Returns 0 once it has been sent in another way after all, or why it cannot be; the first `*sent` of its
   * segments have gone then.
   */
  virtual int Refused(size_t index, int error, uint32_t* sent);
  /** The last thing of a call: JavaScript may be called. */
  virtual void Sent(napi_value) {}
  /** What is watched for room: another descriptor of the socket where the socket itself is watched already. -1 with errno. */
  virtual int WritableDescriptor() { return fd_; }
  /** The derived class holds itself while it is open. */
  virtual bool listens() const { return false; }

  /** A segment of a train. */
  struct Cut {
    const uint8_t* data;
    size_t bytes;
    /** Payload bytes, and segments, of the train before it. */
    uint32_t offset;
    uint32_t index;
    bool last;
  };
  /** Calls `visit(cut)` for each segment that is still to be sent; for a train without payload once, with an empty one. Stops when failed(). */
  template <class Visit>
  void EachSegment(const int32_t* descriptor, const Bytes* buffers, Visit visit) const;

  int fd() const { return fd_; }
  bool failed() const { return error_ != 0; }
  /** Where the next message is written; Queue() then hands it on, as so many segments. */
  size_t next() const { return queued_; }
  msghdr& message(size_t index) { return messages_[index].msg_hdr; }
  uint32_t segments(size_t index) const { return segments_[index]; }
  void Queue(uint32_t segments);

 private:
  bool Validate(const int32_t* descriptors, size_t count, napi_value buffers);
  bool ValidateTrain(const int32_t* descriptor, size_t index, napi_value buffers, uint32_t available);
  void Flush();
  bool AwaitWritable(napi_value self);
  static void OnWritable(void* owner, int status);

  Poll poll_;
  AsyncContext context_;
  /** The descriptors of one call, and the buffers of all its trains in order; kept to be filled again. */
  std::vector<int32_t> trains_;
  std::vector<Bytes> parts_;
  mmsghdr messages_[kBatch];
  uint32_t segments_[kBatch];
  size_t queued_ = 0;
  uint64_t sent_ = 0;
  int error_ = 0;
  int fd_ = -1;
};

template <class Visit>
void Sender::EachSegment(const int32_t* d, const Bytes* buffers, Visit visit) const {
  int32_t skip = d[D_SKIP];
  const int32_t length = d[D_LENGTH];
  if (length == 0) {
    if (skip == 0) visit(Cut{nullptr, 0, 0, 0, true});
    return;
  }
  const size_t size = static_cast<size_t>(d[D_SEGMENT]);
  uint32_t offset = 0;
  uint32_t index = 0;
  for (int32_t i = 0; i < length; i++) {
    const Bytes& buffer = buffers[i];
    for (size_t at = 0; at < buffer.size; at += size) {
      const size_t left = buffer.size - at;
      const size_t bytes = left < size ? left : size;
      if (skip > 0) {
        skip--;
      } else {
        visit(Cut{buffer.data + at, bytes, offset, index, i == length - 1 && bytes == left});
        if (failed()) return;
      }
      offset += static_cast<uint32_t>(bytes);
      index++;
    }
  }
}

}  // namespace faketcp
