// The ciphers of the OpenSSL that Node itself runs on; see evp.h.
#include "evp.h"

#include <dlfcn.h>

namespace faketcp {
namespace {

// openssl/evp.h: EVP_CTRL_AEAD_GET_TAG, EVP_CTRL_AEAD_SET_TAG.
constexpr int kGetTag = 0x10;
constexpr int kSetTag = 0x11;

template <class Function>
bool Look(const char* name, Function* out) {
  *out = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  return *out != nullptr;
}

bool LookAll(Evp* evp) {
  return Look("EVP_CIPHER_CTX_new", &evp->context_new) && Look("EVP_CIPHER_CTX_free", &evp->context_free) && Look("EVP_CipherInit_ex", &evp->init) &&
         Look("EVP_CipherUpdate", &evp->update) && Look("EVP_CipherFinal_ex", &evp->final) && Look("EVP_CIPHER_CTX_ctrl", &evp->control) &&
         Look("EVP_CIPHER_CTX_set_padding", &evp->set_padding) && Look("ERR_clear_error", &evp->clear_errors);
}

}  // namespace

const Evp* Evp::Find() {
  static Evp evp;
  static const bool found = LookAll(&evp);
  return found ? &evp : nullptr;
}

bool CipherContext::Open(const char* cipher, const uint8_t* key, bool encrypt) {
  const EvpCipher* (*method)() = nullptr;
  evp_ = Evp::Find();
  if (evp_ == nullptr || !Look(cipher, &method)) return false;
  context_ = evp_->context_new();
  return context_ != nullptr && Succeeded(evp_->init(context_, method(), nullptr, key, nullptr, encrypt ? 1 : 0)) &&
         Succeeded(evp_->set_padding(context_, 0));
}

void CipherContext::Close() {
  if (context_ != nullptr) evp_->context_free(context_);
  context_ = nullptr;
}

bool CipherContext::Update(const uint8_t* in, size_t size, uint8_t* out) {
  int written = 0;
  return Succeeded(evp_->update(context_, out, &written, in, static_cast<int>(size)));
}

bool CipherContext::Final() {
  // Stream modes and whole blocks leave nothing to be written.
  uint8_t rest[16];
  int written = 0;
  return Succeeded(evp_->final(context_, rest, &written));
}

bool CipherContext::GetTag(uint8_t* tag, size_t size) { return Succeeded(evp_->control(context_, kGetTag, static_cast<int>(size), tag)); }

bool CipherContext::SetTag(const uint8_t* tag, size_t size) {
  return Succeeded(evp_->control(context_, kSetTag, static_cast<int>(size), const_cast<uint8_t*>(tag)));
}

}  // namespace faketcp
