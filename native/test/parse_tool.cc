// Runs the packet parser outside of Node, built with AddressSanitizer and UndefinedBehaviorSanitizer; each input lies in an allocation of exactly
// its size, so that reading one byte too far is an error.
//
//   parse_tool describe                  lines "4|6|tcp4|tcp6 good|verify|partial GSO HEX" -> "VERDICT word word ..."
//   parse_tool fuzz SEED ROUNDS HEX...   mutates the packets that are given; prints how many of each verdict came out
//
// It knows the parser only; test/native/parse.test.ts says what is right.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <vector>

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

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "describe" && argc == 2) return Describe();
  if (mode == "fuzz" && argc > 4) {
    std::vector<Packet> packets;
    for (int i = 4; i < argc; i++) packets.push_back(FromHex(argv[i]));
    return Fuzz(static_cast<unsigned>(atol(argv[2])), atoi(argv[3]), packets);
  }
  fprintf(stderr, "usage: parse_tool describe | parse_tool fuzz SEED ROUNDS HEX...\n");
  return 2;
}
