// Base of what carriers come from, a listener or an inbox: takes as many connected sockets as there are, and gives JavaScript a Carrier for each. Stops when
// the process or the host runs out. Knows nothing of flows.
#pragma once

#include "callback.h"
#include "watched.h"

namespace faketcp {

class CarrierSource : public Watched {
 public:
  void Close() override;

 protected:
  explicit CarrierSource(Env& env, Keeps keeps) : Watched(env, keeps) {}

  /** Takes the callback of that name from the options; `context` is what async_hooks shows. False with an exception pending. */
  bool SetCallback(napi_value self, napi_value options, const char* name, const char* context);
  /** A connected socket that is mute, or -1: with `error` 0 when only this one was lost, else the reason to stop. */
  virtual int TakeOne(int* error) = 0;
  /** The sockets are the carriers' from here on. `error` is a positive errno, or 0. */
  void Deliver(const int* sockets, uint32_t count, int error);

 private:
  void OnReadable() override;

  Callback on_carriers_;
};

}  // namespace faketcp
