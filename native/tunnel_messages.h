// The messages of the tunnel (docs/wire.md, "Tunnel messages"): trains of payloads -> trains of messages, and back. Knows no JavaScript and no
// meaning of types and sessions.
#pragma once

#include <cstddef>
#include <cstdint>

#include "aead.h"
#include "message_counter.h"

namespace faketcp {

/** Type and session. */
constexpr size_t kHeaderBytes = 3;
constexpr size_t kSealBytes = kCounterBytes + kTagBytes;

/** Messages that carry `length` bytes; without a byte one. */
inline size_t MessageCount(size_t length, size_t segment) { return length == 0 ? 1 : (length - 1) / segment + 1; }

class Packer {
 public:
  /** Seals from here on. @returns false where OpenSSL is missing or refuses the cipher */
  bool Open(const AeadKeys& keys);
  void Close();

  size_t overhead() const { return kHeaderBytes + (sealed_ ? kSealBytes : 0); }
  bool HasNumbersFor(size_t messages) const { return !sealed_ || numbers_.Has(messages); }
  uint64_t packed() const { return packed_; }

  /**
   * One message for each `segment` bytes of `in`, one behind the other. There must be numbers for all, and room in `out` for `overhead()` more bytes each.
   *
   * @returns false if OpenSSL fails: nothing of `out` is to be sent
   */
  bool Pack(uint8_t type, uint16_t session, const uint8_t* in, size_t length, size_t segment, uint8_t* out);

 private:
  /** Writes `count` numbers, `first` and so on, into sealed messages that are `stride` bytes apart. */
  bool WriteNumbers(uint8_t* messages, size_t stride, uint64_t first, size_t count);

  Aead aead_;
  CounterMask mask_;
  CounterSource numbers_;
  uint64_t packed_ = 0;
  bool sealed_ = false;
};

class Unpacker {
 public:
  struct Counts {
    uint64_t unpacked;
    uint64_t truncated;
    uint64_t replayed;
    uint64_t forged;
  };

  /** Takes sealed messages only from here on. @returns false where OpenSSL is missing or refuses the cipher */
  bool Open(const AeadKeys& keys);
  void Close();

  const Counts& counts() const { return counts_; }
  /** Bytes at the end of the last train for which no run was left. */
  size_t unread() const { return unread_; }

  /**
   * The train at `offset` of `memory` becomes runs of payloads in the same place.
   *
   * @param runs of RUN_WORDS words each
   * @returns how many of them are filled, at most `capacity`
   */
  size_t Unpack(uint8_t* memory, size_t offset, size_t length, size_t segment, int32_t* runs, size_t capacity);

 private:
  struct Text {
    uint8_t* header;
    size_t payload_size;
  };

  /** @returns how many numbers of the messages at `train` were read */
  size_t ReadNumbers(const uint8_t* train, size_t length, size_t segment, uint64_t* numbers);
  /** False when the message is refused, and counted. */
  bool Admit(uint8_t* message, size_t size, uint64_t number, Text* text);

  Aead aead_;
  CounterMask mask_;
  ReplayWindow window_;
  Counts counts_ = {};
  size_t unread_ = 0;
  bool sealed_ = false;
};

}  // namespace faketcp
