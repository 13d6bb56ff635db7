// Native halves of JavaScript objects; see wrapped.h.
#include "wrapped.h"

#include "js_values.h"

namespace faketcp {

bool Wrapped::Attach(napi_value self) {
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<Wrapped*>(data); };
  return Check(env_.napi(), napi_wrap(env_.napi(), self, this, finalize, nullptr, nullptr));
}

Wrapped* Wrapped::Unwrap(napi_env napi, napi_value self) {
  void* data = nullptr;
  if (napi_unwrap(napi, self, &data) == napi_ok) return static_cast<Wrapped*>(data);
  napi_throw_type_error(napi, nullptr, "the receiver of this method was not made by its constructor");
  return nullptr;
}

void Wrapped::Hold(napi_value self) {
  if (self_ == nullptr) napi_create_reference(env_.napi(), self, 1, &self_);
}

void Wrapped::Unhold() {
  if (self_ != nullptr) napi_delete_reference(env_.napi(), self_);
  self_ = nullptr;
}

napi_value Wrapped::self() const {
  napi_value self = nullptr;
  if (self_ != nullptr) napi_get_reference_value(env_.napi(), self_, &self);
  return self;
}

}  // namespace faketcp
