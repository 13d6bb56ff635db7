// Reading JavaScript values and throwing JavaScript errors. Every function that reads returns false with an exception pending that says what
// was expected. Knows nothing of the classes that use it.
#pragma once

#include <node_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace faketcp {

/** Turns a failed Node-API call into an exception. */
bool Check(napi_env napi, napi_status status);

bool ThrowType(napi_env napi, const char* format, ...) __attribute__((format(printf, 2, 3)));
bool ThrowRange(napi_env napi, const char* format, ...) __attribute__((format(printf, 2, 3)));
/** `error` is a positive errno. The Error carries `errno` (negative), `code` and `syscall`, as Node's own do. */
bool ThrowSystem(napi_env napi, int error, const char* syscall);

struct Bytes {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

// Of a value; `name` is for the message.
bool ToInteger(napi_env napi, napi_value value, const char* name, int64_t low, int64_t high, int64_t* out);
/** A Uint8Array, also on a SharedArrayBuffer. The memory is the array's own. */
bool ToBytes(napi_env napi, napi_value value, const char* name, Bytes* out);
/** An Int32Array of at least `words` elements. */
bool ToWords(napi_env napi, napi_value value, const char* name, size_t words, int32_t** out, size_t* length = nullptr);
bool ToNumbers(napi_env napi, napi_value value, const char* name, size_t count, double** out);
bool ToText(napi_env napi, napi_value value, const char* name, char* out, size_t capacity);
bool ToFunction(napi_env napi, napi_value value, const char* name);
/** A BPF program: a Uint8Array of whole instructions. */
bool ToProgram(napi_env napi, napi_value value, const char* name, Bytes* out);

// Of an object's property.
bool Property(napi_env napi, napi_value object, const char* name, napi_value* out);
bool GetInteger(napi_env napi, napi_value object, const char* name, int64_t low, int64_t high, int64_t* out);
bool GetBoolean(napi_env napi, napi_value object, const char* name, bool* out);
bool GetText(napi_env napi, napi_value object, const char* name, char* out, size_t capacity);
bool GetProgram(napi_env napi, napi_value object, const char* name, Bytes* out);
bool GetFunction(napi_env napi, napi_value object, const char* name, napi_value* out);
/** 4 or 6. */
bool GetFamily(napi_env napi, napi_value object, bool* v6);

/** A call's receiver and arguments; missing ones are `undefined`. */
template <size_t N>
struct Arguments {
  Arguments(napi_env napi, napi_callback_info info) {
    size_t count = N;
    napi_get_cb_info(napi, info, &count, values, &self, nullptr);
  }
  napi_value operator[](size_t i) const { return values[i]; }
  napi_value self = nullptr;
  napi_value values[N == 0 ? 1 : N] = {};
};

/** False with a TypeError pending if a class was called without `new`. */
bool IsConstructing(napi_env napi, napi_callback_info info);

napi_value Number(napi_env napi, double value);
napi_value Integer(napi_env napi, int32_t value);
napi_value Boolean(napi_env napi, bool value);
napi_value Text(napi_env napi, const char* value);

napi_property_descriptor Method(const char* name, napi_callback method);
napi_property_descriptor Getter(const char* name, napi_callback getter);
/** A class of such members. */
napi_value DefineClass(napi_env napi, const char* name, napi_callback construct, const std::vector<napi_property_descriptor>& members);

}  // namespace faketcp
