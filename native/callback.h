// Calling JavaScript from the event loop. Knows nothing of who calls or why.
#pragma once

#include <node_api.h>

#include "env.h"

namespace faketcp {

/** Hands a pending exception to 'uncaughtException'. Does nothing where none is pending, as when a worker that is being terminated could
 * not run JavaScript at all. */
void ReportPending(napi_env napi);

/** An async context: what AsyncLocalStorage and async_hooks see when the object that owns it calls back. */
class AsyncContext {
 public:
  AsyncContext() = default;
  ~AsyncContext() { Destroy(); }
  AsyncContext(const AsyncContext&) = delete;
  AsyncContext& operator=(const AsyncContext&) = delete;

  /** `name` as async_hooks shows it. False with an exception pending. */
  bool Create(Env& env, napi_value resource, const char* name);
  /** May be called from inside the callback. */
  void Destroy();
  /**
   * Calls `function` inside a callback scope: ticks and microtasks run after it. What it throws goes to 'uncaughtException'. Does nothing once
   * the environment ends. A handle scope must be open.
   */
  void Call(napi_value receiver, napi_value function, size_t argc, const napi_value* argv);

 private:
  Env* env_ = nullptr;
  napi_async_context context_ = nullptr;
  int depth_ = 0;
  bool doomed_ = false;
};

/** An async context and the function it calls, strongly referenced. */
class Callback {
 public:
  Callback() = default;
  ~Callback() { Clear(); }
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;

  bool Set(Env& env, napi_value receiver, napi_value function, const char* name);
  bool is_set() const { return function_ != nullptr; }
  void Clear();
  void Call(napi_value receiver, size_t argc, const napi_value* argv);

 private:
  Env* env_ = nullptr;
  napi_ref function_ = nullptr;
  AsyncContext context_;
};

}  // namespace faketcp
