// Calling JavaScript from the event loop; see callback.h.
#include "callback.h"

#include "js_values.h"

namespace faketcp {

void ReportPending(napi_env napi) {
  bool pending = false;
  napi_value thrown = nullptr;
  if (napi_is_exception_pending(napi, &pending) != napi_ok || !pending) return;
  if (napi_get_and_clear_last_exception(napi, &thrown) == napi_ok && thrown != nullptr) napi_fatal_exception(napi, thrown);
}

bool AsyncContext::Create(Env& env, napi_value resource, const char* name) {
  env_ = &env;
  doomed_ = false;
  napi_value text = nullptr;
  if (!Check(env.napi(), napi_create_string_utf8(env.napi(), name, NAPI_AUTO_LENGTH, &text))) return false;
  return Check(env.napi(), napi_async_init(env.napi(), resource, text, &context_));
}

void AsyncContext::Destroy() {
  // napi_make_callback is still using the context of a callback that closes its own object.
  if (depth_ > 0) {
    doomed_ = true;
    return;
  }
  if (context_ != nullptr) napi_async_destroy(env_->napi(), context_);
  context_ = nullptr;
}

void AsyncContext::Call(napi_value receiver, napi_value function, size_t argc, const napi_value* argv) {
  if (env_->ending() || context_ == nullptr || receiver == nullptr || function == nullptr) return;
  const napi_env napi = env_->napi();
  depth_++;
  const napi_status status = napi_make_callback(napi, context_, receiver, function, argc, argv, nullptr);
  depth_--;
  if (status != napi_ok) ReportPending(napi);
  if (doomed_ && depth_ == 0) Destroy();
}

bool Callback::Set(Env& env, napi_value receiver, napi_value function, const char* name) {
  env_ = &env;
  return context_.Create(env, receiver, name) && Check(env.napi(), napi_create_reference(env.napi(), function, 1, &function_));
}

void Callback::Clear() {
  if (function_ != nullptr) napi_delete_reference(env_->napi(), function_);
  function_ = nullptr;
  context_.Destroy();
}

void Callback::Call(napi_value receiver, size_t argc, const napi_value* argv) {
  if (function_ == nullptr) return;
  napi_value function = nullptr;
  napi_get_reference_value(env_->napi(), function_, &function);
  context_.Call(receiver, function, argc, argv);
}

}  // namespace faketcp
