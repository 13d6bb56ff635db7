// RouteSocket: asks the kernel by rtnetlink for routes, neighbours and links, and tells when any of them has changed. Needs no capability, but for what
// a device reserves for a header. Decides
// nothing: what an answer is good for is TypeScript's business.
#include <arpa/inet.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>

#include "callback.h"
#include "classes.h"
#include "headers.h"
#include "js_values.h"
#include "layout.h"
#include "link_header.h"
#include "netlink.h"
#include "watched.h"

namespace faketcp {
namespace {

/** Datagrams for one poll event; what is left comes with the next. */
constexpr int kMaxNotifications = 256;
constexpr size_t kMacBytes = 6;
/** RTNLGRP_NEXTHOP and its messages came with Linux 5.3; bind() ignores groups that a kernel does not have. */
constexpr uint32_t kNextHopGroup = 32;
constexpr uint16_t kNewNextHop = 104;
constexpr uint16_t kDeleteNextHop = 105;

constexpr uint32_t Group(uint32_t group) { return 1u << (group - 1); }
constexpr uint32_t kGroups = Group(RTNLGRP_LINK) | Group(RTNLGRP_NEIGH) | Group(RTNLGRP_IPV4_IFADDR) | Group(RTNLGRP_IPV6_IFADDR) |
                             Group(RTNLGRP_IPV4_ROUTE) | Group(RTNLGRP_IPV6_ROUTE) | Group(RTNLGRP_IPV4_RULE) | Group(RTNLGRP_IPV6_RULE) |
                             Group(kNextHopGroup);

/** An address as netlink has it: the four key words turned into 4 or 16 bytes. */
struct NetAddress {
  explicit NetAddress(const int32_t* words) : v4(IsMapped(words)), size(v4 ? 4 : 16) {
    for (int i = 0; i < 4; i++) network[i] = htonl(static_cast<uint32_t>(words[i]));
  }
  uint8_t family() const { return v4 ? AF_INET : AF_INET6; }
  const uint32_t* data() const { return v4 ? network + 3 : network; }
  bool unspecified() const { return network[3] == 0 && (v4 || (network[0] == 0 && network[1] == 0 && network[2] == 0)); }

  bool v4;
  size_t size;
  uint32_t network[4];
};

void WriteAddress(const uint8_t* data, size_t size, int32_t* words) {
  if (size != 4 && size != 16) return;
  uint32_t network[4] = {0, 0, htonl(0xffff), 0};
  memcpy(size == 4 ? network + 3 : network, data, size);
  for (int i = 0; i < 4; i++) words[i] = static_cast<int32_t>(ntohl(network[i]));
}

/** The words of D_MAC_HIGH and D_MAC_LOW. */
void WriteMac(const uint8_t* mac, size_t size, int32_t* words) {
  if (size != kMacBytes) return;
  words[0] = static_cast<int32_t>(1u << 31 | static_cast<uint32_t>(mac[0]) << 8 | mac[1]);
  words[1] = static_cast<int32_t>(static_cast<uint32_t>(mac[2]) << 24 | static_cast<uint32_t>(mac[3]) << 16 | static_cast<uint32_t>(mac[4]) << 8 |
                                  mac[5]);
}

int32_t Number32(const uint8_t* data, size_t size) {
  int32_t value = 0;
  if (size >= sizeof value) memcpy(&value, data, sizeof value);
  return value;
}

void WriteRouteAnswer(const NetlinkBody& body, const int32_t* remote, int32_t* out) {
  rtmsg route{};
  body.Read(&route);
  memset(out, 0, ROUTE_WORDS * sizeof *out);
  out[ROUTE_TYPE] = route.rtm_type;
  memcpy(out + ROUTE_GATEWAY, remote, 4 * sizeof *out);
  body.EachAttribute(sizeof route, [out](int type, const uint8_t* data, size_t size) {
    switch (type) {
      case RTA_OIF: out[ROUTE_IFINDEX] = Number32(data, size); break;
      case RTA_GATEWAY: WriteAddress(data, size, out + ROUTE_GATEWAY); break;
      case RTA_VIA:  // the gateway's family (RFC 5549: IPv4 routed by IPv6) before its address
        if (size > sizeof(rtvia)) WriteAddress(data + sizeof(rtvia), size - sizeof(rtvia), out + ROUTE_GATEWAY);
        break;
      case RTA_ENCAP: out[ROUTE_FLAGS] |= ROUTE_ENCAPSULATED; break;
      case RTA_METRICS:
        NetlinkBody{data, size}.EachAttribute(0, [out](int metric, const uint8_t* value, size_t bytes) {
          if (metric == RTAX_MTU) out[ROUTE_MTU] = Number32(value, bytes);
        });
        break;
      default: break;
    }
  });
}

int32_t ChangeOf(const nlmsghdr& header, const NetlinkBody& body) {
  // The first byte of each body is its family. Bridges tell of their ports and forwarding entries in the same groups, and do so often.
  if (body.size == 0 || body.data[0] == AF_BRIDGE) return 0;
  switch (header.nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: return CHANGED_LINK;
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH: return CHANGED_NEIGHBOUR;
    case RTM_NEWADDR:
    case RTM_DELADDR: return CHANGED_ADDRESS;
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
    case RTM_NEWRULE:
    case RTM_DELRULE:
    case kNewNextHop:
    case kDeleteNextHop: return CHANGED_ROUTE;
    default: return 0;
  }
}

class RouteSocket final : public Watched {
 public:
  explicit RouteSocket(Env& env) : Watched(env, Keeps::kNothing) {}
  ~RouteSocket() override { Close(); }

  bool Open(napi_value self, napi_value options);
  void Close() override;

  // Each returns 0 or a positive errno.
  int Route(const int32_t* key, uint32_t ifindex, int32_t* out);
  int Neighbour(int32_t ifindex, const int32_t* address, int32_t* out);
  int Link(int32_t ifindex, int32_t* out);

 private:
  void OnReadable() override;
  /** The next read reports it: notifications were lost. */
  void TakeError() override {}
  int watched() const override { return notifications_.fd(); }
  int32_t ReadNotifications();

  Callback on_change_;
  NetlinkSocket queries_;
  LinkHeaderProbe link_header_;
  NetlinkSocket notifications_;
};

bool RouteSocket::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  napi_value on_change = nullptr;
  if (!GetFunction(napi, options, "onChange", &on_change) || !on_change_.Set(env(), self, on_change, "FAKETCP_ROUTES")) return false;
  Failure failure;
  if (!queries_.Open(0, &failure) || !notifications_.Open(kGroups, &failure)) return ThrowSystem(napi, failure.error, failure.syscall);
  link_header_.Open(); // now, so that the first question does not open a descriptor that the last does not close
  return true;
}

void RouteSocket::Close() {
  Watched::Close();
  queries_.Close();
  link_header_.Close();
  notifications_.Close();
  on_change_.Clear();
}

void RouteSocket::OnReadable() {
  const int32_t changed = ReadNotifications();
  if (changed == 0) return;
  const napi_value what = Integer(env().napi(), changed);
  on_change_.Call(self(), 1, &what);
}

int32_t RouteSocket::ReadNotifications() {
  int32_t changed = 0;
  for (int i = 0; i < kMaxNotifications; i++) {
    const int error =
        notifications_.Receive([&](const nlmsghdr& header, const NetlinkBody& body) { changed |= ChangeOf(header, body); });
    if (error == ENOBUFS) {
      changed = CHANGED_ALL;
    } else if (error != 0) {
      break;
    }
  }
  return changed;
}

int RouteSocket::Route(const int32_t* key, uint32_t ifindex, int32_t* out) {
  const NetAddress remote(key + KEY_REMOTE);
  const NetAddress local(key + KEY_LOCAL);
  rtmsg route{};
  route.rtm_family = remote.family();
  route.rtm_dst_len = static_cast<uint8_t>(remote.size * 8);
  const bool from = !local.unspecified() && local.v4 == remote.v4;
  if (from) route.rtm_src_len = route.rtm_dst_len;
  NetlinkRequest request(RTM_GETROUTE, route);
  request.Add(RTA_DST, remote.data(), remote.size);
  if (from) request.Add(RTA_SRC, local.data(), local.size);
  if (ifindex != 0) request.Add(RTA_OIF, &ifindex, sizeof ifindex);
  NetlinkBody body;
  const int error = queries_.Ask(&request, RTM_NEWROUTE, &body);
  if (error == 0) WriteRouteAnswer(body, key + KEY_REMOTE, out);
  return error;
}

int RouteSocket::Neighbour(int32_t ifindex, const int32_t* words, int32_t* out) {
  const NetAddress address(words);
  ndmsg neighbour{};
  neighbour.ndm_family = address.family();
  neighbour.ndm_ifindex = ifindex;
  NetlinkRequest request(RTM_GETNEIGH, neighbour);
  request.Add(NDA_DST, address.data(), address.size);
  NetlinkBody body;
  const int error = queries_.Ask(&request, RTM_NEWNEIGH, &body);
  if (error != 0) return error;
  body.Read(&neighbour);
  memset(out, 0, NEIGHBOUR_WORDS * sizeof *out);
  out[NEIGHBOUR_STATE] = neighbour.ndm_state;
  body.EachAttribute(sizeof neighbour, [out](int type, const uint8_t* data, size_t size) {
    if (type == NDA_LLADDR) WriteMac(data, size, out + NEIGHBOUR_MAC_HIGH);
  });
  return 0;
}

int RouteSocket::Link(int32_t ifindex, int32_t* out) {
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = ifindex;
  NetlinkRequest request(RTM_GETLINK, link);
  const uint32_t without_statistics = RTEXT_FILTER_SKIP_STATS;
  request.Add(IFLA_EXT_MASK, &without_statistics, sizeof without_statistics);
  NetlinkBody body;
  const int error = queries_.Ask(&request, RTM_NEWLINK, &body);
  if (error != 0) return error;
  body.Read(&link);
  memset(out, 0, LINK_WORDS * sizeof *out);
  out[LINK_TYPE] = link.ifi_type;
  out[LINK_FLAGS] = static_cast<int32_t>(link.ifi_flags);
  body.EachAttribute(sizeof link, [out](int type, const uint8_t* data, size_t size) {
    if (type == IFLA_ADDRESS) WriteMac(data, size, out + LINK_MAC_HIGH);
    if (type == IFLA_MTU) out[LINK_MTU] = Number32(data, size);
  });
  out[LINK_HEADER] = link_header_.Ask(ifindex, static_cast<uint32_t>(out[LINK_MTU]));
  return 0;
}

bool ToIfindex(napi_env napi, napi_value value, int32_t* out) {
  int64_t ifindex = 0;
  if (!ToInteger(napi, value, "ifindex", 0, INT32_MAX, &ifindex)) return false;
  *out = static_cast<int32_t>(ifindex);
  return true;
}

/** `count` words of an Int32Array from the index `at` on. */
bool ToSlice(napi_env napi, napi_value array, const char* name, napi_value at, int64_t count, int32_t** out) {
  size_t length = 0;
  int64_t first = 0;
  if (!ToWords(napi, array, name, static_cast<size_t>(count), out, &length) ||
      !ToInteger(napi, at, "at", 0, static_cast<int64_t>(length) - count, &first)) {
    return false;
  }
  *out += first;
  return true;
}

napi_value Route(napi_env napi, napi_callback_info info) {
  const Arguments<4> args(napi, info);
  RouteSocket* socket = Wrapped::Of<RouteSocket>(napi, args.self);
  int32_t* key = nullptr;
  int32_t* out = nullptr;
  int32_t ifindex = 0;
  if (socket == nullptr || !ToSlice(napi, args[0], "key", args[1], KEY_PORTS, &key) || !ToIfindex(napi, args[2], &ifindex) ||
      !ToWords(napi, args[3], "out", ROUTE_WORDS, &out)) {
    return nullptr;
  }
  return Integer(napi, -socket->Route(key, static_cast<uint32_t>(ifindex), out));
}

napi_value Neighbour(napi_env napi, napi_callback_info info) {
  const Arguments<4> args(napi, info);
  RouteSocket* socket = Wrapped::Of<RouteSocket>(napi, args.self);
  int32_t* address = nullptr;
  int32_t* out = nullptr;
  int32_t ifindex = 0;
  if (socket == nullptr || !ToIfindex(napi, args[0], &ifindex) || !ToSlice(napi, args[1], "address", args[2], 4, &address) ||
      !ToWords(napi, args[3], "out", NEIGHBOUR_WORDS, &out)) {
    return nullptr;
  }
  return Integer(napi, -socket->Neighbour(ifindex, address, out));
}

napi_value Link(napi_env napi, napi_callback_info info) {
  const Arguments<2> args(napi, info);
  RouteSocket* socket = Wrapped::Of<RouteSocket>(napi, args.self);
  int32_t* out = nullptr;
  int32_t ifindex = 0;
  if (socket == nullptr || !ToIfindex(napi, args[0], &ifindex) || !ToWords(napi, args[1], "out", LINK_WORDS, &out)) return nullptr;
  return Integer(napi, -socket->Link(ifindex, out));
}

}  // namespace

napi_value DefineRouteSocket(napi_env napi) {
  return DefineClass(napi, "RouteSocket", Construct<RouteSocket>,
                     {
                         Method("route", Route),
                         Method("neighbour", Neighbour),
                         Method("link", Link),
                         Method("close", Plain<Watched, &Watched::Close>),
                     });
}

}  // namespace faketcp
