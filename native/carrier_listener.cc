// CarrierListener: the kernel TCP listener behind a fake-TCP listener. Accepts, mutes what it accepted before JavaScript sees it, and stops
// when the process or the host runs out. Knows nothing of flows.
#include "classes.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "address.h"
#include "callback.h"
#include "carrier_socket.h"
#include "js_values.h"
#include "poll.h"
#include "wrapped.h"

namespace faketcp {
namespace {

/** Accepted for one poll event. */
constexpr int kBurst = 64;

class CarrierListener final : public Wrapped {
 public:
  explicit CarrierListener(Env& env) : Wrapped(env) {}
  ~CarrierListener() override { Close(); }

  bool Open(napi_value self, napi_value options);
  bool Watch(napi_value self);
  void EnvironmentEnds() override { Close(); }
  void Close();
  void Resume();
  bool LocalPort(int* port);
  bool steered() const { return steered_; }
  void Ref() { poll_.Ref(); }
  void Unref() { poll_.Unref(); }

 private:
  static void OnReadable(void* owner, int status);
  void Accept();
  int AcceptOne(int* error);

  Poll poll_;
  Callback on_accept_;
  /** The program attached to what is accepted. */
  std::vector<uint8_t> mute_;
  uint32_t user_timeout_ms_ = 0;
  bool steered_ = false;
  int fd_ = -1;
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
  napi_value on_accept = nullptr;
  if (!GetFamily(napi, options, &v6) || !GetText(napi, options, "address", address, sizeof address) ||
      !GetInteger(napi, options, "port", 0, 65535, &port) || !GetInteger(napi, options, "backlog", 0, INT32_MAX, &backlog) ||
      !GetBoolean(napi, options, "ipv6Only", &wanted.v6_only) || !GetInteger(napi, options, "userTimeoutMs", 0, INT32_MAX, &user_timeout) ||
      !GetInteger(napi, options, "tos", 0, 255, &tos) || !GetFunction(napi, options, "onAccept", &on_accept) || !GetProgram(napi, options, "mute", &mute)) {
    return false;
  }
  if (!ParseSocketAddress(v6 ? AF_INET6 : AF_INET, address, static_cast<uint16_t>(port), &wanted.local)) {
    return ThrowRange(napi, "address must be an IPv%d address, it is '%s'", v6 ? 6 : 4, address);
  }
  mute_.assign(mute.data, mute.data + mute.size);
  if (!on_accept_.Set(env(), self, on_accept, "FAKETCP_LISTENER") || !GetProgram(napi, options, "filter", &wanted.filter) ||
      !Has(napi, options, "steering", &wanted.reuse_port) || (wanted.reuse_port && !GetProgram(napi, options, "steering", &steering))) {
    return false;
  }
  user_timeout_ms_ = static_cast<uint32_t>(user_timeout);
  wanted.reuse_address = true;
  wanted.tos = static_cast<int>(tos);
  Failure failure;
  fd_ = OpenStream(wanted, &failure);
  if (fd_ < 0) return ThrowSystem(napi, failure.error, failure.syscall);
  if (listen(fd_, static_cast<int>(backlog)) != 0) return ThrowSystem(napi, errno, "listen");
  // Until now the group had its program from those who came before, or has no other member. A kernel that refuses one decides by its own hash.
  steered_ = wanted.reuse_port && AttachSteering(fd_, steering) == 0;
  return true;
}

bool CarrierListener::Watch(napi_value self) {
  const int failed = poll_.Start(env(), fd_, UV_READABLE, OnReadable, this);
  if (failed != 0) {
    Close();
    return ThrowSystem(env().napi(), -failed, "epoll_ctl");
  }
  Hold(self);
  return true;
}

void CarrierListener::Close() {
  poll_.Close();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  on_accept_.Clear();
  Unhold();
}

void CarrierListener::Resume() {
  if (fd_ < 0) return;
  const int failed = poll_.Start(env(), fd_, UV_READABLE, OnReadable, this);
  if (failed != 0) ThrowSystem(env().napi(), -failed, "epoll_ctl");
}

void CarrierListener::OnReadable(void* owner, int status) {
  CarrierListener* listener = static_cast<CarrierListener*>(owner);
  if (status < 0) {
    // libuv stops a poll that reports EPOLLERR. Reading SO_ERROR clears the condition, then watching goes on.
    PendingError(listener->fd_);
    listener->poll_.Start(listener->env(), listener->fd_, UV_READABLE, OnReadable, listener);
  }
  listener->Accept();
}

void CarrierListener::Accept() {
  const napi_env napi = env().napi();
  const Scope scope(napi);
  const napi_value listener = self();
  napi_value carriers = nullptr;
  napi_create_array(napi, &carriers);
  uint32_t accepted = 0;
  int error = 0;
  for (int i = 0; i < kBurst && error == 0; i++) {
    const int fd = AcceptOne(&error);
    if (fd < 0) continue;
    if (const napi_value carrier = env().NewCarrier(fd)) {
      napi_set_element(napi, carriers, accepted++, carrier);
    } else {
      ReportPending(napi);
    }
  }
  if (error == EAGAIN) error = 0;
  // A full table would make epoll report the same connection for ever.
  if (error != 0) poll_.Stop();
  if (accepted == 0 && error == 0) return;
  const napi_value arguments[] = {carriers, Integer(napi, -error)};
  on_accept_.Call(listener, 2, arguments);
}

/** A muted socket, or -1: with `error` 0 when only this connection was lost, else the reason to stop. */
int CarrierListener::AcceptOne(int* error) {
  const int fd = accept4(fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0) {
    // The user timeout is inherited with the handshake, except by a child made from a SYN cookie on some kernels.
    *error = MuteStream(fd, {mute_.data(), mute_.size()});
    if (*error == 0) *error = SetUserTimeout(fd, user_timeout_ms_);
    if (*error == 0) return fd;
    EndStream(fd, Ending::kReset);
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
  local.size = sizeof local.storage;
  const int error = fd_ < 0 ? EBADF : getsockname(fd_, local.get(), &local.size) == 0 ? 0 : errno;
  *port = PortOf(local);
  return error == 0 || ThrowSystem(env().napi(), error, "getsockname");
}

napi_value LocalPort(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  int port = 0;
  CarrierListener* listener = Wrapped::Of<CarrierListener>(napi, args.self);
  return listener != nullptr && listener->LocalPort(&port) ? Integer(napi, port) : nullptr;
}

napi_value Steered(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  CarrierListener* listener = Wrapped::Of<CarrierListener>(napi, args.self);
  return listener != nullptr ? Boolean(napi, listener->steered()) : nullptr;
}

}  // namespace

napi_value DefineCarrierListener(napi_env napi) {
  const napi_property_descriptor members[] = {
      Method("resume", Plain<CarrierListener, &CarrierListener::Resume>),
      Method("ref", Plain<CarrierListener, &CarrierListener::Ref>),
      Method("unref", Plain<CarrierListener, &CarrierListener::Unref>),
      Method("close", Plain<CarrierListener, &CarrierListener::Close>),
      Getter("localPort", LocalPort),
      Getter("steered", Steered),
  };
  napi_value constructor = nullptr;
  napi_define_class(napi, "CarrierListener", NAPI_AUTO_LENGTH, Construct<CarrierListener>, nullptr, sizeof members / sizeof *members, members, &constructor);
  return constructor;
}

}  // namespace faketcp
