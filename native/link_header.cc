// How many bytes a device reserves in front of the network header; see link_header.h.
#include "link_header.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

namespace faketcp {
namespace {

constexpr size_t kPage = 4096;
/** packet_snd lets frames be longer by a tag. */
constexpr size_t kVlanTag = 4;
constexpr uint32_t kMaxMtu = 1 << 20;

}  // namespace

bool LinkHeaderProbe::Open() {
  if (unreadable_ == nullptr) {
    void* page = mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return false;
    unreadable_ = page;
  }
  if (fd_ < 0) fd_ = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd_ >= 0;
}

LinkHeaderProbe::Answer LinkHeaderProbe::Fits(int32_t ifindex, uint32_t mtu, int header) {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(ETH_P_IP);
  to.sll_ifindex = ifindex;
  iovec frame = {unreadable_, mtu + static_cast<size_t>(header) + kVlanTag + 1};
  msghdr message{};
  message.msg_name = &to;
  message.msg_namelen = sizeof to;
  message.msg_iov = &frame;
  message.msg_iovlen = 1;
  if (sendmsg(fd_, &message, MSG_DONTWAIT) >= 0) return Answer::kNone;
  return errno == EFAULT ? Answer::kFits : errno == EMSGSIZE ? Answer::kTooLong : Answer::kNone;
}

int32_t LinkHeaderProbe::Ask(int32_t ifindex, uint32_t mtu) {
  if (ifindex <= 0 || mtu > kMaxMtu || !Open()) return LINK_HEADER_UNKNOWN;
  const Answer none = Fits(ifindex, mtu, 0);
  if (none != Answer::kFits) return none == Answer::kTooLong ? 0 : LINK_HEADER_UNKNOWN;
  const Answer less = Fits(ifindex, mtu, ETH_HLEN - 1);
  const Answer same = Fits(ifindex, mtu, ETH_HLEN);
  if (less == Answer::kNone || same == Answer::kNone) return LINK_HEADER_UNKNOWN;
  return less == Answer::kFits && same == Answer::kTooLong ? ETH_HLEN : LINK_HEADER_OTHER;
}

void LinkHeaderProbe::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
  if (unreadable_ != nullptr) munmap(unreadable_, kPage);
  unreadable_ = nullptr;
}

}  // namespace faketcp
