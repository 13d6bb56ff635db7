// Puts any packet in front of a host, and shows what the host sends: makes a tun or tap device in the network namespace that it runs in and writes
// to it what it reads.
//
//   inject tun|tap NAME [TYPE]     "ready" once the device is up, then lines "GSO_SIZE FLAGS HEX", answered by "ok" or the error; "read" is answered
//                                  by the HEX of the next packet that the host sends, as a device without offloads is given it, or "none" after 5 s
//
// TYPE makes the kernel take it for a device of that ARPHRD_* type.
// HEX is an IP packet (tun) or an Ethernet frame (tap). GSO_SIZE > 0 makes it a TCP train: virtio GSO type by IP version. FLAGS are virtio's.
// The device goes with the process. It knows nothing of the addon.
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct VirtioNetHeader {
  uint8_t flags, gso_type;
  uint16_t hdr_len, gso_size, csum_start, csum_offset;
};

int Fail(const char* what) {
  perror(what);
  return 1;
}

int Open(const char* kind, const char* name, const char* type) {
  const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  ifreq request{};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  request.ifr_flags = static_cast<short>((strcmp(kind, "tun") == 0 ? IFF_TUN : IFF_TAP) | IFF_NO_PI | IFF_VNET_HDR);
  if (ioctl(fd, TUNSETIFF, &request) != 0) return -1;
  // Possible only while the device is down.
  if (type != nullptr && ioctl(fd, TUNSETLINK, std::stoul(type)) != 0) return -1;
  const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  request.ifr_flags = IFF_UP;
  const int result = control < 0 ? -1 : ioctl(control, SIOCSIFFLAGS, &request);
  close(control);
  return result == 0 ? fd : -1;
}

/** Puts the offload header where the kernel wants it: after the link and IP headers, at the TCP checksum. */
VirtioNetHeader Describe(const std::vector<uint8_t>& packet, size_t link, unsigned gso_size, unsigned flags) {
  VirtioNetHeader header{};
  header.flags = static_cast<uint8_t>(flags);
  if (packet.size() < link + 40) return header;
  const bool v6 = packet[link] >> 4 == 6;
  const size_t tcp = link + (v6 ? 40 : (packet[link] & 15) * 4u);
  if (flags & 1) {
    header.csum_start = static_cast<uint16_t>(tcp);
    header.csum_offset = 16;
  }
  if (gso_size > 0) {
    header.gso_type = v6 ? 4 : 1;
    header.gso_size = static_cast<uint16_t>(gso_size);
    header.hdr_len = static_cast<uint16_t>(tcp + (packet[tcp + 12] >> 4) * 4u);
  }
  return header;
}

void PrintNext(int fd) {
  uint8_t packet[sizeof(VirtioNetHeader) + 65536];
  pollfd readable{fd, POLLIN, 0};
  const ssize_t size = poll(&readable, 1, 5000) == 1 ? read(fd, packet, sizeof packet) : 0;
  std::string hex;
  for (ssize_t i = sizeof(VirtioNetHeader); i < size; i++) {
    char digits[3];
    snprintf(digits, sizeof digits, "%02x", packet[i]);
    hex += digits;
  }
  std::cout << (hex.empty() ? "none" : hex) << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return fprintf(stderr, "usage: inject tun|tap NAME [TYPE]\n"), 2;
  const int fd = Open(argv[1], argv[2], argc == 4 ? argv[3] : nullptr);
  if (fd < 0) return Fail("tun");
  std::cout << "ready" << std::endl;
  std::string line;
  while (std::getline(std::cin, line)) {
    if (line == "read") {
      PrintNext(fd);
      continue;
    }
    std::istringstream fields(line);
    unsigned gso_size = 0, flags = 0;
    std::string hex;
    fields >> gso_size >> flags >> hex;
    std::vector<uint8_t> packet;
    for (size_t i = 0; i + 1 < hex.size(); i += 2) packet.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
    const VirtioNetHeader header = Describe(packet, strcmp(argv[1], "tap") == 0 ? 14 : 0, gso_size, flags);
    std::vector<uint8_t> out(sizeof header);
    memcpy(out.data(), &header, sizeof header);
    out.insert(out.end(), packet.begin(), packet.end());
    const ssize_t written = write(fd, out.data(), out.size());
    std::cout << (written == static_cast<ssize_t>(out.size()) ? "ok" : strerror(errno)) << std::endl;
  }
  return 0;
}
