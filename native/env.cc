// One environment's possessions; see env.h.
#include "env.h"

#include <unistd.h>

#include "js_values.h"
#include "wrapped.h"

namespace faketcp {

Env* Env::Create(napi_env napi) {
  uv_loop_t* loop = nullptr;
  if (!Check(napi, napi_get_uv_event_loop(napi, &loop))) return nullptr;
  Env* env = new Env(napi, loop);
  const auto finalize = [](napi_env, void* data, void*) { static_cast<Env*>(data)->Release(); };
  if (!Check(napi, napi_set_instance_data(napi, env, finalize, nullptr))) {
    env->Release();
    return nullptr;
  }
  if (!Check(napi, napi_add_async_cleanup_hook(napi, End, env, &env->hook_))) return nullptr;
  return env;
}

Env& Env::Of(napi_env napi) {
  void* data = nullptr;
  napi_get_instance_data(napi, &data);
  return *static_cast<Env*>(data);
}

void Env::Release() {
  if (--references_ == 0) delete this;
}

void Env::HandleOpened() {
  open_handles_++;
  Retain();
}

void Env::HandleClosed() {
  open_handles_--;
  FinishWhenQuiet();
  Release();
}

// The hook is removed when the last uv handle has closed: until then Node keeps the loop turning and this library loaded.
void Env::End(napi_async_cleanup_hook_handle, void* data) {
  Env* env = static_cast<Env*>(data);
  env->ending_ = true;
  for (Wrapped* object = env->objects_; object != nullptr; object = object->next_) object->EnvironmentEnds();
  if (env->carrier_class_ != nullptr) napi_delete_reference(env->napi_, env->carrier_class_);
  env->carrier_class_ = nullptr;
  env->FinishWhenQuiet();
}

void Env::FinishWhenQuiet() {
  if (!ending_ || open_handles_ > 0 || hook_ == nullptr) return;
  napi_remove_async_cleanup_hook(hook_);
  hook_ = nullptr;
}

void Env::Add(Wrapped* object) {
  object->next_ = objects_;
  if (objects_ != nullptr) objects_->previous_ = object;
  objects_ = object;
  Retain();
}

void Env::Remove(Wrapped* object) {
  if (object->previous_ != nullptr) {
    object->previous_->next_ = object->next_;
  } else {
    objects_ = object->next_;
  }
  if (object->next_ != nullptr) object->next_->previous_ = object->previous_;
  Release();
}

void Env::SetCarrierClass(napi_value constructor) { napi_create_reference(napi_, constructor, 1, &carrier_class_); }

napi_value Env::NewCarrier(int fd) {
  napi_value constructor = nullptr;
  napi_value carrier = nullptr;
  adopted_socket_ = fd;
  napi_get_reference_value(napi_, carrier_class_, &constructor);
  napi_new_instance(napi_, constructor, 0, nullptr, &carrier);
  const int left = TakeAdoptedSocket();
  if (left >= 0) close(left);
  return carrier;
}

int Env::TakeAdoptedSocket() {
  const int fd = adopted_socket_;
  adopted_socket_ = -1;
  return fd;
}

}  // namespace faketcp
