// Native halves that read from a socket; see watched.h.
#include "watched.h"

#include <unistd.h>

#include "callback.h"
#include "kernel_socket.h"

namespace faketcp {

int Watched::Start() { return poll_.Start(env(), watched(), UV_READABLE, OnPoll, this); }

bool Watched::Watch(napi_value self) {
  const int failed = Start();
  if (failed != 0) {
    Close();
    return ThrowSystem(env().napi(), -failed, "epoll_ctl");
  }
  if (keeps_ == Keeps::kNothing) poll_.Unref();
  Hold(self);
  return true;
}

void Watched::Resume() {
  if (watched() < 0) return;
  const int failed = Start();
  if (failed != 0) ThrowSystem(env().napi(), -failed, "epoll_ctl");
}

void Watched::Close() {
  poll_.Close();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  Unhold();
}

void Watched::Fail() {
  Close();
  ReportPending(env().napi());
}

void Watched::TakeError() { PendingError(fd_); }

void Watched::OnPoll(void* owner, int status) {
  Watched* watched = static_cast<Watched*>(owner);
  const Scope scope(watched->env().napi());
  // libuv stops a poll that reports EPOLLERR.
  if (status < 0) {
    watched->TakeError();
    watched->Start();
  }
  watched->OnReadable();
}

}  // namespace faketcp
