// Carrier: the real kernel TCP socket behind a flow, as a JavaScript object. Connects, is muted the moment it is connected, and ends as it is
// told. Knows nothing of flows; nothing is ever read from or written to the socket.
#include "classes.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "address.h"
#include "callback.h"
#include "carrier_socket.h"
#include "handover.h"
#include "js_values.h"
#include "layout.h"
#include "poll.h"
#include "wrapped.h"

namespace faketcp {
namespace {

/** Held from open to `end`: a garbage collection must not send a FIN. */
class Carrier final : public Wrapped {
 public:
  explicit Carrier(Env& env) : Wrapped(env) {}
  ~Carrier() override { End(exit_); }

  bool Open(napi_value options);
  void Adopt(int fd) { fd_ = fd; }
  void HoldOpen(napi_value self) { Hold(self); }
  void EnvironmentEnds() override { End(exit_); }
  bool Connect(const Arguments<3>& args);
  const char* End(Ending how);
  bool HandOver(napi_value name, int* error);
  bool Quieten(napi_value mark);
  void SetExit(Ending how) { exit_ = how; }
  bool Key(napi_value out);
  bool Info(napi_value out);
  bool LocalPort(int* port);

 private:
  static void OnWritable(void* owner, int status);
  int Mute();
  void StopConnecting();

  Poll poll_;
  Callback on_settled_;
  /** The program to attach when connected. */
  std::vector<uint8_t> mute_;
  Ending exit_ = Ending::kFin;
  /** It sends with the mark and TTL 1. */
  bool quiet_ = false;
  /** Before it was quiet. */
  int hop_limit_ = 0;
  uint32_t user_timeout_ms_ = 0;
  bool v6_ = false;
  int fd_ = -1;
};

bool Carrier::Open(napi_value options) {
  const napi_env napi = env().napi();
  char address[kAddressText];
  int64_t port = 0;
  int64_t user_timeout = 0;
  int64_t tos = 0;
  Bytes mute;
  StreamSocket wanted{};
  if (!GetFamily(napi, options, &v6_) || !GetText(napi, options, "localAddress", address, sizeof address) ||
      !GetInteger(napi, options, "localPort", 0, 65535, &port) || !GetInteger(napi, options, "userTimeoutMs", 0, INT32_MAX, &user_timeout) ||
      !GetInteger(napi, options, "tos", 0, 255, &tos) || !GetProgram(napi, options, "mute", &mute)) {
    return false;
  }
  if (!ParseSocketAddress(v6_ ? AF_INET6 : AF_INET, address, static_cast<uint16_t>(port), &wanted.local)) {
    return ThrowRange(napi, "localAddress must be an IPv%d address, it is '%s'", v6_ ? 6 : 4, address);
  }
  mute_.assign(mute.data, mute.data + mute.size);
  if (!GetProgram(napi, options, "filter", &wanted.filter)) return false;
  user_timeout_ms_ = static_cast<uint32_t>(user_timeout);
  wanted.reuse_address = port != 0;
  wanted.tos = static_cast<int>(tos);
  Failure failure;
  fd_ = OpenStream(wanted, &failure);
  return fd_ >= 0 || ThrowSystem(napi, failure.error, failure.syscall);
}

bool Carrier::Connect(const Arguments<3>& args) {
  const napi_env napi = env().napi();
  char text[kAddressText];
  int64_t port = 0;
  SocketAddress remote;
  if (fd_ < 0) return ThrowSystem(napi, EBADF, "connect");
  // Connecting, or done with it, or accepted.
  if (on_settled_.is_set() || mute_.empty()) return ThrowSystem(napi, EISCONN, "connect");
  if (!ToText(napi, args[0], "address", text, sizeof text) || !ToInteger(napi, args[1], "port", 1, 65535, &port) ||
      !ToFunction(napi, args[2], "onSettled")) {
    return false;
  }
  if (!ParseSocketAddress(v6_ ? AF_INET6 : AF_INET, text, static_cast<uint16_t>(port), &remote)) {
    return ThrowRange(napi, "address must be an IPv%d address, it is '%s'", v6_ ? 6 : 4, text);
  }
  if (connect(fd_, remote.get(), remote.size) == 0) {
    Mute();
  } else if (errno != EINPROGRESS) {
    return ThrowSystem(napi, errno, "connect");
  }
  if (!on_settled_.Set(env(), args.self, args[2], "FAKETCP_CARRIER")) return false;
  const int failed = poll_.Start(env(), fd_, UV_WRITABLE, OnWritable, this);
  return failed == 0 || ThrowSystem(napi, -failed, "epoll_ctl");
}

// The user timeout too belongs to the connected socket only: before, it would cut short how long an unanswered SYN is repeated.
int Carrier::Mute() {
  const int error = MuteStream(fd_, {mute_.data(), mute_.size()});
  return error == 0 ? SetUserTimeout(fd_, user_timeout_ms_) : error;
}

void Carrier::OnWritable(void* owner, int) {
  Carrier* carrier = static_cast<Carrier*>(owner);
  // Whatever epoll says, SO_ERROR tells how the connect went (connect(2), EINPROGRESS).
  int error = PendingError(carrier->fd_);
  if (error == 0) error = carrier->Mute();
  const napi_env napi = carrier->env().napi();
  const Scope scope(napi);
  const napi_value self = carrier->self();
  const napi_value result = Integer(napi, -error);
  carrier->poll_.Close();
  carrier->on_settled_.Call(self, 1, &result);
  carrier->StopConnecting();
}

void Carrier::StopConnecting() {
  poll_.Close();
  on_settled_.Clear();
  mute_.clear();
}

const char* Carrier::End(Ending how) {
  if (fd_ < 0) return "none";
  StopConnecting();
  // A farewell is meant to arrive.
  if (quiet_ && how != Ending::kSilent) LoosenStream(fd_);
  const char* way = EndStream(fd_, how);
  fd_ = -1;
  Unhold();
  return way;
}

/** The receiver has a descriptor of its own once the message is queued, so closing ours sends nothing. */
bool Carrier::HandOver(napi_value name, int* error) {
  char inbox[kInboxName];
  if (!ToText(env().napi(), name, "inbox", inbox, sizeof inbox)) return false;
  *error = fd_ < 0 ? EBADF : poll_.open() ? EISCONN : PassSocket(inbox, fd_);
  if (*error == 0) {
    close(fd_);
    fd_ = -1;
    Unhold();
  }
  return true;
}

bool Carrier::Key(napi_value out) {
  const napi_env napi = env().napi();
  int32_t* words = nullptr;
  if (!ToWords(napi, out, "out", KEY_WORDS, &words)) return false;
  SocketAddress local;
  SocketAddress remote;
  const int error = Names(fd_, &local, &remote);
  if (error != 0) return ThrowSystem(napi, error, "getpeername");
  WordsOf(remote, words + KEY_REMOTE);
  WordsOf(local, words + KEY_LOCAL);
  words[KEY_PORTS] = static_cast<int32_t>(static_cast<uint32_t>(PortOf(remote)) << 16 | PortOf(local));
  return true;
}

bool Carrier::Info(napi_value out) {
  int32_t* words = nullptr;
  if (!ToWords(env().napi(), out, "out", INFO_WORDS, &words)) return false;
  const int error = ReadInfo(fd_, words);
  if (error != 0) return ThrowSystem(env().napi(), error, "getsockopt");
  if (quiet_) {
    words[INFO_GUARD] = GUARD_TTL;
    words[INFO_HOP_LIMIT] = hop_limit_;
  }
  return true;
}

bool Carrier::Quieten(napi_value value) {
  int64_t mark = 0;
  if (!ToInteger(env().napi(), value, "mark", 1, UINT32_MAX, &mark)) return false;
  // What leaves in the carrier's place has the limit that its handshake had.
  if (fd_ >= 0 && !quiet_) hop_limit_ = HopLimit(fd_);
  const int error = QuietenStream(fd_, static_cast<uint32_t>(mark));
  quiet_ = error == 0;
  return quiet_ || ThrowSystem(env().napi(), error, "setsockopt");
}

bool Carrier::LocalPort(int* port) {
  SocketAddress local;
  const int error = LocalName(fd_, &local);
  *port = PortOf(local);
  return error == 0 || ThrowSystem(env().napi(), error, "getsockname");
}

napi_value Construct(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  if (!IsConstructing(napi, info)) return nullptr;
  Env& env = Env::Of(napi);
  auto carrier = std::make_unique<Carrier>(env);
  const int accepted = env.TakeAdoptedSocket();
  if (accepted >= 0) {
    carrier->Adopt(accepted);
  } else if (!carrier->Open(args[0])) {
    return nullptr;
  }
  if (!carrier->Attach(args.self)) return nullptr;
  carrier.release()->HoldOpen(args.self);
  return args.self;
}

/** `how` of `end` and `setExit`. */
bool ToEnding(napi_env napi, napi_value value, bool may_reset, Ending* out) {
  char how[16];
  if (!ToText(napi, value, "how", how, sizeof how)) return false;
  if (strcmp(how, "silent") == 0) {
    *out = Ending::kSilent;
  } else if (strcmp(how, "fin") == 0) {
    *out = Ending::kFin;
  } else if (may_reset && strcmp(how, "reset") == 0) {
    *out = Ending::kReset;
  } else {
    return ThrowRange(napi, "how must be 'silent'%s 'fin'%s, it is '%s'", may_reset ? "," : " or", may_reset ? " or 'reset'" : "", how);
  }
  return true;
}

napi_value Connect(napi_env napi, napi_callback_info info) {
  const Arguments<3> args(napi, info);
  if (Carrier* carrier = Wrapped::Of<Carrier>(napi, args.self)) carrier->Connect(args);
  return nullptr;
}

napi_value End(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  Carrier* carrier = Wrapped::Of<Carrier>(napi, args.self);
  Ending how;
  return carrier != nullptr && ToEnding(napi, args[0], true, &how) ? Text(napi, carrier->End(how)) : nullptr;
}

napi_value HandOver(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  Carrier* carrier = Wrapped::Of<Carrier>(napi, args.self);
  int error = 0;
  return carrier != nullptr && carrier->HandOver(args[0], &error) ? Integer(napi, -error) : nullptr;
}

napi_value SetExit(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  Carrier* carrier = Wrapped::Of<Carrier>(napi, args.self);
  Ending how;
  if (carrier != nullptr && ToEnding(napi, args[0], false, &how)) carrier->SetExit(how);
  return nullptr;
}

}  // namespace

napi_value DefineCarrier(napi_env napi) {
  const napi_value constructor =
      DefineClass(napi, "Carrier", Construct,
                  {
                      Method("connect", Connect),
                      Method("key", Taking<Carrier, &Carrier::Key>),
                      Method("info", Taking<Carrier, &Carrier::Info>),
                      Method("end", End),
                      Method("setExit", SetExit),
                      Getter("localPort", Reading<Carrier, int, &Carrier::LocalPort>),
                      Method("handOver", HandOver),
                      Method("quieten", Taking<Carrier, &Carrier::Quieten>),
                  });
  Env::Of(napi).SetCarrierClass(constructor);
  return constructor;
}

}  // namespace faketcp
