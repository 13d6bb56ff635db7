// Authenticated encryption under a counter, and the mask that hides the counter; see aead.h.
#include "aead.h"

#include <cstring>

namespace faketcp {

bool Aead::Open(const AeadKeys& keys, bool seal) {
  memcpy(iv_, keys.iv, sizeof iv_);
  return cipher_.Open(keys.suite == Suite::kAes256Gcm ? "EVP_aes_256_gcm" : "EVP_chacha20_poly1305", keys.key, seal);
}

void Aead::Close() {
  cipher_.Close();
  memset(iv_, 0, sizeof iv_);
}

bool Aead::Begin(uint64_t counter) {
  uint8_t nonce[kIvBytes];
  memcpy(nonce, iv_, sizeof nonce);
  for (size_t i = sizeof nonce - 1; counter != 0; i--, counter >>= 8) nonce[i] ^= static_cast<uint8_t>(counter);
  return cipher_.Begin(nonce);
}

bool Aead::Seal(uint64_t counter, uint8_t* text, size_t size) {
  return Begin(counter) && cipher_.Update(text, size, text) && cipher_.Final() && cipher_.GetTag(text + size, kTagBytes);
}

bool Aead::Unseal(uint64_t counter, uint8_t* text, size_t size) {
  return Begin(counter) && cipher_.Update(text, size, text) && cipher_.SetTag(text + size, kTagBytes) && cipher_.Final();
}

}  // namespace faketcp
