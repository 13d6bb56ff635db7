// Authenticated encryption under a counter, and the mask that hides the counter. Knows keys and ciphers, no message format.
#pragma once

#include <cstddef>
#include <cstdint>

#include "evp.h"

namespace faketcp {

constexpr size_t kKeyBytes = 32;
constexpr size_t kIvBytes = 12;
constexpr size_t kTagBytes = 16;
constexpr size_t kSampleBytes = 16;

enum class Suite { kAes256Gcm, kChaCha20Poly1305 };

/** What one direction needs. */
struct AeadKeys {
  Suite suite;
  uint8_t key[kKeyBytes];
  uint8_t iv[kIvBytes];
  uint8_t mask[kKeyBytes];
};

/** Seals or opens, in place. The nonce is the IV, its end XORed with the counter, as in TLS 1.3 and QUIC (RFC 9001, 5.3). */
class Aead {
 public:
  /** @returns false where OpenSSL is missing or refuses the cipher */
  bool Open(const AeadKeys& keys, bool seal);
  void Close();

  /** Writes the tag behind the text. @returns false if OpenSSL fails; the text is then not to be sent */
  bool Seal(uint64_t counter, uint8_t* text, size_t size);
  /** `size` without the tag, which stands behind. @returns false unless it is authentic; the text is then not to be used */
  bool Unseal(uint64_t counter, uint8_t* text, size_t size);

 private:
  bool Begin(uint64_t counter);

  CipherContext cipher_;
  uint8_t iv_[kIvBytes] = {};
};

/**
 * Masks from samples of ciphertext, as QUIC's header protection makes them with AES (RFC 9001, 5.4.3). ChaCha20 has the same here: without chaining, AES
 * takes all samples in one call, and without instructions for it costs about what a key stream of ChaCha20 by an IV of its own does.
 */
class CounterMask {
 public:
  /** @returns false where OpenSSL is missing or refuses the cipher */
  bool Open(const AeadKeys& keys) { return cipher_.Open("EVP_aes_256_ecb", keys.mask, true); }
  void Close() { cipher_.Close(); }

  /** Turns `count` samples of kSampleBytes, one behind the other, into masks of that size. @returns false if OpenSSL fails */
  bool Apply(uint8_t* samples, size_t count) { return cipher_.Update(samples, count * kSampleBytes, samples); }

 private:
  CipherContext cipher_;
};

}  // namespace faketcp
