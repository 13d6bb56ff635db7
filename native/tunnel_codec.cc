// TunnelCodec: the tunnel's messages for JavaScript, a train for each call. Checks what it is given; the work is in tunnel_messages.h.
#include <cstring>

#include "classes.h"
#include "js_values.h"
#include "layout.h"
#include "tunnel_messages.h"
#include "wrapped.h"

namespace faketcp {
namespace {

constexpr int64_t kMaxSegment = 65535;

class TunnelCodec final : public Wrapped {
 public:
  explicit TunnelCodec(Env& env) : Wrapped(env) {}

  bool Open(napi_value self, napi_value options);
  bool Watch(napi_value) { return true; }
  void EnvironmentEnds() override { Close(); }
  void Close();

  /** Null with an exception pending. */
  napi_value Pack(const Arguments<8>& args);
  napi_value Unpack(const Arguments<5>& args);
  /** False with an exception pending. */
  bool Counters(napi_value out);
  size_t overhead() const { return packer_.overhead(); }
  size_t unread() const { return unpacker_.unread(); }

 private:
  bool IsOpen() const;
  bool TakeKeys(napi_value keys, const char* name, AeadKeys* out) const;

  Packer packer_;
  Unpacker unpacker_;
  bool closed_ = false;
};

bool TunnelCodec::Open(napi_value, napi_value options) {
  const napi_env napi = env().napi();
  napi_value seal = nullptr;
  napi_value open = nullptr;
  if (!Property(napi, options, "seal", &seal) || !Property(napi, options, "open", &open)) return false;
  napi_valuetype types[2] = {};
  napi_typeof(napi, seal, &types[0]);
  napi_typeof(napi, open, &types[1]);
  if (types[0] == napi_undefined && types[1] == napi_undefined) return true;
  AeadKeys keys[2];
  bool opened = TakeKeys(seal, "seal", &keys[0]) && TakeKeys(open, "open", &keys[1]);
  if (opened && memcmp(keys[0].key, keys[1].key, kKeyBytes) == 0) {
    opened = ThrowRange(napi, "seal.key and open.key must differ, else messages that come back to their sender would be taken for the peer's");
  }
  if (opened && !(packer_.Open(keys[0]) && unpacker_.Open(keys[1]))) {
    napi_throw_error(napi, "ENOTSUP", "the OpenSSL of this Node.js is missing or refuses the cipher");
    opened = false;
  }
  explicit_bzero(keys, sizeof keys);
  return opened;
}

bool TunnelCodec::TakeKeys(napi_value keys, const char* name, AeadKeys* out) const {
  const napi_env napi = env().napi();
  char cipher[32];
  napi_valuetype type = napi_undefined;
  napi_typeof(napi, keys, &type);
  if (type != napi_object) return ThrowType(napi, "%s must be an object of keys: both directions are sealed, or none", name);
  if (!GetText(napi, keys, "cipher", cipher, sizeof cipher)) return false;
  const bool gcm = strcmp(cipher, "aes-256-gcm") == 0;
  if (!gcm && strcmp(cipher, "chacha20-poly1305") != 0) {
    return ThrowRange(napi, "%s.cipher must be 'aes-256-gcm' or 'chacha20-poly1305', it is '%s'", name, cipher);
  }
  out->suite = gcm ? Suite::kAes256Gcm : Suite::kChaCha20Poly1305;
  const struct {
    const char* name;
    uint8_t* to;
    size_t size;
  } parts[] = {{"key", out->key, kKeyBytes}, {"iv", out->iv, kIvBytes}, {"mask", out->mask, kKeyBytes}};
  for (const auto& part : parts) {
    napi_value value = nullptr;
    Bytes bytes;
    if (!Property(napi, keys, part.name, &value) || !ToBytes(napi, value, part.name, &bytes)) return false;
    if (bytes.size != part.size) return ThrowRange(napi, "%s.%s must have %zu bytes, it has %zu", name, part.name, part.size, bytes.size);
    memcpy(part.to, bytes.data, part.size);
  }
  return true;
}

void TunnelCodec::Close() {
  closed_ = true;
  packer_.Close();
  unpacker_.Close();
}

bool TunnelCodec::IsOpen() const {
  if (closed_) napi_throw_error(env().napi(), nullptr, "the codec is closed");
  return !closed_;
}

/** Part of an array, for the two arguments that name it. */
bool ToRange(napi_env napi, napi_value offset, napi_value length, const Bytes& array, int64_t* from, int64_t* count) {
  if (!ToInteger(napi, offset, "offset", 0, INT32_MAX, from) || !ToInteger(napi, length, "length", 0, INT32_MAX - *from, count)) return false;
  if (static_cast<size_t>(*from + *count) <= array.size) return true;
  return ThrowRange(napi, "offset + length must be at most the %zu bytes of memory, it is %lld", array.size, static_cast<long long>(*from + *count));
}

napi_value TunnelCodec::Pack(const Arguments<8>& args) {
  const napi_env napi = env().napi();
  int64_t type = 0;
  int64_t session = 0;
  Bytes memory;
  int64_t offset = 0;
  int64_t length = 0;
  int64_t segment = 0;
  Bytes out;
  int64_t out_offset = 0;
  if (!IsOpen() || !ToInteger(napi, args[0], "type", 0, UINT8_MAX, &type) || !ToInteger(napi, args[1], "session", 0, UINT16_MAX, &session) ||
      !ToBytes(napi, args[2], "memory", &memory) || !ToRange(napi, args[3], args[4], memory, &offset, &length) ||
      !ToInteger(napi, args[5], "segment", length > 0 ? 1 : 0, kMaxSegment, &segment) || !ToBytes(napi, args[6], "out", &out) ||
      !ToInteger(napi, args[7], "outOffset", 0, INT32_MAX, &out_offset)) {
    return nullptr;
  }
  const size_t messages = MessageCount(static_cast<size_t>(length), static_cast<size_t>(segment));
  const size_t needed = static_cast<size_t>(length) + messages * packer_.overhead();
  if (static_cast<size_t>(out_offset) + needed > out.size) {
    ThrowRange(napi, "out must have room for %zu bytes at %lld, it has %zu bytes", needed, static_cast<long long>(out_offset), out.size);
    return nullptr;
  }
  if (!packer_.HasNumbersFor(messages)) return Integer(napi, 0);
  if (!packer_.Pack(static_cast<uint8_t>(type), static_cast<uint16_t>(session), memory.data + offset, static_cast<size_t>(length),
                    static_cast<size_t>(segment), const_cast<uint8_t*>(out.data) + out_offset)) {
    napi_throw_error(napi, nullptr, "OpenSSL failed to seal a message");
    return nullptr;
  }
  return Number(napi, static_cast<double>(needed));
}

napi_value TunnelCodec::Unpack(const Arguments<5>& args) {
  const napi_env napi = env().napi();
  Bytes memory;
  int64_t offset = 0;
  int64_t length = 0;
  int64_t segment = 0;
  int32_t* runs = nullptr;
  size_t words = 0;
  if (!IsOpen() || !ToBytes(napi, args[0], "memory", &memory) || !ToRange(napi, args[1], args[2], memory, &offset, &length) ||
      !ToInteger(napi, args[3], "segment", length > 0 ? 1 : 0, kMaxSegment, &segment) || !ToWords(napi, args[4], "runs", RUN_WORDS, &runs, &words)) {
    return nullptr;
  }
  const size_t filled = unpacker_.Unpack(const_cast<uint8_t*>(memory.data), static_cast<size_t>(offset), static_cast<size_t>(length),
                                         static_cast<size_t>(segment), runs, words / RUN_WORDS);
  return Integer(napi, static_cast<int32_t>(filled));
}

bool TunnelCodec::Counters(napi_value value) {
  double* out = nullptr;
  if (!ToNumbers(env().napi(), value, "out", CODEC_COUNTERS, &out)) return false;
  const Unpacker::Counts& counts = unpacker_.counts();
  out[CODEC_PACKED] = static_cast<double>(packer_.packed());
  out[CODEC_UNPACKED] = static_cast<double>(counts.unpacked);
  out[CODEC_TRUNCATED] = static_cast<double>(counts.truncated);
  out[CODEC_REPLAYED] = static_cast<double>(counts.replayed);
  out[CODEC_FORGED] = static_cast<double>(counts.forged);
  return true;
}

napi_value Pack(napi_env napi, napi_callback_info info) {
  const Arguments<8> args(napi, info);
  TunnelCodec* codec = Wrapped::Of<TunnelCodec>(napi, args.self);
  return codec == nullptr ? nullptr : codec->Pack(args);
}

napi_value Unpack(napi_env napi, napi_callback_info info) {
  const Arguments<5> args(napi, info);
  TunnelCodec* codec = Wrapped::Of<TunnelCodec>(napi, args.self);
  return codec == nullptr ? nullptr : codec->Unpack(args);
}

napi_value Overhead(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  const TunnelCodec* codec = Wrapped::Of<TunnelCodec>(napi, args.self);
  return codec == nullptr ? nullptr : Integer(napi, static_cast<int32_t>(codec->overhead()));
}

napi_value Unread(napi_env napi, napi_callback_info info) {
  const Arguments<0> args(napi, info);
  const TunnelCodec* codec = Wrapped::Of<TunnelCodec>(napi, args.self);
  return codec == nullptr ? nullptr : Number(napi, static_cast<double>(codec->unread()));
}

}  // namespace

napi_value DefineTunnelCodec(napi_env napi) {
  return DefineClass(napi, "TunnelCodec", Construct<TunnelCodec>,
                     {
                         Method("pack", Pack),
                         Method("unpack", Unpack),
                         Method("counters", Taking<TunnelCodec, &TunnelCodec::Counters>),
                         Getter("overhead", Overhead),
                         Getter("unread", Unread),
                         Method("close", Plain<TunnelCodec, &TunnelCodec::Close>),
                     });
}

}  // namespace faketcp
