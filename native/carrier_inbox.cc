// CarrierInbox: carriers that other threads and processes hand over. They are connected and mute already. Knows nothing of flows or shards.
#include "classes.h"

#include <unistd.h>

#include <cerrno>
#include <list>

#include "callback.h"
#include "handover.h"
#include "js_values.h"
#include "poll.h"
#include "wrapped.h"

namespace faketcp {
namespace {

/** Received for one poll event. */
constexpr int kBurst = 64;
/** Senders that have connected and not sent yet, which takes them microseconds. */
constexpr size_t kMaxSenders = 256;

class CarrierInbox final : public Wrapped {
 public:
  explicit CarrierInbox(Env& env) : Wrapped(env) {}
  ~CarrierInbox() override { Close(); }

  bool Open(napi_value self, napi_value options);
  bool Watch(napi_value self);
  void EnvironmentEnds() override { Close(); }
  void Close();
  void Resume();

 private:
  struct Sender {
    CarrierInbox* inbox;
    int fd;
    Poll poll;
    std::list<Sender>::iterator place;
  };
  static void OnReadable(void* owner, int status);
  static void OnSent(void* owner, int status);
  void AcceptSenders();
  void Wait(int sender);
  void Forget(Sender* sender);
  void Deliver(const int* sockets, uint32_t count, int error);

  Poll poll_;
  Callback on_carriers_;
  std::list<Sender> senders_;
  int fd_ = -1;
};

bool CarrierInbox::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  char name[kInboxName];
  napi_value on_carriers = nullptr;
  if (!GetText(napi, options, "name", name, sizeof name) || !GetFunction(napi, options, "onCarriers", &on_carriers) ||
      !on_carriers_.Set(env(), self, on_carriers, "FAKETCP_INBOX")) {
    return false;
  }
  Failure failure;
  fd_ = OpenInbox(name, &failure);
  return fd_ >= 0 || ThrowSystem(napi, failure.error, failure.syscall);
}

bool CarrierInbox::Watch(napi_value self) {
  const int failed = poll_.Start(env(), fd_, UV_READABLE, OnReadable, this);
  if (failed != 0) {
    Close();
    return ThrowSystem(env().napi(), -failed, "epoll_ctl");
  }
  poll_.Unref();
  Hold(self);
  return true;
}

void CarrierInbox::Close() {
  poll_.Close();
  for (Sender& sender : senders_) close(sender.fd);
  senders_.clear();
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  on_carriers_.Clear();
  Unhold();
}

void CarrierInbox::Resume() {
  if (fd_ < 0) return;
  const int failed = poll_.Start(env(), fd_, UV_READABLE, OnReadable, this);
  if (failed != 0) ThrowSystem(env().napi(), -failed, "epoll_ctl");
}

void CarrierInbox::OnReadable(void* owner, int) { static_cast<CarrierInbox*>(owner)->AcceptSenders(); }

void CarrierInbox::AcceptSenders() {
  int sockets[kBurst];
  uint32_t count = 0;
  int error = 0;
  for (int i = 0; i < kBurst && error == 0; i++) {
    const int sender = AcceptSender(fd_, &error);
    if (sender < 0) continue;
    const int received = ReceiveSocket(sender, &error);
    if (received >= 0) {
      sockets[count++] = received;
    } else if (error == EAGAIN) {
      error = 0;
      Wait(sender);
      continue;
    }
    close(sender);
  }
  if (error == EAGAIN) error = 0;
  // Out of descriptors, epoll would report the same sender for ever.
  if (error != 0) poll_.Stop();
  Deliver(sockets, count, error);
}

/** The sender has connected and is between that and its message. */
void CarrierInbox::Wait(int sender) {
  if (senders_.size() >= kMaxSenders) {
    close(sender);
    return;
  }
  Sender& waiting = senders_.emplace_back();
  waiting.inbox = this;
  waiting.fd = sender;
  waiting.place = std::prev(senders_.end());
  if (waiting.poll.Start(env(), sender, UV_READABLE, OnSent, &waiting) == 0) {
    waiting.poll.Unref();
  } else {
    Forget(&waiting);
  }
}

void CarrierInbox::Forget(Sender* sender) {
  sender->poll.Close();
  close(sender->fd);
  senders_.erase(sender->place);
}

void CarrierInbox::OnSent(void* owner, int status) {
  Sender* sender = static_cast<Sender*>(owner);
  CarrierInbox* inbox = sender->inbox;
  int error = 0;
  const int received = ReceiveSocket(sender->fd, &error);
  if (error == EAGAIN && status >= 0) return;
  inbox->Forget(sender);
  inbox->Deliver(&received, received >= 0 ? 1 : 0, 0);
}

void CarrierInbox::Deliver(const int* sockets, uint32_t count, int error) {
  if (count == 0 && error == 0) return;
  const napi_env napi = env().napi();
  const Scope scope(napi);
  const napi_value inbox = self();
  napi_value carriers = nullptr;
  napi_create_array(napi, &carriers);
  uint32_t made = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (const napi_value carrier = env().NewCarrier(sockets[i])) {
      napi_set_element(napi, carriers, made++, carrier);
    } else {
      ReportPending(napi);
    }
  }
  const napi_value arguments[] = {carriers, Integer(napi, -error)};
  on_carriers_.Call(inbox, 2, arguments);
}

}  // namespace

napi_value DefineCarrierInbox(napi_env napi) {
  const napi_property_descriptor members[] = {
      Method("resume", Plain<CarrierInbox, &CarrierInbox::Resume>),
      Method("close", Plain<CarrierInbox, &CarrierInbox::Close>),
  };
  napi_value constructor = nullptr;
  napi_define_class(napi, "CarrierInbox", NAPI_AUTO_LENGTH, Construct<CarrierInbox>, nullptr, sizeof members / sizeof *members, members, &constructor);
  return constructor;
}

}  // namespace faketcp
