// The classes and functions that addon.cc exports; each is made by the file of its name.
#pragma once

#include <node_api.h>

namespace faketcp {

napi_value DefineCapture(napi_env napi);
napi_value DefinePacketSender(napi_env napi);
napi_value DefineRawSender(napi_env napi);
napi_value DefineCarrier(napi_env napi);
napi_value DefineCarrierListener(napi_env napi);
napi_value DefineCarrierInbox(napi_env napi);
napi_value DefineRouteSocket(napi_env napi);
napi_value DefineOwnedChild(napi_env napi);
napi_value DefinePathReports(napi_env napi);
napi_value DefineUdpSocket(napi_env napi);
napi_value DefineTunnelCodec(napi_env napi);

}  // namespace faketcp
