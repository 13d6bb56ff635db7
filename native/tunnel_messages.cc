// The messages of the tunnel; see tunnel_messages.h.
#include "tunnel_messages.h"

#include <algorithm>
#include <cstring>

#include "bytes.h"
#include "layout.h"

namespace faketcp {
namespace {

/** Messages whose masks are made in one call. */
constexpr size_t kBatch = 64;
static_assert(kHeaderBytes + kTagBytes >= kSampleBytes, "the shortest message has a whole sample");

/** Joins a payload to the last run, or begins another where it lies. */
size_t Append(uint8_t* memory, uint8_t* payload, size_t size, uint8_t type, uint16_t session, int32_t* runs, size_t filled) {
  int32_t* run = runs + filled * RUN_WORDS;
  if (filled > 0 && size > 0) {
    // Only the last message of a train can be shorter, so the sizes of a run are right by themselves.
    int32_t* last = run - RUN_WORDS;
    if (last[RUN_TYPE] == type && last[RUN_SESSION] == session) {
      memmove(memory + last[RUN_OFFSET] + last[RUN_LENGTH], payload, size);
      last[RUN_LENGTH] += static_cast<int32_t>(size);
      last[RUN_MESSAGES]++;
      return filled;
    }
  }
  run[RUN_TYPE] = type;
  run[RUN_SESSION] = session;
  run[RUN_OFFSET] = static_cast<int32_t>(payload - memory);
  run[RUN_LENGTH] = run[RUN_SEGMENT] = static_cast<int32_t>(size);
  run[RUN_MESSAGES] = 1;
  return filled + 1;
}

}  // namespace

bool Packer::Open(const AeadKeys& keys) {
  sealed_ = true;
  return aead_.Open(keys, true) && mask_.Open(keys);
}

void Packer::Close() {
  aead_.Close();
  mask_.Close();
}

bool Packer::Pack(uint8_t type, uint16_t session, const uint8_t* in, size_t length, size_t segment, uint8_t* out) {
  const size_t stride = segment + overhead();
  uint8_t* unnumbered = out;
  uint64_t first = 0;
  size_t waiting = 0;
  do {
    const size_t size = std::min(segment, length);
    uint8_t* text = out + (sealed_ ? kCounterBytes : 0);
    text[0] = type;
    text[1] = static_cast<uint8_t>(session >> 8);
    text[2] = static_cast<uint8_t>(session);
    if (size > 0) memcpy(text + kHeaderBytes, in, size);
    in += size;
    length -= size;
    out += size + overhead();
    packed_++;
    if (!sealed_) continue;
    const uint64_t number = numbers_.Take();
    if (waiting == 0) first = number;
    if (!aead_.Seal(number, text, kHeaderBytes + size)) return false;
    if (++waiting < kBatch && length > 0) continue;
    if (!WriteNumbers(unnumbered, stride, first, waiting)) return false;
    unnumbered = out;
    waiting = 0;
  } while (length > 0);
  return true;
}

bool Packer::WriteNumbers(uint8_t* messages, size_t stride, uint64_t first, size_t count) {
  uint8_t masks[kBatch * kSampleBytes] = {};
  for (size_t i = 0; i < count; i++) memcpy(masks + i * kSampleBytes, messages + i * stride + kCounterBytes, kSampleBytes);
  if (!mask_.Apply(masks, count)) return false;
  for (size_t i = 0; i < count; i++) WriteMasked48(messages + i * stride, first + i, masks + i * kSampleBytes);
  return true;
}

bool Unpacker::Open(const AeadKeys& keys) {
  sealed_ = true;
  return aead_.Open(keys, false) && mask_.Open(keys);
}

void Unpacker::Close() {
  aead_.Close();
  mask_.Close();
}

size_t Unpacker::Unpack(uint8_t* memory, size_t offset, size_t length, size_t segment, int32_t* runs, size_t capacity) {
  uint8_t* at = memory + offset;
  uint8_t* const end = at + length;
  uint64_t numbers[kBatch];
  size_t known = 0;
  size_t used = 0;
  size_t filled = 0;
  while (at < end && filled < capacity) {
    if (sealed_ && used == known) {
      known = ReadNumbers(at, static_cast<size_t>(end - at), segment, numbers);
      used = 0;
    }
    const size_t size = std::min(segment, static_cast<size_t>(end - at));
    Text text;
    if (Admit(at, size, sealed_ ? numbers[used++] : 0, &text)) {
      const uint16_t session = static_cast<uint16_t>(Read16(text.header + 1));
      filled = Append(memory, text.header + kHeaderBytes, text.payload_size, text.header[0], session, runs, filled);
    }
    at += size;
  }
  unread_ = static_cast<size_t>(end - at);
  return filled;
}

size_t Unpacker::ReadNumbers(const uint8_t* train, size_t length, size_t segment, uint64_t* numbers) {
  uint8_t masks[kBatch * kSampleBytes] = {};
  const size_t count = std::min(kBatch, MessageCount(length, segment));
  // Only the last can be too short for a sample; it is refused, whatever its number.
  const auto whole = [&](size_t i) { return std::min(segment, length - i * segment) >= kCounterBytes + kSampleBytes; };
  for (size_t i = 0; i < count && whole(i); i++) memcpy(masks + i * kSampleBytes, train + i * segment + kCounterBytes, kSampleBytes);
  // Should OpenSSL fail, the numbers are wrong, and no message is authentic under a wrong number.
  mask_.Apply(masks, count);
  for (size_t i = 0; i < count && whole(i); i++) numbers[i] = ReadMasked48(train + i * segment, masks + i * kSampleBytes);
  return count;
}

bool Unpacker::Admit(uint8_t* message, size_t size, uint64_t number, Text* text) {
  const size_t overhead = kHeaderBytes + (sealed_ ? kSealBytes : 0);
  if (size < overhead) {
    counts_.truncated++;
    return false;
  }
  *text = {message, size - overhead};
  if (sealed_) {
    if (!window_.Accepts(number)) {
      counts_.replayed++;
      return false;
    }
    text->header += kCounterBytes;
    if (!aead_.Unseal(number, text->header, kHeaderBytes + text->payload_size)) {
      counts_.forged++;
      return false;
    }
    window_.Mark(number);
  }
  counts_.unpacked++;
  return true;
}

}  // namespace faketcp
