// The ciphers of the OpenSSL that Node itself runs on. Knows how to find and drive them, nothing of keys' meaning or messages.
#pragma once

#include <cstddef>
#include <cstdint>

namespace faketcp {

struct EvpContext;
struct EvpCipher;

/**
 * Functions of libcrypto under their prototypes, which are the same from OpenSSL 1.1.0 on. Node's own builds export them from the executable, those of
 * distributions have loaded the shared library. Its headers are not used: not every package of Node's headers has them.
 */
struct Evp {
  EvpContext* (*context_new)();
  void (*context_free)(EvpContext*);
  int (*init)(EvpContext*, const EvpCipher*, void* engine, const uint8_t* key, const uint8_t* iv, int encrypt);
  int (*update)(EvpContext*, uint8_t* out, int* out_size, const uint8_t* in, int size);
  int (*final)(EvpContext*, uint8_t* out, int* out_size);
  int (*control)(EvpContext*, int type, int size, void* data);
  int (*set_padding)(EvpContext*, int padding);
  void (*clear_errors)();

  /** Null where this process has not got them. The same for all threads. */
  static const Evp* Find();
};

/** One cipher under one key. The key schedule is made once, each message is a new IV. */
class CipherContext {
 public:
  CipherContext() = default;
  /** OpenSSL wipes the key. */
  ~CipherContext() { Close(); }
  CipherContext(const CipherContext&) = delete;
  CipherContext& operator=(const CipherContext&) = delete;

  /** @param cipher the name of the function that returns it, as `EVP_aes_256_gcm` @returns false where OpenSSL is missing or refuses it */
  bool Open(const char* cipher, const uint8_t* key, bool encrypt);
  void Close();

  bool Begin(const uint8_t* iv) { return Succeeded(evp_->init(context_, nullptr, nullptr, nullptr, iv, -1)); }
  /** `in` and `out` are the same or do not overlap. */
  bool Update(const uint8_t* in, size_t size, uint8_t* out);
  bool Final();
  bool GetTag(uint8_t* tag, size_t size);
  bool SetTag(const uint8_t* tag, size_t size);

 private:
  /** Node's TLS would take an error that is left in the thread's queue for its own. */
  bool Succeeded(int result) {
    if (result == 1) return true;
    evp_->clear_errors();
    return false;
  }

  const Evp* evp_ = nullptr;
  EvpContext* context_ = nullptr;
};

}  // namespace faketcp
