// A blind attacker: sends TCP segments that claim to come from somebody else, with sequence numbers, acknowledgements and timestamps drawn from ranges.
//
//   spoof SOURCES SOURCE PORT DESTINATION PORT RATE SEED
//
// SOURCES > 1: that many addresses from SOURCE on, then the next port, from PORT on: a flood of strangers, each with one packet. RATE is in packets a second. It reads lines
//
//   COUNT FLAGS SEQ SPAN ACK SPAN TIMESTAMPS PAYLOAD
//
// and answers each with the number of packets sent. A SPAN of 0 is all of 2^32. TIMESTAMPS 1 adds the option with random values. PAYLOAD is in bytes, made
// of "SPOOFED!". Needs CAP_NET_RAW. It knows nothing of the addon but its checksums.
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "../checksum.h"

namespace {

constexpr size_t kBatch = 32;
constexpr size_t kMaxPayload = 1400;
constexpr size_t kMaxPacket = sizeof(ip6_hdr) + sizeof(tcphdr) + 12 + kMaxPayload;
constexpr char kMarker[] = "SPOOFED!";

struct Range {
  uint32_t base = 0;
  uint32_t span = 0;

  uint32_t Draw(std::mt19937& random) const { return base + (span == 0 ? random() : random() % span); }
};

struct Order {
  uint64_t count = 0;
  unsigned flags = 0;
  Range seq, ack;
  unsigned timestamps = 0;
  size_t payload = 0;
};

struct Address {
  bool v6 = false;
  /** As faketcp::PseudoHeaderSum takes it: host order, IPv4 in the last. */
  uint32_t words[4] = {};

  bool Parse(const char* text) {
    v6 = strchr(text, ':') != nullptr;
    uint32_t wire[4] = {};
    if (inet_pton(v6 ? AF_INET6 : AF_INET, text, v6 ? wire : wire + 3) != 1) return false;
    for (int i = 0; i < 4; i++) words[i] = ntohl(wire[i]);
    return true;
  }

  void Write(void* to) const {
    uint32_t wire[4];
    for (int i = 0; i < 4; i++) wire[i] = htonl(words[i]);
    memcpy(to, v6 ? wire : wire + 3, v6 ? 16 : 4);
  }
};

class Attacker {
 public:
  Attacker(uint32_t sources, const Address& source, uint16_t source_port, const Address& destination, uint16_t port, double rate, uint32_t seed)
      : sources_(sources), source_(source), source_port_(source_port), destination_(destination), port_(port), rate_(rate), random_(seed) {}

  bool Open() {
    // IPPROTO_RAW: the IP header is ours (raw(7)), whatever source it names.
    fd_ = socket(source_.v6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);
    if (fd_ < 0) return false;
    if (source_.v6) {
      auto* to = reinterpret_cast<sockaddr_in6*>(&to_);
      to->sin6_family = AF_INET6;
      destination_.Write(&to->sin6_addr);
      to_size_ = sizeof *to;
    } else {
      auto* to = reinterpret_cast<sockaddr_in*>(&to_);
      to->sin_family = AF_INET;
      destination_.Write(&to->sin_addr);
      to_size_ = sizeof *to;
    }
    return true;
  }

  /** @returns how many were sent; fewer than asked for only after an error, which is in errno */
  uint64_t Send(const Order& order) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    uint64_t sent = 0;
    while (sent < order.count) {
      const size_t wanted = std::min<uint64_t>(kBatch, order.count - sent);
      mmsghdr messages[kBatch] = {};
      iovec parts[kBatch];
      for (size_t i = 0; i < wanted; i++) {
        parts[i] = {packets_[i], Write(packets_[i], order)};
        messages[i].msg_hdr.msg_name = &to_;
        messages[i].msg_hdr.msg_namelen = to_size_;
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
      }
      const int done = sendmmsg(fd_, messages, wanted, 0);
      if (done <= 0) return sent;
      sent += done;
      std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(sent / rate_)));
    }
    return sent;
  }

 private:
  size_t Write(uint8_t* packet, const Order& order) {
    const size_t ip_size = source_.v6 ? sizeof(ip6_hdr) : sizeof(iphdr);
    const size_t tcp_size = sizeof(tcphdr) + (order.timestamps ? 12 : 0);
    const size_t length = tcp_size + order.payload;
    Address source = source_;
    uint16_t source_port = source_port_;
    if (sources_ > 1) {
      source.words[3] += strangers_ % sources_;
      source_port = static_cast<uint16_t>(source_port_ + strangers_ / sources_);
      strangers_++;
    }
    memset(packet, 0, ip_size + tcp_size);
    uint8_t* tcp = packet + ip_size;
    tcphdr header{};
    header.source = htons(source_port);
    header.dest = htons(port_);
    header.seq = htonl(order.seq.Draw(random_));
    header.ack_seq = htonl(order.ack.Draw(random_));
    header.doff = tcp_size / 4;
    header.window = htons(4096);
    memcpy(tcp, &header, sizeof header);
    tcp[13] = static_cast<uint8_t>(order.flags);
    if (order.timestamps) {
      const uint32_t values[2] = {static_cast<uint32_t>(random_()), static_cast<uint32_t>(random_())};
      const uint8_t option[4] = {1, 1, 8, 10};
      memcpy(tcp + sizeof header, option, sizeof option);
      memcpy(tcp + sizeof header + 4, values, sizeof values);
    }
    for (size_t i = 0; i < order.payload; i++) tcp[tcp_size + i] = kMarker[i % (sizeof kMarker - 1)];
    const uint64_t sum = faketcp::PseudoHeaderSum(source_.v6, source.words, destination_.words, length) + faketcp::Sum(tcp, length);
    const uint16_t checksum = static_cast<uint16_t>(~faketcp::Fold(sum));
    memcpy(tcp + 16, &checksum, sizeof checksum);
    if (source_.v6) {
      ip6_hdr ip{};
      ip.ip6_flow = htonl(6u << 28);
      ip.ip6_plen = htons(length);
      ip.ip6_nxt = IPPROTO_TCP;
      ip.ip6_hlim = 64;
      source.Write(&ip.ip6_src);
      destination_.Write(&ip.ip6_dst);
      memcpy(packet, &ip, sizeof ip);
    } else {
      // The kernel fills in length and checksum (raw(7), IP_HDRINCL).
      iphdr ip{};
      ip.version = 4;
      ip.ihl = 5;
      ip.frag_off = htons(IP_DF);
      ip.ttl = 64;
      ip.protocol = IPPROTO_TCP;
      source.Write(&ip.saddr);
      destination_.Write(&ip.daddr);
      memcpy(packet, &ip, sizeof ip);
    }
    return ip_size + length;
  }

  const uint32_t sources_;
  const Address source_;
  const uint16_t source_port_;
  const Address destination_;
  const uint16_t port_;
  const double rate_;
  std::mt19937 random_;
  uint32_t strangers_ = 0;
  int fd_ = -1;
  sockaddr_storage to_{};
  socklen_t to_size_ = 0;
  uint8_t packets_[kBatch][kMaxPacket];
};

}  // namespace

int main(int argc, char** argv) {
  Address source, destination;
  if (argc != 8 || !source.Parse(argv[2]) || !destination.Parse(argv[4]) || source.v6 != destination.v6) {
    return fprintf(stderr, "usage: spoof SOURCES SOURCE PORT DESTINATION PORT RATE SEED\n"), 2;
  }
  const auto number = [&](int i) { return static_cast<uint32_t>(std::stoul(argv[i])); };
  static Attacker attacker(number(1), source, static_cast<uint16_t>(number(3)), destination, static_cast<uint16_t>(number(5)), number(6), number(7));
  if (!attacker.Open()) return perror("socket"), 1;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream fields(line);
    Order order;
    fields >> order.count >> order.flags >> order.seq.base >> order.seq.span >> order.ack.base >> order.ack.span >> order.timestamps >> order.payload;
    if (!fields || order.payload > kMaxPayload) return fprintf(stderr, "not an order: %s\n", line.c_str()), 2;
    errno = 0;
    const uint64_t sent = attacker.Send(order);
    if (sent < order.count) perror("sendmmsg");
    std::cout << sent << std::endl;
  }
  return 0;
}
