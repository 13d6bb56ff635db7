// Base of the native halves that read from a socket whenever the event loop finds something there: watching, waiting, closing. Knows nothing of what is read.
#pragma once

#include "poll.h"
#include "wrapped.h"

namespace faketcp {

/** Held from Watch to Close. */
class Watched : public Wrapped {
 public:
  void EnvironmentEnds() override { Close(); }
  /** False, and closed, with an exception pending. */
  bool Watch(napi_value self);
  /** A derived class calls this one first. Idempotent. */
  virtual void Close();
  /** Goes on after a Pause. Throws into JavaScript if that fails. */
  void Resume();
  void Ref() { poll_.Ref(); }
  void Unref() { poll_.Unref(); }

 protected:
  /** Whether the event loop goes on for its sake; Ref and Unref change it. */
  enum class Keeps { kLoop, kNothing };

  explicit Watched(Env& env, Keeps keeps = Keeps::kLoop) : Wrapped(env), keeps_(keeps) {}
  ~Watched() override { Watched::Close(); }

  /** There is something to read, or an error. A handle scope is open. */
  virtual void OnReadable() = 0;
  /** Runs before OnReadable where the socket has an error: reads SO_ERROR, which clears it. */
  virtual void TakeError();
  /** The socket that is watched. */
  virtual int watched() const { return fd_; }

  int fd() const { return fd_; }
  /** Takes over a socket, or the -1 of one that could not be opened. */
  void Own(int fd) { fd_ = fd; }
  void Pause() { poll_.Stop(); }
  /** Ends it with the exception that is pending. */
  void Fail();

 private:
  static void OnPoll(void* owner, int status);
  int Start();

  Poll poll_;
  Keeps keeps_;
  int fd_ = -1;
};

}  // namespace faketcp
