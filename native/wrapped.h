// Base of the native halves of JavaScript objects: life and death, nothing else.
#pragma once

#include <node_api.h>

#include <memory>

#include "env.h"
#include "js_values.h"

namespace faketcp {

/**
 * Deleted by the finalizer of its JavaScript object, so a destructor closes what is still open. While it must not be collected
 * (a poll is running, a carrier is open) it is held: a strong reference to its own JavaScript object.
 */
class Wrapped {
 public:
  explicit Wrapped(Env& env) : env_(env) { env_.Add(this); }
  virtual ~Wrapped() {
    Unhold();
    env_.Remove(this);
  }
  Wrapped(const Wrapped&) = delete;
  Wrapped& operator=(const Wrapped&) = delete;

  /** Closes everything. No callback may be called from here on. */
  virtual void EnvironmentEnds() = 0;

  /** Hands this object to `self`, whose finalizer deletes it. False with an exception pending. */
  bool Attach(napi_value self);

  /** The native half of a method's receiver; null with an exception pending. V8 itself has checked the class (napi_define_class
   * gives its methods a signature), so the cast is safe. */
  template <class T>
  static T* Of(napi_env napi, napi_value self) {
    return static_cast<T*>(Unwrap(napi, self));
  }

 protected:
  Env& env() const { return env_; }
  void Hold(napi_value self);
  void Unhold();
  bool held() const { return self_ != nullptr; }
  /** The JavaScript object, while held. The handle keeps the object alive for as long as the caller's scope. */
  napi_value self() const;

 private:
  friend class Env;
  static Wrapped* Unwrap(napi_env napi, napi_value self);

  Env& env_;
  napi_ref self_ = nullptr;
  Wrapped* previous_ = nullptr;
  Wrapped* next_ = nullptr;
};

/** A method without arguments and without a result: `Plain<Capture, &Capture::Close>`. */
template <class T, void (T::*method)()>
napi_value Plain(napi_env napi, napi_callback_info info) {
  napi_value self = nullptr;
  napi_get_cb_info(napi, info, nullptr, nullptr, &self, nullptr);
  if (T* object = Wrapped::Of<T>(napi, self)) (object->*method)();
  return nullptr;
}

/** A method or getter without arguments whose result `read` writes, or is false with an exception pending: `Reading<Capture, int, &Capture::GrantedBuffer>`. */
template <class T, class Value, bool (T::*read)(Value*)>
napi_value Reading(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  Value value{};
  T* object = Wrapped::Of<T>(napi, args.self);
  return object != nullptr && (object->*read)(&value) ? Number(napi, static_cast<double>(value)) : nullptr;
}

/** A method of one argument and without a result. False: with an exception pending. */
template <class T, bool (T::*take)(napi_value)>
napi_value Taking(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  if (T* object = Wrapped::Of<T>(napi, args.self)) (object->*take)(args[0]);
  return nullptr;
}

/**
 * The constructor of a class that opens itself from an object of options (`bool Open(self, options)`), belongs to its JavaScript object from then on, and
 * then begins to listen (`bool Watch(self)`): each false with an exception pending.
 */
template <class T>
napi_value Construct(napi_env napi, napi_callback_info info) {
  const Arguments<1> args(napi, info);
  if (!IsConstructing(napi, info)) return nullptr;
  auto object = std::make_unique<T>(Env::Of(napi));
  if (!object->Open(args.self, args[0]) || !object->Attach(args.self)) return nullptr;
  return object.release()->Watch(args.self) ? args.self : nullptr;
}

/** A handle scope for code that libuv calls. */
class Scope {
 public:
  explicit Scope(napi_env napi) : napi_(napi) { napi_open_handle_scope(napi_, &scope_); }
  ~Scope() { napi_close_handle_scope(napi_, scope_); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  napi_env napi_;
  napi_handle_scope scope_ = nullptr;
};

}  // namespace faketcp
