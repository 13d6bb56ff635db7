// Both ends of a counter that no two messages share: who gives the numbers, and who remembers which have come. Pure.
#pragma once

#include <cstddef>
#include <cstdint>

namespace faketcp {

constexpr size_t kCounterBytes = 6;
constexpr uint64_t kCounterEnd = uint64_t{1} << (8 * kCounterBytes);

/** Numbers from 0 on, each given once: a nonce that came twice would give the plaintext away. */
class CounterSource {
 public:
  explicit CounterSource(uint64_t next = 0) : next_(next) {}
  bool Has(uint64_t count) const { return count <= kCounterEnd - next_; }
  uint64_t Take() { return next_++; }

 private:
  uint64_t next_;
};

/** Which of the newest numbers have come: the ring of bits of RFC 6479, of WireGuard's size. */
class ReplayWindow {
 public:
  /** Whether the number is new and not too old. */
  bool Accepts(uint64_t counter) const {
    if (counter >= end_) return true;
    return end_ - counter <= kWindow && (words_[counter / 64 % kWords] >> counter % 64 & 1) == 0;
  }

  /** Only of a number that is accepted, and that was proved. */
  void Mark(uint64_t counter) {
    if (counter >= end_) {
      // Words between the newest and this one are reused: whatever they say is of numbers that are too old by now.
      const uint64_t old = end_ == 0 ? 0 : (end_ - 1) / 64;
      const uint64_t now = counter / 64;
      const uint64_t fresh = now - old < kWords ? now - old : kWords;
      for (uint64_t i = 0; i < fresh; i++) words_[(now - i) % kWords] = 0;
      end_ = counter + 1;
    }
    words_[counter / 64 % kWords] |= uint64_t{1} << counter % 64;
  }

 private:
  static constexpr uint64_t kWords = 128;
  /** Not the whole ring: the newest word is partly of numbers that are still to come. */
  static constexpr uint64_t kWindow = (kWords - 1) * 64;

  uint64_t words_[kWords] = {};
  /** One past the highest that has come. */
  uint64_t end_ = 0;
};

}  // namespace faketcp
