// OwnedChild: a child process that ends with the environment that started it. libuv forgets the children of a worker thread when that ends, and each
// would stay a zombie until the whole process does. Held by pidfd, so that no later process of the same number is ever hit.
#include "classes.h"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "js_values.h"
#include "wrapped.h"

namespace faketcp {
namespace {

/** P_PIDFD of newer headers (Linux 5.4). */
constexpr idtype_t kByPidfd = static_cast<idtype_t>(3);

class OwnedChild final : public Wrapped {
 public:
  explicit OwnedChild(Env& env) : Wrapped(env) {}
  ~OwnedChild() override { Release(); }

  /** A kernel without pidfd leaves the child to itself. */
  bool Open(napi_value, napi_value pid) {
    int64_t number = 0;
    if (!ToInteger(env().napi(), pid, "pid", 1, INT32_MAX, &number)) return false;
    fd_ = static_cast<int>(syscall(SYS_pidfd_open, static_cast<pid_t>(number), 0));
    return true;
  }

  bool Watch(napi_value self) {
    Hold(self);
    return true;
  }

  void EnvironmentEnds() override {
    if (fd_ >= 0 && syscall(SYS_pidfd_send_signal, fd_, SIGKILL, nullptr, 0) == 0) {
      siginfo_t info{};
      waitid(kByPidfd, static_cast<id_t>(fd_), &info, WEXITED);
    }
    Release();
  }

  void Release() {
    if (fd_ >= 0) close(fd_);
    fd_ = -1;
    Unhold();
  }

 private:
  int fd_ = -1;
};

}  // namespace

napi_value DefineOwnedChild(napi_env napi) {
  return DefineClass(napi, "OwnedChild", Construct<OwnedChild>, {Method("release", Plain<OwnedChild, &OwnedChild::Release>)});
}

}  // namespace faketcp
