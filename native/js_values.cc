// Reading JavaScript values and throwing JavaScript errors; see js_values.h.
#include "js_values.h"

#include <linux/filter.h>
#include <uv.h>

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace faketcp {
namespace {

const char* TypeName(napi_env napi, napi_value value) {
  napi_valuetype type = napi_undefined;
  napi_typeof(napi, value, &type);
  switch (type) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return "a boolean";
    case napi_number: return "a number";
    case napi_string: return "a string";
    case napi_function: return "a function";
    default: return "another object";
  }
}

bool ToTyped(napi_env napi, napi_value value, const char* name, napi_typedarray_type wanted, const char* class_name, size_t at_least, void** data,
             size_t* length) {
  napi_typedarray_type type = napi_int8_array;
  // Without asking for the buffer: napi_get_arraybuffer_info fails on a SharedArrayBuffer in Node 20, this does not.
  if (napi_get_typedarray_info(napi, value, &type, length, data, nullptr, nullptr) != napi_ok || type != wanted) {
    return ThrowType(napi, "%s must be %s, it is %s", name, class_name, TypeName(napi, value));
  }
  if (*length < at_least) return ThrowRange(napi, "%s must have at least %zu elements, it has %zu", name, at_least, *length);
  return true;
}

}  // namespace

bool Check(napi_env napi, napi_status status) {
  if (status == napi_ok) return true;
  const napi_extended_error_info* info = nullptr;
  const char* message = "a Node-API call failed";
  if (napi_get_last_error_info(napi, &info) == napi_ok && info->error_message != nullptr) message = info->error_message;
  bool pending = false;
  napi_is_exception_pending(napi, &pending);
  if (!pending) napi_throw_error(napi, nullptr, message);
  return false;
}

bool ThrowType(napi_env napi, const char* format, ...) {
  char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  napi_throw_type_error(napi, nullptr, message);
  return false;
}

bool ThrowRange(napi_env napi, const char* format, ...) {
  char message[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  napi_throw_range_error(napi, nullptr, message);
  return false;
}

bool ThrowSystem(napi_env napi, int error, const char* syscall) {
  char code[32];
  char text[256];
  uv_err_name_r(-error, code, sizeof code);
  snprintf(text, sizeof text, "%s %s: %s", syscall, code, uv_strerror(-error));
  napi_value value = nullptr;
  if (!Check(napi, napi_create_error(napi, Text(napi, code), Text(napi, text), &value))) return false;
  napi_set_named_property(napi, value, "errno", Integer(napi, -error));
  napi_set_named_property(napi, value, "syscall", Text(napi, syscall));
  napi_throw(napi, value);
  return false;
}

bool ToInteger(napi_env napi, napi_value value, const char* name, int64_t low, int64_t high, int64_t* out) {
  double number = 0;
  if (napi_get_value_double(napi, value, &number) != napi_ok) return ThrowType(napi, "%s must be a number, it is %s", name, TypeName(napi, value));
  if (!(number >= static_cast<double>(low) && number <= static_cast<double>(high)) || number != std::floor(number)) {
    return ThrowRange(napi, "%s must be an integer from %lld to %lld, it is %g", name, static_cast<long long>(low), static_cast<long long>(high),
                      number);
  }
  *out = static_cast<int64_t>(number);
  return true;
}

bool ToBytes(napi_env napi, napi_value value, const char* name, Bytes* out) {
  void* data = nullptr;
  if (!ToTyped(napi, value, name, napi_uint8_array, "a Uint8Array", 0, &data, &out->size)) return false;
  out->data = static_cast<const uint8_t*>(data);
  return true;
}

bool ToWords(napi_env napi, napi_value value, const char* name, size_t words, int32_t** out, size_t* length) {
  size_t found = 0;
  void* data = nullptr;
  if (!ToTyped(napi, value, name, napi_int32_array, "an Int32Array", words, &data, &found)) return false;
  *out = static_cast<int32_t*>(data);
  if (length != nullptr) *length = found;
  return true;
}

bool ToNumbers(napi_env napi, napi_value value, const char* name, size_t count, double** out) {
  size_t length = 0;
  void* data = nullptr;
  if (!ToTyped(napi, value, name, napi_float64_array, "a Float64Array", count, &data, &length)) return false;
  *out = static_cast<double*>(data);
  return true;
}

bool ToText(napi_env napi, napi_value value, const char* name, char* out, size_t capacity) {
  size_t length = 0;
  if (napi_get_value_string_utf8(napi, value, nullptr, 0, &length) != napi_ok) {
    return ThrowType(napi, "%s must be a string, it is %s", name, TypeName(napi, value));
  }
  if (length >= capacity) return ThrowRange(napi, "%s must be shorter than %zu bytes, it has %zu", name, capacity, length);
  return Check(napi, napi_get_value_string_utf8(napi, value, out, capacity, &length));
}

bool ToFunction(napi_env napi, napi_value value, const char* name) {
  napi_valuetype type = napi_undefined;
  napi_typeof(napi, value, &type);
  return type == napi_function || ThrowType(napi, "%s must be a function, it is %s", name, TypeName(napi, value));
}

bool ToProgram(napi_env napi, napi_value value, const char* name, Bytes* out) {
  if (!ToBytes(napi, value, name, out)) return false;
  const size_t count = out->size / sizeof(sock_filter);
  if (out->size % sizeof(sock_filter) != 0 || count < 1 || count > BPF_MAXINSNS) {
    return ThrowRange(napi, "%s must be 1 to %d BPF instructions of %zu bytes, it has %zu bytes", name, BPF_MAXINSNS, sizeof(sock_filter), out->size);
  }
  return true;
}

bool Property(napi_env napi, napi_value object, const char* name, napi_value* out) {
  return Check(napi, napi_get_named_property(napi, object, name, out));
}

bool GetInteger(napi_env napi, napi_value object, const char* name, int64_t low, int64_t high, int64_t* out) {
  napi_value value = nullptr;
  return Property(napi, object, name, &value) && ToInteger(napi, value, name, low, high, out);
}

bool GetBoolean(napi_env napi, napi_value object, const char* name, bool* out) {
  napi_value value = nullptr;
  if (!Property(napi, object, name, &value)) return false;
  return napi_get_value_bool(napi, value, out) == napi_ok || ThrowType(napi, "%s must be a boolean, it is %s", name, TypeName(napi, value));
}

bool GetText(napi_env napi, napi_value object, const char* name, char* out, size_t capacity) {
  napi_value value = nullptr;
  return Property(napi, object, name, &value) && ToText(napi, value, name, out, capacity);
}

bool GetProgram(napi_env napi, napi_value object, const char* name, Bytes* out) {
  napi_value value = nullptr;
  return Property(napi, object, name, &value) && ToProgram(napi, value, name, out);
}

bool GetFunction(napi_env napi, napi_value object, const char* name, napi_value* out) {
  return Property(napi, object, name, out) && ToFunction(napi, *out, name);
}

bool GetFamily(napi_env napi, napi_value object, bool* v6) {
  int64_t family = 0;
  if (!GetInteger(napi, object, "family", 4, 6, &family)) return false;
  if (family == 5) return ThrowRange(napi, "family must be 4 or 6, it is 5");
  *v6 = family == 6;
  return true;
}

bool IsConstructing(napi_env napi, napi_callback_info info) {
  napi_value target = nullptr;
  napi_get_new_target(napi, info, &target);
  return target != nullptr || ThrowType(napi, "a class must be called with new");
}

napi_value Number(napi_env napi, double value) {
  napi_value number = nullptr;
  napi_create_double(napi, value, &number);
  return number;
}

napi_value Integer(napi_env napi, int32_t value) {
  napi_value number = nullptr;
  napi_create_int32(napi, value, &number);
  return number;
}

napi_value Boolean(napi_env napi, bool value) {
  napi_value boolean = nullptr;
  napi_get_boolean(napi, value, &boolean);
  return boolean;
}

napi_value Text(napi_env napi, const char* value) {
  napi_value text = nullptr;
  napi_create_string_utf8(napi, value, NAPI_AUTO_LENGTH, &text);
  return text;
}

napi_property_descriptor Method(const char* name, napi_callback method) {
  return {name, nullptr, method, nullptr, nullptr, nullptr, napi_default_method, nullptr};
}

napi_property_descriptor Getter(const char* name, napi_callback getter) {
  return {name, nullptr, nullptr, getter, nullptr, nullptr, napi_default_jsproperty, nullptr};
}

napi_value DefineClass(napi_env napi, const char* name, napi_callback construct, const std::vector<napi_property_descriptor>& members) {
  napi_value constructor = nullptr;
  napi_define_class(napi, name, NAPI_AUTO_LENGTH, construct, nullptr, members.size(), members.data(), &constructor);
  return constructor;
}

}  // namespace faketcp
