// What one JavaScript environment (main thread or worker) owns: its objects, its open uv handles, its end. Nothing in this addon is global
// to the process. Knows nothing of sockets.
#pragma once

#include <node_api.h>
#include <uv.h>

namespace faketcp {

class Wrapped;

/**
 * Counted: the environment itself, each object and each open uv handle hold it, because the order of their ends differs between a garbage
 * collection and the end of a worker.
 */
class Env {
 public:
  /** Makes the instance data and registers the cleanup hook. Null with an exception pending if Node refuses. */
  static Env* Create(napi_env napi);
  static Env& Of(napi_env napi);

  napi_env napi() const { return napi_; }
  uv_loop_t* loop() const { return loop_; }
  /** No callback may be called any more. */
  bool ending() const { return ending_; }

  void Retain() { references_++; }
  void Release();

  void HandleOpened();
  void HandleClosed();

  void Add(Wrapped* object);
  void Remove(Wrapped* object);

  void SetCarrierClass(napi_value constructor);
  /** A Carrier around an accepted socket, which it owns from here on, also when null is returned (exception pending). */
  napi_value NewCarrier(int fd);
  /** The socket that NewCarrier hands to the constructor which it calls; -1 when JavaScript called it. */
  int TakeAdoptedSocket();

 private:
  Env(napi_env napi, uv_loop_t* loop) : napi_(napi), loop_(loop) {}
  ~Env() = default;
  static void End(napi_async_cleanup_hook_handle hook, void* data);
  void FinishWhenQuiet();

  napi_env napi_;
  uv_loop_t* loop_;
  napi_async_cleanup_hook_handle hook_ = nullptr;
  napi_ref carrier_class_ = nullptr;
  Wrapped* objects_ = nullptr;
  int references_ = 1;
  int open_handles_ = 0;
  int adopted_socket_ = -1;
  bool ending_ = false;
};

}  // namespace faketcp
