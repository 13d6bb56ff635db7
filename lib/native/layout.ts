// The words that cross the boundary between the addon and TypeScript: one descriptor for each train, in both directions.
// native/layout.h holds the same numbers; the addon exports its copy and a test compares them.

/**
 * Nine words name a flow. Addresses are 16 bytes, IPv4 as an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`), each word in host order
 * (word 0 holds the first four bytes of the address, most significant first).
 *
 * | word | content |
 * |---|---|
 * | 0–3 | remote address |
 * | 4–7 | local address |
 * | 8 | `remotePort << 16 \| localPort` |
 */
export const KEY_WORDS = 9
export const KEY_REMOTE = 0
export const KEY_LOCAL = 4
export const KEY_PORTS = 8

/** TCP flag bits, as they stand in the header (RFC 9293, 3.1). */
export const FIN = 0x01
export const SYN = 0x02
export const RST = 0x04
export const PSH = 0x08
export const ACK = 0x10

/** Flag word, above the eight TCP flags: the timestamps option is present (received) or is to be written (sent). */
export const HAS_TIMESTAMPS = 1 << 8
/** Flag word of a received SYN: SACK-permitted was offered. Sent: one SACK block is to be written (RFC 2018), see D_SACK_FROM. */
export const HAS_SACK = 1 << 9
/** Flag word of a received SYN: a window scale was offered; it stands in bits 16–23. */
export const HAS_SCALE = 1 << 10
export const SCALE_SHIFT = 16

/** Words that both directions share; a descriptor starts with the flow's key as the flow table keeps it. */
export const D_KEY = 0
/** Sequence number of the first payload byte. */
export const D_SEQ = 9
export const D_ACK = 10
/** TCP flags and the bits above. Sent trains: PSH and FIN go on the last segment only. */
export const D_FLAGS = 11
/** The header's window field, not scaled. */
export const D_WINDOW = 12
export const D_TSVAL = 13
export const D_TSECR = 14
/** Received: byte offset of the payload in the slab. Sent: index of the first buffer in the list of buffers. */
export const D_OFFSET = 15
/** Received: payload bytes of the whole train. Sent: number of buffers (0: one segment without payload). */
export const D_LENGTH = 16
/** Bytes of each segment but the last, which may be shorter. Received without payload: 0. Sent: every buffer is cut at multiples of it,
 * and the end of a buffer always ends a segment. */
export const D_SEGMENT = 17
/** Received SYN: maximum segment size option, 0 if absent. Sent: segments at the start of this train that have gone already and are skipped. */
export const D_MSS = 18
export const D_SKIP = 18
/** Interface index: received on; sent by raw socket: to leave by, for link-local peers. */
export const D_IFINDEX = 19
/** `tos << 8 | ttl` (hop limit, traffic class). Sent: a ttl of 0 means 64. */
export const D_TTL = 20
/** Received: bytes 0–1 of the source's link address, bit 31 set when there is one. Sent by packet: row in the table of hops. */
export const D_MAC_HIGH = 21
export const D_HOP = 21
/** Received: bytes 2–5 of the link address. Sent with HAS_SACK: first sequence number of the block. */
export const D_MAC_LOW = 22
export const D_SACK_FROM = 22
/** Received: VLAN TCI when the frame carried a tag, else 0. Sent with HAS_SACK: one past the block's last sequence number. */
export const D_VLAN = 23
export const D_SACK_TO = 23
/** Sent: IPv4 identification of the train's first segment, from which it counts up. */
export const D_IP_ID = 24
export const D_WORDS = 25

/** A row in the table of hops: how a packet leaves by AF_PACKET. Interface index, bytes of the link header, the header as it stands on the wire. */
export const HOP_IFINDEX = 0
/** 0 to 24. */
export const HOP_BYTES = 1
export const HOP_HEADER = 2
export const HOP_WORDS = 8

/** Why a received packet never became a descriptor: indexes into the capture's `Float64Array` of counters. */
export const REJECT_TRUNCATED = 0
export const REJECT_HEADER = 1
export const REJECT_CHECKSUM = 2
export const REJECT_FRAGMENT = 3
/** Not TCP, or an IPv6 packet whose addresses are IPv4-mapped. */
export const REJECT_FOREIGN = 4
/** System calls made and packets read, for the statistics. */
export const COUNT_CALLS = 5
export const COUNT_PACKETS = 6
export const CAPTURE_COUNTERS = 8

/** Words that `Carrier.info` fills. */
export const INFO_STATE = 0
/** `tcpi_options`: TCPI_OPT_TIMESTAMPS 1, SACK 2, WSCALE 4. */
export const INFO_OPTIONS = 1
export const INFO_SEND_SCALE = 2
export const INFO_RECEIVE_SCALE = 3
export const INFO_SEND_MSS = 4
export const INFO_ADVERTISED_MSS = 5
export const INFO_PATH_MTU = 6
/** The socket's own TSval clock at the moment of the call (socket option TCP_TIMESTAMP, milliseconds). */
export const INFO_TIMESTAMP = 7
export const INFO_RTT_US = 8
/** What keeps the socket mute: GUARD_FILTER, GUARD_HOP_LIMIT or GUARD_TTL. */
export const INFO_GUARD = 9
/** TTL or hop limit of what the socket sends, as the host and, for IPv6, the route have it. */
export const INFO_HOP_LIMIT = 10
/** The window in bytes that the socket has advertised. */
export const INFO_RECEIVE_WINDOW = 11
export const INFO_WORDS = 12

export const GUARD_FILTER = 0
export const GUARD_HOP_LIMIT = 1
/** One of the others, and what it sends all the same carries a mark and TTL 1. */
export const GUARD_TTL = 2

/** Words that `RouteSocket.route` fills. The route's type is RTN_UNICAST, RTN_LOCAL, ... of linux/rtnetlink.h. */
export const ROUTE_TYPE = 0
/** Interface that the packet leaves by. */
export const ROUTE_IFINDEX = 1
/** Four words: the gateway, of either family whatever the destination's, or the remote address itself when it is on the link. */
export const ROUTE_GATEWAY = 2
export const ROUTE_FLAGS = 6
/** The route's own MTU (RTAX_MTU, a learned path MTU included), 0 if it has none. */
export const ROUTE_MTU = 7
export const ROUTE_WORDS = 8
/** Bit of ROUTE_FLAGS: the kernel wraps packets of this route (RTA_ENCAP: MPLS, SRv6, IP in IP). */
export const ROUTE_ENCAPSULATED = 1

/** Words that `RouteSocket.neighbour` fills. NUD_* of linux/neighbour.h, and the link address as in D_MAC_HIGH and D_MAC_LOW. */
export const NEIGHBOUR_STATE = 0
export const NEIGHBOUR_MAC_HIGH = 1
export const NEIGHBOUR_MAC_LOW = 2
export const NEIGHBOUR_WORDS = 3

/** Words that `RouteSocket.link` fills. ARPHRD_*, IFF_*, and the interface's own link address. */
export const LINK_TYPE = 0
export const LINK_FLAGS = 1
export const LINK_MAC_HIGH = 2
export const LINK_MAC_LOW = 3
export const LINK_MTU = 4
/** Bytes that the kernel reserves for a link header in what AF_PACKET sends: 0, 14, LINK_HEADER_OTHER or LINK_HEADER_UNKNOWN. */
export const LINK_HEADER = 5
export const LINK_WORDS = 6
export const LINK_HEADER_OTHER = -1
/** Without CAP_NET_RAW, or while the device is down. */
export const LINK_HEADER_UNKNOWN = -2

/** Bits of what `RouteSocket` says has changed. */
export const CHANGED_LINK = 1
export const CHANGED_NEIGHBOUR = 2
/** Routes, rules, next hop objects. */
export const CHANGED_ROUTE = 4
export const CHANGED_ADDRESS = 8
export const CHANGED_ALL = 15

/**
 * Words of a report that a packet was too long for its path (ICMP fragmentation needed, RFC 1191; packet too big, RFC 8201). They start with the key of
 * the flow that the quoted packet names. Whoever can send packets to this host can make one up: nothing of it is to be believed as it stands.
 */
export const REPORT_KEY = 0
/** Sequence number of the quoted packet. */
export const REPORT_SEQ = 9
/** What the next link takes; 0 from routers older than RFC 1191. */
export const REPORT_MTU = 10
/** Bytes of the quoted packet, IP header included. */
export const REPORT_SIZE = 11
export const REPORT_WORDS = 12

/**
 * Words of a run of payloads that `TunnelCodec.unpack` has taken out of messages: of one type and session, one behind the other in memory.
 */
export const RUN_TYPE = 0
export const RUN_SESSION = 1
/** Byte offset of the first payload. */
export const RUN_OFFSET = 2
/** Payload bytes of the whole run. */
export const RUN_LENGTH = 3
/** Bytes of each payload but the last, which may be shorter; 0: one message without payload, which is never joined with others. */
export const RUN_SEGMENT = 4
export const RUN_MESSAGES = 5
export const RUN_WORDS = 6

/** What a tunnel codec has counted: indexes into the `Float64Array` that `TunnelCodec.counters` fills. All are messages. */
export const CODEC_PACKED = 0
/** Good ones. */
export const CODEC_UNPACKED = 1
/** Too short to be one. */
export const CODEC_TRUNCATED = 2
/** Their number has come before, or is not among the newest 8 128. */
export const CODEC_REPLAYED = 3
/** Not authentic: another key, changed, or the codec's own that came back. */
export const CODEC_FORGED = 4
export const CODEC_COUNTERS = 5

/** Bits of `offloads`: what an interface has switched on, as `ethtool -k` names it. */
export const OFFLOAD_TSO = 1
export const OFFLOAD_GSO = 2
export const OFFLOAD_GRO = 4
/** Merging in hardware that does not keep segment sizes. */
export const OFFLOAD_LRO = 8
