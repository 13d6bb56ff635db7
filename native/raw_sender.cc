// RawSender: writes the headers of whole trains and sends their segments, one packet each, through a header-included IP raw socket, payload taken
// from where it lies. Decides nothing: addresses, sequence numbers and sizes come from the descriptors.
#include <netinet/in.h>

#include <cerrno>

#include "classes.h"
#include "headers.h"
#include "route.h"
#include "sender.h"

namespace faketcp {
namespace {

class RawSender final : public Sender {
 public:
  explicit RawSender(Env& env) : Sender(env) {}
  bool Open(napi_value self, napi_value options);

 private:
  bool TakeArguments(const SendArguments&) override { return true; }
  bool CheckDescriptor(const int32_t* descriptor, size_t index, size_t* headers) override;
  void SendTrain(const int32_t* descriptor, const Bytes* buffers) override;
  void Restart() override { routed_ = nullptr; }
  void Append(const int32_t* descriptor, const Segment& segment);

  iovec vectors_[kBatch][2];
  uint8_t headers_[kBatch][kMaxHeaderBytes];
  Route routes_[kBatch];
  /** The train whose route the next message may share. */
  const int32_t* routed_ = nullptr;
  Route* route_ = nullptr;
  bool v6_ = false;
};

bool RawSender::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  if (!GetFamily(napi, options, &v6_)) return false;
  // IPPROTO_RAW implies header-included, and no packet of protocol TCP is ever queued on it, so it needs no filter.
  const int fd = socket(v6_ ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW);
  return fd >= 0 ? Prepare(self, options, fd) : ThrowSystem(napi, errno, "socket");
}

bool RawSender::CheckDescriptor(const int32_t* d, size_t index, size_t* headers) {
  for (const int32_t* address : {d + KEY_REMOTE, d + KEY_LOCAL}) {
    if (IsMapped(address) == v6_) {
      return ThrowRange(env().napi(), "descriptor %zu has an address of IPv%d, this sender is for IPv%d", index, v6_ ? 4 : 6, v6_ ? 6 : 4);
    }
  }
  *headers = HeaderBytes(v6_, d);
  return true;
}

void RawSender::SendTrain(const int32_t* d, const Bytes* buffers) {
  const uint32_t seq = Word(d, D_SEQ);
  EachSegment(d, buffers, [=](const Cut& cut) { Append(d, {seq + cut.offset, cut.index, cut.data, cut.bytes, cut.last, false}); });
}

void RawSender::Append(const int32_t* d, const Segment& segment) {
  const size_t i = next();
  if (routed_ != d) {
    routed_ = d;
    route_ = &routes_[i];
    WriteRoute(v6_, d, route_);
  }
  vectors_[i][0] = {headers_[i], WriteHeaders(v6_, d, segment, headers_[i])};
  vectors_[i][1] = {const_cast<uint8_t*>(segment.payload), segment.length};
  message(i) = {&route_->to, route_->to_size, vectors_[i], 2, route_->control, route_->control_size, 0};
  Queue(1);
}

}  // namespace

napi_value DefineRawSender(napi_env napi) { return Sender::Define(napi, "RawSender", Construct<RawSender>); }

}  // namespace faketcp
