// A link without a link layer: two tun devices in two network namespaces, and this process in between, which passes packets from one to the other
// until its standard input ends. Usage: tun_pair NAMESPACE DEVICE NAMESPACE DEVICE (paths as in /run/netns). Prints a line when both are there.
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "tun.h"

namespace {

/** Whatever is there now; what the other end does not take is lost, as on any link. */
void Pass(int from, int to) {
  static char packet[65536];
  for (int i = 0; i < 64; i++) {
    const ssize_t bytes = read(from, packet, sizeof packet);
    if (bytes <= 0) return;
    if (write(to, packet, static_cast<size_t>(bytes)) < 0 && errno != EAGAIN && errno != EIO) return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    fprintf(stderr, "usage: tun_pair NAMESPACE DEVICE NAMESPACE DEVICE\n");
    return 2;
  }
  const int a = OpenTun(argv[1], argv[2], IFF_TUN);
  const int b = a < 0 ? -1 : OpenTun(argv[3], argv[4], IFF_TUN);
  if (b < 0) {
    perror("tun_pair");
    return 1;
  }
  puts("ready");
  fflush(stdout);
  for (;;) {
    pollfd waiting[] = {{a, POLLIN, 0}, {b, POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    if (poll(waiting, 3, -1) < 0 && errno != EINTR) return 1;
    if (waiting[2].revents != 0) return 0;
    if (waiting[0].revents != 0) Pass(a, b);
    if (waiting[1].revents != 0) Pass(b, a);
  }
}
