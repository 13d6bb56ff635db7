// What a network interface does to packets before anybody captures them; see offload.h.
#include "offload.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace faketcp {

bool LargeReceiveOffload(uint32_t ifindex) {
  ifreq request{};
  if (if_indextoname(ifindex, request.ifr_name) == nullptr) return false;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  ethtool_value flags{};
  flags.cmd = ETHTOOL_GFLAGS;
  request.ifr_data = reinterpret_cast<char*>(&flags);
  const bool known = ioctl(fd, SIOCETHTOOL, &request) == 0;
  close(fd);
  return known && (flags.data & ETH_FLAG_LRO) != 0;
}

}  // namespace faketcp
