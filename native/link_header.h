// How many bytes in front of the network header a device reserves in what AF_PACKET sends by it. Knows interface indexes and MTUs; sends nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "layout.h"

namespace faketcp {

/**
 * The kernel takes the network header of a frame to be behind `hard_header_len` bytes, whatever the frame begins with, and tells nobody that number. PPP
 * has 4 though nothing stands there, a VLAN without hardware offload 18, some USB adapters 26 and more. Where the frame has another header, cutting up a
 * train fails after the system call has succeeded, and it is lost without a word (skb_mac_gso_segment).
 *
 * Found by the one thing that depends on it: a frame longer than MTU, reserve and a VLAN tag is refused with EMSGSIZE before its bytes are
 * looked at, and these cannot be read, so a shorter one ends with EFAULT (packet_snd). No frame ever leaves.
 */
class LinkHeaderProbe {
 public:
  LinkHeaderProbe() = default;
  ~LinkHeaderProbe() { Close(); }
  LinkHeaderProbe(const LinkHeaderProbe&) = delete;
  LinkHeaderProbe& operator=(const LinkHeaderProbe&) = delete;

  /** False without CAP_NET_RAW: then it is tried again with each question. */
  bool Open();
  /** As LINK_HEADER of layout.h. */
  int32_t Ask(int32_t ifindex, uint32_t mtu);
  void Close();

 private:
  enum class Answer { kFits, kTooLong, kNone };
  /** Whether a frame of MTU and `header` bytes and one more fits. */
  Answer Fits(int32_t ifindex, uint32_t mtu, int header);

  /** Kept open: closing a packet socket waits for all processors (synchronize_net). */
  int fd_ = -1;
  void* unreadable_ = nullptr;
};

}  // namespace faketcp
