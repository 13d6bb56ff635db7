// An impaired link: two tap devices in two network namespaces, and this process in between, which passes frames from one to the other and loses,
// doubles, delays, reorders and slows down as it is told (impair.h). It ends with its standard input.
//
//   impair NAMESPACE DEVICE NAMESPACE DEVICE MTU SEED      paths as in /run/netns; MTU in bytes
//
// Standard input, one command a line; each is answered by one line of JSON, {"ok":true} unless told, {"error":"..."} where it is wrong:
//   set 0|1 KEY=NUMBER ...     0: frames from the first device to the second, 1: the other way. Keys: see Set()
//   rule 0|1 KEY=NUMBER ...    drops TCP segments: mask, value (of the flags), payload (0 any, 1 with, 2 without), skip, count
//   stats                      {"directions":[{"all":{...},"payload":{...}}, ...]}
//
// Why tap devices: a device that was not told to offload anything gets single segments with finished checksums from its kernel, whatever sockets
// sent; what is written to it is received within the write (tun_get_user), so no backlog can lose it unseen; and what this process is too slow to
// read, the device counts as dropped (its transmit queue, txqueuelen frames).
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sstream>
#include <string>
#include <vector>

#include "impair.h"
#include "tun.h"

namespace {

using impair::Counts;
using impair::Direction;
using impair::Pool;
using impair::Rule;

/** Frames that may wait, both directions together: a second of delay at 64 000 a second. */
constexpr size_t kPoolFrames = 1 << 16;
/** Frames read before the other direction has its turn. */
constexpr int kBatch = 64;

uint64_t Now() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000 + static_cast<uint64_t>(time.tv_nsec);
}

/** Returns false for a key that it does not know. */
bool Set(impair::Settings& settings, const std::string& key, double number) {
  if (key == "loss") settings.loss = number;
  else if (key == "duplicate") settings.duplicate = number;
  else if (key == "reorder") settings.reorder = number;
  else if (key == "payloadOnly") settings.payload_only = number != 0;
  else if (key == "delayMs") settings.delay_ns = static_cast<uint64_t>(number * 1e6);
  else if (key == "reorderMs") settings.reorder_ns = static_cast<uint64_t>(number * 1e6);
  else if (key == "bitsPerSecond") settings.rate = number;
  else if (key == "queueBytes") settings.queue_bytes = number;
  else if (key == "burstBytes") settings.burst_bytes = number;
  else return false;
  return true;
}

bool Set(Rule& rule, const std::string& key, double number) {
  if (key == "mask") rule.mask = static_cast<uint8_t>(number);
  else if (key == "value") rule.value = static_cast<uint8_t>(number);
  else if (key == "payload") rule.payload = number == 0 ? Rule::Payload::kAny : number == 1 ? Rule::Payload::kWith : Rule::Payload::kWithout;
  else if (key == "skip") rule.skip = static_cast<uint64_t>(number);
  else if (key == "count") rule.count = static_cast<uint64_t>(number);
  else return false;
  return true;
}

/** Takes in KEY=NUMBER words up to the end of the line; returns what is wrong with them, or nothing. */
template <typename Target>
std::string SetAll(std::istringstream& words, Target& target) {
  for (std::string word; words >> word;) {
    const size_t at = word.find('=');
    if (at == std::string::npos) return "no KEY=NUMBER: " + word;
    char* end = nullptr;
    const double number = strtod(word.c_str() + at + 1, &end);
    if (*end != 0 || end == word.c_str() + at + 1 || !(number >= 0) || !Set(target, word.substr(0, at), number)) return "wrong: " + word;
  }
  return {};
}

void Print(const char* name, const Counts& c) {
  printf("\"%s\":{\"received\":%" PRIu64 ",\"forwarded\":%" PRIu64 ",\"duplicated\":%" PRIu64 ",\"reordered\":%" PRIu64 ",\"waiting\":%" PRIu64
         ",\"dropped\":{\"loss\":%" PRIu64 ",\"rule\":%" PRIu64 ",\"queue\":%" PRIu64 ",\"refused\":%" PRIu64 "}}",
         name, c.received, c.forwarded, c.duplicated, c.reordered, c.waiting, c.lost, c.ruled, c.queue_full, c.refused);
}

/** Answers one command; returns what is wrong with it, or nothing. */
std::string Obey(const std::string& line, Direction (&directions)[2]) {
  std::istringstream words(line);
  std::string verb;
  words >> verb;
  if (verb == "stats") {
    printf("{\"directions\":[{");
    for (int i = 0; i < 2; i++) {
      if (i > 0) printf("},{");
      Print("all", directions[i].all);
      printf(",");
      Print("payload", directions[i].payload);
    }
    printf("}]}\n");
    return {};
  }
  size_t which = 2;
  if (!(words >> which) || which > 1) return "no direction: " + line;
  Direction& direction = directions[which];
  std::string wrong;
  if (verb == "set") {
    impair::Settings settings = direction.settings;
    wrong = SetAll(words, settings);
    if (wrong.empty()) direction.settings = settings;
  } else if (verb == "rule") {
    Rule rule;
    wrong = SetAll(words, rule);
    if (direction.rules.size() == Direction::kMaxRules) wrong = "too many rules";
    if (wrong.empty()) direction.rules.push_back(rule);
  } else {
    wrong = "no such command: " + line;
  }
  if (wrong.empty()) printf("{\"ok\":true}\n");
  return wrong;
}

/** Reads commands; returns false at the end of the input. */
bool Command(std::string& pending, Direction (&directions)[2]) {
  char text[4096];
  const ssize_t bytes = read(STDIN_FILENO, text, sizeof text);
  if (bytes <= 0) return false;
  pending.append(text, static_cast<size_t>(bytes));
  for (size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1)) {
    const std::string wrong = Obey(pending.substr(0, end), directions);
    if (!wrong.empty()) printf("{\"error\":\"%s\"}\n", wrong.c_str());
  }
  fflush(stdout);
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: impair NAMESPACE DEVICE NAMESPACE DEVICE MTU SEED\n");
    return 2;
  }
  const int first = OpenTun(argv[1], argv[2], IFF_TAP);
  const int second = first < 0 ? -1 : OpenTun(argv[3], argv[4], IFF_TAP);
  if (second < 0) {
    perror("impair");
    return 1;
  }
  const size_t frame_bytes = strtoul(argv[5], nullptr, 10) + impair::kEthernet;
  const uint64_t seed = strtoull(argv[6], nullptr, 10);
  const int from[] = {first, second}, to[] = {second, first};
  Direction directions[] = {Direction(2 * seed), Direction(2 * seed + 1)};
  Pool pool(kPoolFrames, frame_bytes);
  std::vector<uint8_t> frame(frame_bytes + 1);
  std::string pending;
  printf("{\"ok\":true}\n");
  fflush(stdout);
  for (;;) {
    const uint64_t due = std::min(directions[0].NextDue(), directions[1].NextDue());
    const uint64_t now = Now();
    const uint64_t wait = due > now ? due - now : 0;
    const timespec limit{static_cast<time_t>(wait / 1000000000), static_cast<long>(wait % 1000000000)};
    pollfd ready[] = {{first, POLLIN, 0}, {second, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    if (ppoll(ready, 3, due == Direction::kNever ? nullptr : &limit, nullptr) < 0 && errno != EINTR) return 1;
    if (ready[2].revents != 0 && !Command(pending, directions)) return 0;
    for (int i = 0; i < 2; i++) {
      const auto send = [&](const uint8_t* bytes, size_t length) { return write(to[i], bytes, length) == static_cast<ssize_t>(length); };
      directions[i].Release(Now(), pool, send);
      if (ready[i].revents == 0) continue;
      for (int n = 0; n < kBatch; n++) {
        const ssize_t length = read(from[i], frame.data(), frame.size());
        if (length <= 0) break;
        // More than the MTU, a train perhaps: a device without offloads is never given one.
        if (static_cast<size_t>(length) > frame_bytes) {
          fprintf(stderr, "impair: a frame of more than %zu bytes\n", frame_bytes);
          return 1;
        }
        directions[i].Offer(frame.data(), static_cast<size_t>(length), Now(), pool, send);
      }
    }
  }
}
