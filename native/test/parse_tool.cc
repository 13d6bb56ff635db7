// Runs the packet parser and what puts segments together outside of Node, built with AddressSanitizer and UndefinedBehaviorSanitizer; each input
// lies in an allocation of exactly its size, so that reading one byte too far is an error.
//
//   parse_tool describe                   lines "4|6|tcp4|tcp6 good|verify|partial GSO HEX" -> "VERDICT word word ..."
//   parse_tool fuzz SEED ROUNDS HEX...    mutates the packets that are given; prints how many of each verdict came out
//   parse_tool gather SLOT_BYTES          lines "4|6 GSO IFINDEX MAC_HIGH MAC_LOW VLAN HEX", batches ended by "."; answers each batch by one line
//                                         "word word ... HEX" for each train, and "."
//   parse_tool mingle SEED ROUNDS HEX...  mutates runs of the TCP segments that are given and puts them together; prints how many were
//
// It knows parser and Coalesce only; test/native/parse.test.ts and coalesce.test.ts say what is right.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../coalesce.h"
#include "../parse.h"

using namespace faketcp;

namespace {

using Packet = std::vector<uint8_t>;

Packet FromHex(const std::string& hex) {
  Packet bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

const char* NameOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kAccepted: return "accepted";
    case Verdict::kTruncated: return "truncated";
    case Verdict::kHeader: return "header";
    case Verdict::kChecksum: return "checksum";
    case Verdict::kFragment: return "fragment";
    case Verdict::kForeign: return "foreign";
  }
  return "unknown";
}

/** Packets in the slots of a slab, as a capture has them; the last slot ends where the allocation ends. */
struct Slab {
  Slab(size_t slots, size_t slot_bytes) : bytes(new uint8_t[slots * slot_bytes]()), slot_bytes(slot_bytes) {}
  uint8_t* Slot(size_t i) const { return bytes.get() + i * slot_bytes; }
  size_t RoomOf(int32_t offset) const { return slot_bytes - static_cast<size_t>(offset) % slot_bytes; }
  std::unique_ptr<uint8_t[]> bytes;
  size_t slot_bytes;
};

using Train = std::vector<int32_t>;

/** Appends a packet's descriptor, or puts it behind the last train: what Capture::Describe does. */
void Gather(const Slab& slab, Train next, std::vector<Train>* trains) {
  if (!trains->empty()) {
    Train& last = trains->back();
    if (Coalesce(last.data(), next.data(), slab.bytes.get(), slab.RoomOf(last[D_OFFSET]))) return;
  }
  trains->push_back(std::move(next));
}

Verdict Parse(const std::string& kind, const Packet& packet, const PacketMeta& meta, int32_t* descriptor) {
  // new[] of the exact size: a std::vector's spare capacity would hide an over-read.
  const std::unique_ptr<uint8_t[]> exact(new uint8_t[packet.size()]);
  if (!packet.empty()) memcpy(exact.get(), packet.data(), packet.size());
  constexpr uint32_t kOffset = 1000;
  if (kind == "4") return ParseIpv4(exact.get(), packet.size(), kOffset, meta, descriptor);
  if (kind == "6") return ParseIpv6(exact.get(), packet.size(), kOffset, meta, descriptor);
  IpHeader ip{};
  ip.v6 = kind == "tcp6";
  if (!ip.v6) ip.source[2] = ip.destination[2] = 0xffff;
  return ParseTcp(ip, exact.get(), packet.size(), kOffset, meta, descriptor);
}

int Describe() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream fields(line);
    std::string kind, checksum, hex;
    PacketMeta meta;
    fields >> kind >> checksum >> meta.gso_size >> hex;
    meta.checksum = checksum == "good" ? Checksum::kKnownGood : checksum == "partial" ? Checksum::kVerifyOrPartial : Checksum::kVerify;
    int32_t descriptor[D_WORDS] = {};
    printf("%s", NameOf(Parse(kind, FromHex(hex), meta, descriptor)));
    for (const int32_t word : descriptor) printf(" %d", word);
    printf("\n");
  }
  return 0;
}

int GatherBatches(size_t slot_bytes) {
  std::string line;
  std::vector<std::string> batch;
  while (std::getline(std::cin, line)) {
    if (line != ".") {
      batch.push_back(line);
      continue;
    }
    const Slab slab(batch.size(), slot_bytes);
    std::vector<Train> trains;
    for (size_t i = 0; i < batch.size(); i++) {
      std::istringstream fields(batch[i]);
      std::string kind, hex;
      PacketMeta meta;
      meta.checksum = Checksum::kKnownGood;
      fields >> kind >> meta.gso_size >> meta.ifindex >> meta.mac_high >> meta.mac_low >> meta.vlan >> hex;
      const Packet packet = FromHex(hex);
      if (packet.empty() || packet.size() > slot_bytes) return fprintf(stderr, "%zu bytes do not fit a slot\n", packet.size()), 2;
      memcpy(slab.Slot(i), packet.data(), packet.size());
      Train next(D_WORDS);
      const auto parse = kind == "6" ? ParseIpv6 : ParseIpv4;
      const Verdict verdict = parse(slab.Slot(i), packet.size(), static_cast<uint32_t>(i * slot_bytes), meta, next.data());
      if (verdict != Verdict::kAccepted) return fprintf(stderr, "packet %zu: %s\n", i, NameOf(verdict)), 2;
      Gather(slab, std::move(next), &trains);
    }
    for (const Train& train : trains) {
      for (const int32_t word : train) printf("%d ", word);
      for (int32_t i = 0; i < train[D_LENGTH]; i++) printf("%02x", slab.bytes[static_cast<size_t>(train[D_OFFSET] + i)]);
      printf("\n");
    }
    printf(".\n");
    batch.clear();
  }
  return 0;
}

void Mutate(std::mt19937& random, Packet* packet) {
  const auto below = [&random](size_t limit) { return limit == 0 ? 0 : random() % limit; };
  for (size_t changes = 1 + below(6); changes > 0 && !packet->empty(); changes--) {
    // Most changes go where the headers are.
    const size_t at = below(4) == 0 ? below(packet->size()) : below(packet->size() < 100 ? packet->size() : 100);
    switch (below(5)) {
      case 0: (*packet)[at] ^= static_cast<uint8_t>(1u << below(8)); break;
      case 1: (*packet)[at] = static_cast<uint8_t>(random()); break;
      case 2: (*packet)[at] = below(2) ? 0xff : 0; break;
      case 3: packet->resize(at); break;
      default: packet->insert(packet->begin() + static_cast<std::ptrdiff_t>(at), static_cast<uint8_t>(random())); break;
    }
  }
}

/** What an accepted descriptor promises: the payload lies inside the packet and its segments are not larger than it. */
bool Sound(const Packet& packet, const int32_t* d) {
  const int64_t start = static_cast<int64_t>(d[D_OFFSET]) - 1000;
  return start >= 20 && d[D_LENGTH] >= 0 && start + d[D_LENGTH] <= static_cast<int64_t>(packet.size()) && d[D_SEGMENT] >= 0 &&
         d[D_SEGMENT] <= d[D_LENGTH] && (d[D_LENGTH] == 0) == (d[D_SEGMENT] == 0);
}

int Fuzz(unsigned seed, int rounds, const std::vector<Packet>& packets) {
  std::mt19937 random(seed);
  int verdicts[6] = {};
  for (int i = 0; i < rounds; i++) {
    Packet packet = packets[random() % packets.size()];
    Mutate(random, &packet);
    const char* kinds[] = {"4", "6", "tcp4", "tcp6"};
    const std::string kind = packet.empty() || random() % 4 == 0 ? kinds[random() % 4] : packet[0] >> 4 == 6 ? "6" : "4";
    PacketMeta meta;
    meta.checksum = static_cast<Checksum>(random() % 3);
    meta.gso_size = random() % 2 ? random() % 3000 : 0;
    int32_t descriptor[D_WORDS] = {};
    const Verdict verdict = Parse(kind, packet, meta, descriptor);
    verdicts[static_cast<int32_t>(verdict) + 1]++;
    if (verdict == Verdict::kAccepted && !Sound(packet, descriptor)) {
      printf("round %d: an accepted packet of %zu bytes has its payload at %d, %d bytes, segments of %d\n", i, packet.size(),
             descriptor[D_OFFSET] - 1000, descriptor[D_LENGTH], descriptor[D_SEGMENT]);
      return 1;
    }
  }
  for (int i = 0; i < 6; i++) printf("%s %d\n", NameOf(static_cast<Verdict>(i - 1)), verdicts[i]);
  return 0;
}

/** Sequence number and payload of each message of a train: what putting together must not change. */
void AppendMessages(const Slab& slab, const int32_t* d, std::vector<std::pair<uint32_t, Packet>>* messages) {
  const uint8_t* payload = slab.bytes.get() + d[D_OFFSET];
  for (int32_t at = 0; at < d[D_LENGTH]; at += d[D_SEGMENT]) {
    const int32_t end = at + d[D_SEGMENT] < d[D_LENGTH] ? at + d[D_SEGMENT] : d[D_LENGTH];
    messages->emplace_back(static_cast<uint32_t>(d[D_SEQ]) + static_cast<uint32_t>(at), Packet(payload + at, payload + end));
  }
}

/** The segment that would follow: the sequence number goes on, sometimes with less payload. */
void Continue(std::mt19937& random, const int32_t* previous, Packet* segment) {
  if (segment->size() < 20) return;
  const uint32_t seq = static_cast<uint32_t>(previous[D_SEQ]) + static_cast<uint32_t>(previous[D_LENGTH]);
  for (size_t i = 0; i < 4; i++) (*segment)[4 + i] = static_cast<uint8_t>(seq >> (24 - 8 * i));
  const size_t header = static_cast<size_t>((*segment)[12] >> 4) * 4;
  if (random() % 4 == 0 && header < segment->size()) segment->resize(segment->size() - random() % (segment->size() - header));
  if (random() % 4 == 0) (*segment)[13] ^= PSH;
}

int Mingle(unsigned seed, int rounds, const std::vector<Packet>& seeds) {
  std::mt19937 random(seed);
  size_t most = 0;
  for (const Packet& packet : seeds) most = packet.size() > most ? packet.size() : most;
  int packets = 0;
  int merged = 0;
  for (int round = 0; round < rounds; round++) {
    const size_t slots = 2 + random() % 7;
    const Slab slab(slots, most + random() % (4 * most));
    std::vector<Train> trains;
    std::vector<std::pair<uint32_t, Packet>> before;
    Packet segment = seeds[random() % seeds.size()];
    for (size_t i = 0; i < slots; i++) {
      if (random() % 8 == 0) segment = seeds[random() % seeds.size()];
      if (!trains.empty() && random() % 8 != 0) Continue(random, trains.back().data(), &segment);
      if (random() % 8 == 0) Mutate(random, &segment);
      if (segment.size() > slab.slot_bytes) segment.resize(slab.slot_bytes);
      if (!segment.empty()) memcpy(slab.Slot(i), segment.data(), segment.size());
      IpHeader ip{};
      ip.v6 = true;
      PacketMeta meta;
      meta.checksum = Checksum::kKnownGood;
      const size_t payload = segment.size() > 20 ? segment.size() - 20 : 1;
      meta.gso_size = random() % 4 == 0 ? static_cast<uint32_t>(1 + random() % payload) : 0;
      Train next(D_WORDS);
      if (ParseTcp(ip, slab.Slot(i), segment.size(), static_cast<uint32_t>(i * slab.slot_bytes), meta, next.data()) != Verdict::kAccepted) continue;
      AppendMessages(slab, next.data(), &before);
      const size_t count = trains.size();
      Gather(slab, std::move(next), &trains);
      packets++;
      if (trains.size() == count) merged++;
    }
    std::vector<std::pair<uint32_t, Packet>> after;
    for (const Train& train : trains) {
      if (static_cast<size_t>(train[D_LENGTH]) > slab.RoomOf(train[D_OFFSET])) return printf("round %d: a train leaves its slot\n", round), 1;
      AppendMessages(slab, train.data(), &after);
    }
    if (before != after) return printf("round %d: %zu messages became %zu, or others\n", round, before.size(), after.size()), 1;
  }
  printf("packets %d\nmerged %d\n", packets, merged);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "describe" && argc == 2) return Describe();
  if (mode == "gather" && argc == 3) return GatherBatches(static_cast<size_t>(atol(argv[2])));
  if ((mode == "fuzz" || mode == "mingle") && argc > 4) {
    std::vector<Packet> packets;
    for (int i = 4; i < argc; i++) packets.push_back(FromHex(argv[i]));
    return (mode == "fuzz" ? Fuzz : Mingle)(static_cast<unsigned>(atol(argv[2])), atoi(argv[3]), packets);
  }
  fprintf(stderr, "usage: parse_tool describe | fuzz SEED ROUNDS HEX... | gather SLOT_BYTES | mingle SEED ROUNDS HEX...\n");
  return 2;
}
