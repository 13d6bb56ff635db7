// Tun and tap devices for processes that stand between two hosts.
#pragma once

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstring>

/**
 * Makes a device in a network namespace (a path as in /run/netns), where it stays (tun_chr_open), and leaves the thread there. `kind` is IFF_TUN or IFF_TAP.
 * -1 with errno.
 */
inline int OpenTun(const char* netns, const char* name, short kind) {
  const int space = open(netns, O_RDONLY | O_CLOEXEC);
  if (space < 0 || setns(space, CLONE_NEWNET) != 0) return -1;
  close(space);
  const int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return -1;
  ifreq request{};
  request.ifr_flags = static_cast<short>(kind | IFF_NO_PI);
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  return ioctl(fd, TUNSETIFF, &request) == 0 ? fd : -1;
}
