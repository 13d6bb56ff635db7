// What a network interface does to packets before anybody captures them; see offload.h.
#include "offload.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "layout.h"

namespace faketcp {

namespace {

/** Asks an interface by name the questions of ethtool that are answered by one word. They need no capability. */
class Ethtool {
 public:
  explicit Ethtool(uint32_t ifindex) {
    if (if_indextoname(ifindex, request_.ifr_name) == nullptr) return;
    fd_ = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  }
  Ethtool(const Ethtool&) = delete;
  Ethtool& operator=(const Ethtool&) = delete;
  ~Ethtool() {
    if (fd_ >= 0) close(fd_);
  }

  /** False, with errno set, where nobody knows. */
  bool Ask(uint32_t command, uint32_t* answer) {
    ethtool_value value{};
    value.cmd = command;
    request_.ifr_data = reinterpret_cast<char*>(&value);
    if (fd_ < 0 || ioctl(fd_, SIOCETHTOOL, &request_) != 0) return false;
    *answer = value.data;
    return true;
  }

 private:
  ifreq request_{};
  int fd_ = -1;
};

}  // namespace

bool LargeReceiveOffload(uint32_t ifindex) {
  uint32_t flags = 0;
  return Ethtool(ifindex).Ask(ETHTOOL_GFLAGS, &flags) && (flags & ETH_FLAG_LRO) != 0;
}

int Offloads(uint32_t ifindex) {
  struct Question {
    uint32_t command;
    uint32_t mask;
    int bit;
  };
  constexpr Question kQuestions[] = {
      {ETHTOOL_GTSO, ~0u, OFFLOAD_TSO},
      {ETHTOOL_GGSO, ~0u, OFFLOAD_GSO},
      {ETHTOOL_GGRO, ~0u, OFFLOAD_GRO},
      {ETHTOOL_GFLAGS, ETH_FLAG_LRO, OFFLOAD_LRO},
  };
  errno = 0;
  Ethtool ethtool(ifindex);
  int bits = 0;
  for (const Question& question : kQuestions) {
    uint32_t answer = 0;
    if (!ethtool.Ask(question.command, &answer)) return errno == 0 ? -ENODEV : -errno;
    if ((answer & question.mask) != 0) bits |= question.bit;
  }
  return bits;
}

}  // namespace faketcp
