// CarrierListener: the kernel TCP listener behind a fake-TCP listener. Accepts, and mutes what it accepted before JavaScript sees it. Knows nothing of flows.
#include "classes.h"

#include <sys/socket.h>

#include <cerrno>
#include <vector>

#include "address.h"
#include "carrier_socket.h"
#include "carrier_source.h"
#include "js_values.h"

namespace faketcp {
namespace {

class CarrierListener final : public CarrierSource {
 public:
  explicit CarrierListener(Env& env) : CarrierSource(env, Keeps::kLoop) {}

  bool Open(napi_value self, napi_value options);
  bool LocalPort(int* port);
  bool steered() const { return steered_; }

 private:
  int TakeOne(int* error) override;

  /** The program attached to what is accepted. */
  std::vector<uint8_t> mute_;
  uint32_t user_timeout_ms_ = 0;
  bool steered_ = false;
};

/** Whether an optional property is there. */
bool Has(napi_env napi, napi_value options, const char* name, bool* there) {
  napi_value value = nullptr;
  napi_valuetype type = napi_undefined;
  if (!Property(napi, options, name, &value) || !Check(napi, napi_typeof(napi, value, &type))) return false;
  *there = type != napi_undefined;
  return true;
}

bool CarrierListener::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  char address[kAddressText];
  int64_t port = 0;
  int64_t backlog = 0;
  int64_t user_timeout = 0;
  int64_t tos = 0;
  bool v6 = false;
  Bytes mute;
  Bytes steering;
  StreamSocket wanted{};
  if (!GetFamily(napi, options, &v6) || !GetText(napi, options, "address", address, sizeof address) ||
      !GetInteger(napi, options, "port", 0, 65535, &port) || !GetInteger(napi, options, "backlog", 0, INT32_MAX, &backlog) ||
      !GetBoolean(napi, options, "ipv6Only", &wanted.v6_only) || !GetInteger(napi, options, "userTimeoutMs", 0, INT32_MAX, &user_timeout) ||
      !GetInteger(napi, options, "tos", 0, 255, &tos) || !GetProgram(napi, options, "mute", &mute)) {
    return false;
  }
  if (!ParseSocketAddress(v6 ? AF_INET6 : AF_INET, address, static_cast<uint16_t>(port), &wanted.local)) {
    return ThrowRange(napi, "address must be an IPv%d address, it is '%s'", v6 ? 6 : 4, address);
  }
  mute_.assign(mute.data, mute.data + mute.size);
  if (!SetCallback(self, options, "onAccept", "FAKETCP_LISTENER") || !GetProgram(napi, options, "filter", &wanted.filter) ||
      !Has(napi, options, "steering", &wanted.reuse_port) || (wanted.reuse_port && !GetProgram(napi, options, "steering", &steering))) {
    return false;
  }
  user_timeout_ms_ = static_cast<uint32_t>(user_timeout);
  wanted.reuse_address = true;
  wanted.tos = static_cast<int>(tos);
  Failure failure;
  Own(OpenStream(wanted, &failure));
  if (fd() < 0) return ThrowSystem(napi, failure.error, failure.syscall);
  if (listen(fd(), static_cast<int>(backlog)) != 0) return ThrowSystem(napi, errno, "listen");
  // Until now the group had its program from those who came before, or has no other member. A kernel that refuses one decides by its own hash.
  steered_ = wanted.reuse_port && AttachSteering(fd(), steering) == 0;
  return true;
}

int CarrierListener::TakeOne(int* error) {
  const int accepted = accept4(fd(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (accepted >= 0) {
    // The user timeout is inherited with the handshake, except by a child made from a SYN cookie on some kernels.
    *error = MuteStream(accepted, {mute_.data(), mute_.size()});
    if (*error == 0) *error = SetUserTimeout(accepted, user_timeout_ms_);
    if (*error == 0) return accepted;
    EndStream(accepted, Ending::kReset);
    return -1;
  }
  switch (errno) {
    // accept(2): errors already pending on the new connection, and a firewall's refusal, are to be treated like EAGAIN by retrying.
    case ECONNABORTED: case EINTR: case EPERM: case EPROTO: case ENOPROTOOPT: case ENETDOWN: case ENETUNREACH: case EHOSTDOWN:
    case EHOSTUNREACH: case ENONET: case EOPNOTSUPP: case ETIMEDOUT:
      *error = 0;
      return -1;
    default:
      *error = errno;
      return -1;
  }
}

bool CarrierListener::LocalPort(int* port) {
  SocketAddress local;
  const int error = LocalName(fd(), &local);
  *port = PortOf(local);
  return error == 0 || ThrowSystem(env().napi(), error, "getsockname");
}

napi_value Steered(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  CarrierListener* listener = Wrapped::Of<CarrierListener>(napi, args.self);
  return listener != nullptr ? Boolean(napi, listener->steered()) : nullptr;
}

}  // namespace

napi_value DefineCarrierListener(napi_env napi) {
  return DefineClass(napi, "CarrierListener", Construct<CarrierListener>,
                     {
                         Method("resume", Plain<Watched, &Watched::Resume>),
                         Method("ref", Plain<Watched, &Watched::Ref>),
                         Method("unref", Plain<Watched, &Watched::Unref>),
                         Method("close", Plain<Watched, &Watched::Close>),
                         Getter("localPort", Reading<CarrierListener, int, &CarrierListener::LocalPort>),
                         Getter("steered", Steered),
                     });
}

}  // namespace faketcp
