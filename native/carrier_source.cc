// What carriers come from; see carrier_source.h.
#include "carrier_source.h"

#include <cerrno>

#include "js_values.h"

namespace faketcp {
namespace {

/** Taken for one poll event. */
constexpr int kBurst = 64;

}  // namespace

bool CarrierSource::SetCallback(napi_value self, napi_value options, const char* name, const char* context) {
  napi_value on_carriers = nullptr;
  return GetFunction(env().napi(), options, name, &on_carriers) && on_carriers_.Set(env(), self, on_carriers, context);
}

void CarrierSource::Close() {
  Watched::Close();
  on_carriers_.Clear();
}

void CarrierSource::OnReadable() {
  int sockets[kBurst];
  uint32_t count = 0;
  int error = 0;
  for (int i = 0; i < kBurst && error == 0; i++) {
    const int taken = TakeOne(&error);
    if (taken >= 0) sockets[count++] = taken;
  }
  if (error == EAGAIN) error = 0;
  // A full table would make epoll report the same connection for ever.
  if (error != 0) Pause();
  Deliver(sockets, count, error);
}

void CarrierSource::Deliver(const int* sockets, uint32_t count, int error) {
  if (count == 0 && error == 0) return;
  const napi_env napi = env().napi();
  const Scope scope(napi);
  const napi_value source = self();
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
  on_carriers_.Call(source, 2, arguments);
}

}  // namespace faketcp
