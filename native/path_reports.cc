// PathReports: hears by an ICMP raw socket that packets were too long for their path, and calls JavaScript once for each system call that brought
// such reports. Knows no flow: what a report is worth, others judge.
//
// Not the error queue of an IP raw socket (IP_RECVERR): with such a socket open, the kernel believes every report about any TCP packet, and lowers
// its own path MTU for that destination (rawv6_err, ip6_sk_update_pmtu; IPV6_PMTUDISC_INTERFACE does not keep it from that).
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

#include "callback.h"
#include "classes.h"
#include "js_values.h"
#include "kernel_socket.h"
#include "layout.h"
#include "path_report.h"
#include "watched.h"

namespace faketcp {
namespace {

/** Messages for one system call, and system calls for one poll event: a flood must not keep the event loop from what matters more. */
constexpr size_t kBatch = 16;
constexpr int kRounds = 4;
/** Routers quote at most what makes 576 bytes (RFC 1812, 4.3.2.3) or 1 280 (RFC 4443, 2.4). Longer messages are cut, and fail. */
constexpr size_t kMessageBytes = 2048;

class PathReports final : public Watched {
 public:
  explicit PathReports(Env& env) : Watched(env, Keeps::kNothing) {}
  ~PathReports() override { Close(); }

  bool Open(napi_value self, napi_value options);
  void Close() override;

 private:
  void OnReadable() override;
  bool Resolve(int32_t** reports);
  int32_t Receive(int32_t* reports, bool* more);

  Callback on_reports_;
  napi_ref reports_ = nullptr;
  bool v6_ = false;
  iovec vectors_[kBatch];
  mmsghdr messages_[kBatch];
  uint8_t memory_[kBatch][kMessageBytes];
};

bool PathReports::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  Bytes program;
  napi_value reports = nullptr;
  napi_value on_reports = nullptr;
  if (!GetFamily(napi, options, &v6_) || !Property(napi, options, "reports", &reports) || !GetFunction(napi, options, "onReports", &on_reports)) {
    return false;
  }
  if (napi_create_reference(napi, reports, 1, &reports_) != napi_ok) return ThrowType(napi, "reports must be a typed array");
  int32_t* words = nullptr;
  if (!Resolve(&words) || !on_reports_.Set(env(), self, on_reports, "FAKETCP_PATH_REPORTS") || !GetProgram(napi, options, "program", &program)) {
    return false;
  }
  Failure failure;
  Own(OpenSocket(v6_ ? AF_INET6 : AF_INET, SOCK_RAW, v6_ ? static_cast<int>(IPPROTO_ICMPV6) : IPPROTO_ICMP, &failure, [&](int fd) {
    errno = AttachFilter(fd, program);
    return errno == 0 ? nullptr : "setsockopt";
  }));
  return fd() >= 0 || ThrowSystem(napi, failure.error, failure.syscall);
}

void PathReports::Close() {
  Watched::Close();
  on_reports_.Clear();
  if (reports_ != nullptr) napi_delete_reference(env().napi(), reports_);
  reports_ = nullptr;
}

/** The caller's memory, looked up afresh: JavaScript may have detached it since. */
bool PathReports::Resolve(int32_t** reports) {
  const napi_env napi = env().napi();
  napi_value value = nullptr;
  napi_get_reference_value(napi, reports_, &value);
  return ToWords(napi, value, "reports", kBatch * REPORT_WORDS, reports);
}

void PathReports::OnReadable() {
  const napi_value object = self();
  bool more = true;
  for (int round = 0; round < kRounds && more && fd() >= 0 && !env().ending(); round++) {
    int32_t* reports = nullptr;
    if (!Resolve(&reports)) return Fail();
    const int32_t parsed = Receive(reports, &more);
    if (parsed == 0) continue;
    const napi_value count = Integer(env().napi(), parsed);
    on_reports_.Call(object, 1, &count);
  }
}

/** Reports in one batch of messages. */
int32_t PathReports::Receive(int32_t* reports, bool* more) {
  for (size_t i = 0; i < kBatch; i++) {
    vectors_[i] = {memory_[i], kMessageBytes};
    messages_[i].msg_hdr = {nullptr, 0, &vectors_[i], 1, nullptr, 0, 0};
  }
  const int received = recvmmsg(fd(), messages_, kBatch, MSG_DONTWAIT, nullptr);
  *more = received == static_cast<int>(kBatch);
  int32_t parsed = 0;
  for (int i = 0; i < received; i++) {
    if (ParsePathReport(v6_, memory_[i], messages_[i].msg_len, reports + parsed * REPORT_WORDS)) parsed++;
  }
  return parsed;
}

}  // namespace

napi_value DefinePathReports(napi_env napi) {
  return DefineClass(napi, "PathReports", Construct<PathReports>, {Method("close", Plain<Watched, &Watched::Close>)});
}

}  // namespace faketcp
