// The module: puts together what lib/native/binding.ts describes. Knows the names, nothing of what is behind them but the functions that ask
// the kernel or the parser about an address or an interface.
#include <netinet/in.h>
#include <node_api.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "address.h"
#include "classes.h"
#include "env.h"
#include "js_values.h"
#include "kernel_socket.h"
#include "layout.h"
#include "offload.h"

namespace faketcp {
namespace {

/** What a datagram socket connected to `remote` says; 0 or a positive errno. */
int AskRoute(int fd, const SocketAddress& remote, int32_t* words, int* mtu, const char** syscall) {
  *syscall = "connect";
  if (connect(fd, remote.get(), remote.size) != 0) return errno;
  *syscall = "getsockname";
  SocketAddress local;
  if (const int error = LocalName(fd, &local); error != 0) return error;
  WordsOf(local, words);
  if (ReadPathMtu(fd, remote.storage.ss_family == AF_INET6, mtu) != 0) *mtu = 0;
  return 0;
}

napi_value SourceAddress(napi_env napi, napi_callback_info info) {
  const Arguments<2> args(napi, info);
  char text[kAddressText];
  int32_t* out = nullptr;
  if (!ToText(napi, args[0], "address", text, sizeof text) || !ToWords(napi, args[1], "out", 4, &out)) return nullptr;
  // Any port serves: no packet is sent, but port 0 would be refused by some.
  constexpr uint16_t kDiscard = 9;
  SocketAddress remote;
  const int family = FamilyOf(text);
  if (family == 0 || !ParseSocketAddress(family, text, kDiscard, &remote)) {
    ThrowRange(napi, "address must be an IP address, it is '%s'", text);
    return nullptr;
  }
  const int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    ThrowSystem(napi, errno, "socket");
    return nullptr;
  }
  int mtu = 0;
  const char* syscall = nullptr;
  const int error = AskRoute(fd, remote, out, &mtu, &syscall);
  close(fd);
  if (error != 0) {
    ThrowSystem(napi, error, syscall);
    return nullptr;
  }
  return Integer(napi, mtu);
}

napi_value ParseAddress(napi_env napi, napi_callback_info info) {
  const Arguments<2> args(napi, info);
  char text[kAddressText];
  int32_t* out = nullptr;
  size_t length = 0;
  if (!ToWords(napi, args[1], "out", 4, &out)) return nullptr;
  // Text that is too long for an address is none; a value that is no text is a mistake of the caller's.
  if (napi_get_value_string_utf8(napi, args[0], nullptr, 0, &length) == napi_ok && length >= sizeof text) return Boolean(napi, false);
  if (!ToText(napi, args[0], "address", text, sizeof text)) return nullptr;
  return Boolean(napi, ParseWords(text, out));
}

napi_value AskLargeReceiveOffload(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  int64_t ifindex = 0;
  if (!ToInteger(napi, args[0], "ifindex", 0, INT32_MAX, &ifindex)) return nullptr;
  return Boolean(napi, LargeReceiveOffload(static_cast<uint32_t>(ifindex)));
}

napi_value AskOffloads(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  int64_t ifindex = 0;
  if (!ToInteger(napi, args[0], "ifindex", 0, INT32_MAX, &ifindex)) return nullptr;
  return Integer(napi, Offloads(static_cast<uint32_t>(ifindex)));
}

napi_value Layout(napi_env napi) {
  napi_value layout = nullptr;
  napi_create_object(napi, &layout);
#define FAKETCP_EXPORT(name, value) napi_set_named_property(napi, layout, #name, Integer(napi, value));
  FAKETCP_LAYOUT(FAKETCP_EXPORT)
#undef FAKETCP_EXPORT
  return layout;
}

}  // namespace
}  // namespace faketcp

NAPI_MODULE_INIT() {
  using namespace faketcp;
  if (Env::Create(env) == nullptr) return nullptr;
  const auto constant = [](const char* name, napi_value value) {
    return napi_property_descriptor{name, nullptr, nullptr, nullptr, nullptr, value, napi_enumerable, nullptr};
  };
  const napi_property_descriptor members[] = {
      constant("Capture", DefineCapture(env)),
      constant("PacketSender", DefinePacketSender(env)),
      constant("RawSender", DefineRawSender(env)),
      constant("Carrier", DefineCarrier(env)),
      constant("CarrierListener", DefineCarrierListener(env)),
      constant("CarrierInbox", DefineCarrierInbox(env)),
      constant("RouteSocket", DefineRouteSocket(env)),
      constant("OwnedChild", DefineOwnedChild(env)),
      constant("PathReports", DefinePathReports(env)),
      constant("UdpSocket", DefineUdpSocket(env)),
      constant("TunnelCodec", DefineTunnelCodec(env)),
      constant("layout", Layout(env)),
      Method("sourceAddress", SourceAddress),
      Method("parseAddress", ParseAddress),
      Method("largeReceiveOffload", AskLargeReceiveOffload),
      Method("offloads", AskOffloads),
  };
  return Check(env, napi_define_properties(env, exports, sizeof members / sizeof *members, members)) ? exports : nullptr;
}
