// One watched file descriptor: a uv_poll_t whose memory outlives its owner until libuv lets go of it. Does not own the descriptor and
// knows nothing of what it is.
#pragma once

#include <uv.h>

#include "env.h"

namespace faketcp {

class Poll {
 public:
  /** `status` is a negative errno when epoll reported an error on the descriptor; the poll has stopped then. */
  using Handler = void (*)(void* owner, int status);

  Poll() = default;
  ~Poll() { Close(); }
  Poll(const Poll&) = delete;
  Poll& operator=(const Poll&) = delete;

  /** Watches for UV_READABLE or UV_WRITABLE. May be called again after Stop. Returns 0 or a negative errno. */
  int Start(Env& env, int fd, int events, Handler handler, void* owner);
  void Stop();
  /** The handler is not called afterwards, and the descriptor may be closed at once. Idempotent. */
  void Close();
  void Ref();
  void Unref();
  bool open() const { return handle_ != nullptr; }

 private:
  struct Handle {
    uv_poll_t poll;
    Env* env;
    Handler handler;
    void* owner;
  };
  static void OnEvent(uv_poll_t* poll, int status, int events);

  Handle* handle_ = nullptr;
};

}  // namespace faketcp
