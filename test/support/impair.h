// What an impaired link does to the frames of one direction: which are lost, doubled or delayed, when each leaves, and the account of all of them.
// It makes no system call. All chance comes from a seeded generator that advances only for frames that chance may touch, so the same frames in the
// same order meet the same fate. Memory is bounded: frames that wait lie in a pool of fixed size, and beyond it they are dropped and counted.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <queue>
#include <vector>

namespace impair {

constexpr uint8_t kFin = 0x01, kSyn = 0x02, kRst = 0x04, kAck = 0x10;
constexpr size_t kEthernet = 14;

/** What a frame is, as far as anything here asks. */
struct Kind {
  /** ARP, neighbour discovery and multicast are not: a link without them would be no link, and their times are the kernel's. */
  bool impaired = false;
  bool tcp = false;
  uint8_t flags = 0;
  /** Of a TCP segment. */
  size_t payload = 0;
};

inline uint16_t Word(const uint8_t* at) { return static_cast<uint16_t>(at[0] << 8 | at[1]); }

/** Fragments and IPv6 extension headers are not looked into: such a packet is impaired, but no TCP segment. */
inline Kind Classify(const uint8_t* frame, size_t length) {
  Kind kind;
  if (length < kEthernet || (frame[0] & 1) != 0) return kind;
  const uint16_t type = Word(frame + 12);
  const uint8_t* ip = frame + kEthernet;
  const size_t bytes = length - kEthernet;
  size_t header = 0, total = 0;
  uint8_t protocol = 0;
  if (type == 0x0800 && bytes >= 20) {
    header = static_cast<size_t>(ip[0] & 15) * 4;
    total = Word(ip + 2);
    protocol = (Word(ip + 6) & 0x3fff) == 0 ? ip[9] : 0;
  } else if (type == 0x86dd && bytes >= 40) {
    header = 40;
    total = header + Word(ip + 4);
    protocol = ip[6];
    // RFC 4861: router and neighbour solicitations and advertisements, redirects.
    if (protocol == 58 && bytes > 40 && ip[40] >= 133 && ip[40] <= 137) return kind;
  } else {
    return kind;
  }
  kind.impaired = true;
  if (protocol != 6 || total > bytes || total < header + 20) return kind;
  const size_t tcp_header = static_cast<size_t>(ip[header + 12] >> 4) * 4;
  if (tcp_header < 20 || header + tcp_header > total) return kind;
  kind.tcp = true;
  kind.flags = ip[header + 13];
  kind.payload = total - header - tcp_header;
  return kind;
}

/** Drops TCP segments whose flags under `mask` are `value`: `skip` of them pass first, then `count` are dropped. */
struct Rule {
  enum class Payload { kAny, kWith, kWithout };
  uint8_t mask = 0, value = 0;
  Payload payload = Payload::kAny;
  uint64_t skip = 0, count = 1;

  bool Takes(const Kind& kind) {
    if (!kind.tcp || (kind.flags & mask) != value || count == 0) return false;
    if (payload != Payload::kAny && (payload == Payload::kWith) != (kind.payload > 0)) return false;
    if (skip > 0) {
      skip--;
      return false;
    }
    count--;
    return true;
  }
};

struct Settings {
  /** Probabilities. */
  double loss = 0, duplicate = 0, reorder = 0;
  /** Those concern TCP segments with payload only. Delay and rate are for everything. */
  bool payload_only = false;
  uint64_t delay_ns = 0;
  /** By how much longer a reordered frame takes, so that those behind it overtake. */
  uint64_t reorder_ns = 1000000;
  /** Bits of frames a second; 0: no limit. */
  double rate = 0;
  /** Bytes that wait for their turn at that rate, and bytes that pass at once after a pause. */
  double queue_bytes = 256 << 10, burst_bytes = 16 << 10;
};

/** received + duplicated = forwarded + lost + ruled + queue_full + refused + waiting. */
struct Counts {
  uint64_t received = 0, forwarded = 0, duplicated = 0, reordered = 0;
  /** By chance, by a rule, because the queue or the pool was full, because the device did not take it. */
  uint64_t lost = 0, ruled = 0, queue_full = 0, refused = 0;
  uint64_t waiting = 0;
};

/** Frames that wait, in slots of equal size. */
class Pool {
 public:
  Pool(size_t slots, size_t slot_bytes) : slot_bytes_(slot_bytes), memory_(slots * slot_bytes) {
    free_.reserve(slots);
    for (size_t i = slots; i-- > 0;) free_.push_back(static_cast<uint32_t>(i));
  }
  bool Empty() const { return free_.empty(); }
  uint32_t Take() {
    const uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  void Return(uint32_t slot) { free_.push_back(slot); }
  uint8_t* At(uint32_t slot) { return memory_.data() + slot * slot_bytes_; }

 private:
  size_t slot_bytes_;
  std::vector<uint8_t> memory_;
  std::vector<uint32_t> free_;
};

struct Waiting {
  uint64_t due_ns, order;
  uint32_t slot, length;
  bool has_payload;
  bool operator>(const Waiting& other) const { return due_ns != other.due_ns ? due_ns > other.due_ns : order > other.order; }
};

class Direction {
 public:
  static constexpr size_t kMaxRules = 16;
  Settings settings;
  std::vector<Rule> rules;
  /** Of all frames, and of TCP segments with payload. */
  Counts all, payload;

  explicit Direction(uint64_t seed) : state_(seed) {}

  /** Decides about one frame. `send(bytes, length)` says whether the device took it. */
  template <typename Send>
  void Offer(const uint8_t* frame, size_t length, uint64_t now, Pool& pool, Send send) {
    const Kind kind = Classify(frame, length);
    const bool has_payload = kind.payload > 0;
    Count(&Counts::received, has_payload);
    if (!kind.impaired) return Pass(frame, length, has_payload, send);
    bool ruled = false;
    for (Rule& rule : rules) ruled = rule.Takes(kind) || ruled;
    if (ruled) return Count(&Counts::ruled, has_payload);
    bool again = false, late = false;
    if (!settings.payload_only || has_payload) {
      const bool lost = Chance(settings.loss);
      again = Chance(settings.duplicate);
      late = Chance(settings.reorder);
      if (lost) return Count(&Counts::lost, has_payload);
    }
    if (again) Count(&Counts::duplicated, has_payload);
    if (late) Count(&Counts::reordered, has_payload);
    for (int copy = 0; copy <= (again ? 1 : 0); copy++) {
      uint64_t due = Departure(length, now);
      if (due == kNever) {
        Count(&Counts::queue_full, has_payload);
        continue;
      }
      due += settings.delay_ns + (late ? settings.reorder_ns : 0);
      if (due <= now) {
        Pass(frame, length, has_payload, send);
      } else if (pool.Empty()) {
        Count(&Counts::queue_full, has_payload);
      } else {
        const uint32_t slot = pool.Take();
        std::copy(frame, frame + length, pool.At(slot));
        waiting_.push({due, order_++, slot, static_cast<uint32_t>(length), has_payload});
        Count(&Counts::waiting, has_payload);
      }
    }
  }

  /** Sends what is due. */
  template <typename Send>
  void Release(uint64_t now, Pool& pool, Send send) {
    while (!waiting_.empty() && waiting_.top().due_ns <= now) {
      const Waiting next = waiting_.top();
      waiting_.pop();
      all.waiting--;
      if (next.has_payload) payload.waiting--;
      Pass(pool.At(next.slot), next.length, next.has_payload, send);
      pool.Return(next.slot);
    }
  }

  /** When `Release` has something to do; `kNever` while nothing waits. */
  uint64_t NextDue() const { return waiting_.empty() ? kNever : waiting_.top().due_ns; }

  static constexpr uint64_t kNever = UINT64_MAX;

 private:
  void Count(uint64_t Counts::*what, bool has_payload) {
    (all.*what)++;
    if (has_payload) (payload.*what)++;
  }

  template <typename Send>
  void Pass(const uint8_t* frame, size_t length, bool has_payload, Send send) {
    Count(send(frame, length) ? &Counts::forwarded : &Counts::refused, has_payload);
  }

  /** A token bucket, kept as the time at which it is full again less its depth: when a frame has passed it, `kNever` where the queue is full. */
  uint64_t Departure(size_t length, uint64_t now) {
    if (settings.rate <= 0) return now;
    const double ns_per_byte = 8e9 / settings.rate;
    const double at = static_cast<double>(now);
    const double earliest = at - settings.burst_bytes * ns_per_byte;
    if (busy_until_ < earliest) busy_until_ = earliest;
    if (busy_until_ - at > settings.queue_bytes * ns_per_byte) return kNever;
    busy_until_ += static_cast<double>(length) * ns_per_byte;
    return busy_until_ > at ? static_cast<uint64_t>(busy_until_) : now;
  }

  /** splitmix64. One number is drawn whatever the probability is, so that changing one setting leaves the others' fate as it was. */
  bool Chance(double probability) {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53 < probability;
  }

  uint64_t state_;
  uint64_t order_ = 0;
  double busy_until_ = 0;
  std::priority_queue<Waiting, std::vector<Waiting>, std::greater<Waiting>> waiting_;
};

}  // namespace impair
