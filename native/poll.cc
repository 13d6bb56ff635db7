// One watched file descriptor; see poll.h.
#include "poll.h"

namespace faketcp {

int Poll::Start(Env& env, int fd, int events, Handler handler, void* owner) {
  if (handle_ == nullptr) {
    Handle* handle = new Handle{};
    const int failed = uv_poll_init(env.loop(), &handle->poll, fd);
    if (failed != 0) {
      delete handle;
      return failed;
    }
    handle->poll.data = handle;
    handle->env = &env;
    env.HandleOpened();
    handle_ = handle;
  }
  handle_->handler = handler;
  handle_->owner = owner;
  return uv_poll_start(&handle_->poll, events, OnEvent);
}

void Poll::OnEvent(uv_poll_t* poll, int status, int) {
  const Handle* handle = static_cast<Handle*>(poll->data);
  handle->handler(handle->owner, status);
}

void Poll::Stop() {
  if (handle_ != nullptr) uv_poll_stop(&handle_->poll);
}

void Poll::Close() {
  if (handle_ == nullptr) return;
  Handle* handle = handle_;
  handle_ = nullptr;
  uv_close(reinterpret_cast<uv_handle_t*>(&handle->poll), [](uv_handle_t* closed) {
    Handle* own = static_cast<Handle*>(closed->data);
    Env* env = own->env;
    delete own;
    env->HandleClosed();
  });
}

void Poll::Ref() {
  if (handle_ != nullptr) uv_ref(reinterpret_cast<uv_handle_t*>(&handle_->poll));
}

void Poll::Unref() {
  if (handle_ != nullptr) uv_unref(reinterpret_cast<uv_handle_t*>(&handle_->poll));
}

}  // namespace faketcp
