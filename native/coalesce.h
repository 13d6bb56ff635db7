// Segments that follow each other in sequence, or datagrams in one batch -> one train, where the kernel's GRO has not done it. Pure: works on descriptors and the slab that
// they point into. Knows nothing of sockets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace faketcp {

/**
 * Moves the payload of `next` behind that of `train` and makes one train of both, by the rules of tcp_gro_receive: same flow, in sequence, equal
 * in all header words; segments of equal size, of which only the last may be shorter or carry PSH; no flag but ACK and PSH.
 *
 * @param room bytes of the slab, from `train`'s payload on, that may be written to
 * @returns false, with nothing changed, when they do not belong together
 */
bool Coalesce(int32_t* train, const int32_t* next, uint8_t* slab, size_t room);

/**
 * The same for UDP datagrams, by the rules of udp_gro_receive: same addresses and ports, equal size, only the last may be shorter. Empty ones stay by
 * themselves. A train has at most 65 535 bytes.
 */
bool CoalesceDatagrams(int32_t* train, const int32_t* next, uint8_t* slab, size_t room);

}  // namespace faketcp
