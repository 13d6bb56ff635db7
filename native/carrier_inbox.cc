// CarrierInbox: carriers that other threads and processes hand over. They are connected and mute already. Knows nothing of flows or shards.
#include "classes.h"

#include <unistd.h>

#include <cerrno>
#include <list>

#include "carrier_source.h"
#include "handover.h"
#include "js_values.h"
#include "poll.h"

namespace faketcp {
namespace {

/** Senders that have connected and not sent yet, which takes them microseconds. */
constexpr size_t kMaxSenders = 256;

class CarrierInbox final : public CarrierSource {
 public:
  explicit CarrierInbox(Env& env) : CarrierSource(env, Keeps::kNothing) {}
  ~CarrierInbox() override { Close(); }

  bool Open(napi_value self, napi_value options);
  void Close() override;

 private:
  struct Sender {
    CarrierInbox* inbox;
    int fd;
    Poll poll;
    std::list<Sender>::iterator place;
  };
  static void OnSent(void* owner, int status);
  int TakeOne(int* error) override;
  void Wait(int sender);
  void Forget(Sender* sender);

  std::list<Sender> senders_;
};

bool CarrierInbox::Open(napi_value self, napi_value options) {
  const napi_env napi = env().napi();
  char name[kInboxName];
  if (!GetText(napi, options, "name", name, sizeof name) || !SetCallback(self, options, "onCarriers", "FAKETCP_INBOX")) return false;
  Failure failure;
  Own(OpenInbox(name, &failure));
  return fd() >= 0 || ThrowSystem(napi, failure.error, failure.syscall);
}

void CarrierInbox::Close() {
  CarrierSource::Close();
  while (!senders_.empty()) Forget(&senders_.front());
}

int CarrierInbox::TakeOne(int* error) {
  const int sender = AcceptSender(fd(), error);
  if (sender < 0) return -1;
  const int received = ReceiveSocket(sender, error);
  if (received < 0 && *error == EAGAIN) {
    *error = 0;
    Wait(sender);
    return -1;
  }
  close(sender);
  return received;
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

}  // namespace

napi_value DefineCarrierInbox(napi_env napi) {
  return DefineClass(napi, "CarrierInbox", Construct<CarrierInbox>,
                     {
                         Method("resume", Plain<Watched, &Watched::Resume>),
                         Method("close", Plain<Watched, &Watched::Close>),
                     });
}

}  // namespace faketcp
