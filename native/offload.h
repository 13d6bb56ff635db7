// What a network interface does to packets before anybody captures them, and after they were sent. Knows interface indexes; nothing of sockets that are open.
#pragma once

#include <cstdint>

namespace faketcp {

/**
 * Whether the interface merges segments in hardware without keeping their sizes (ETH_FLAG_LRO): what the driver then reports as the segment size is an
 * average (mlx5), and a train cannot be split by it. False where nobody knows.
 */
bool LargeReceiveOffload(uint32_t ifindex);

/** OFFLOAD_* bits of what is switched on, as `ethtool -k` shows it, or a negative errno. */
int Offloads(uint32_t ifindex);

}  // namespace faketcp
