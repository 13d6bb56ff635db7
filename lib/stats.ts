// What the statistics objects hold. Reading one makes no system call and no native call: every getter reads memory.

/** 'none' over UDP, where there is nothing to keep mute. */
export type Guard = 'filter' | 'hopLimit' | 'ttl' | 'none'

/** Figures of one connection since it opened. Messages and bytes are payload; with `dialect: 'tcp'` messages in are chunks, messages out segments. */
export interface ConnStats {
  readonly messagesIn: number
  readonly bytesIn: number
  readonly messagesOut: number
  readonly bytesOut: number
  /** Messages that arrived and were dropped because the application reads too slowly. */
  readonly droppedIn: number
  /** Messages that were not sent (too long, empty, refused by the kernel). */
  readonly droppedOut: number
  /** How the far end is spoken to; undefined until it is known. */
  readonly dialect: 'native' | 'tcpraw' | 'tcp' | undefined
  /** How packets are captured for this connection; 'udp' over UDP, where the kernel gives the payload. */
  readonly capture: 'packet' | 'raw' | 'udp'
  /** How they are sent now: by AF_PACKET, trains in one piece, or by IP raw socket; 'udp' over UDP. */
  readonly link: 'packet' | 'raw' | 'udp'
  /** Why they are sent by raw socket; undefined where they are not. In words, for people. */
  readonly linkReason: string | undefined
  /**
   * What keeps the kernel's own socket mute: a socket filter, or where the kernel keeps those for CAP_NET_ADMIN, a hop limit nobody meets; 'ttl': one
   * of these, and a firewall rule.
   */
  readonly guard: Guard
  /** How often the window bound set our sequence number back to the peer's acknowledgement. */
  readonly setBacks: number
  /** Packets that the kernel dropped before they could be captured, of this connection and all others on the same capture sockets; refreshed at most once a second. */
  readonly kernelDrops: number
  /** Packets that reached no stream, of this connection and all others on the same capture sockets. */
  readonly rejected: Rejected
  /** Bytes of the longest IP packet that the path is known to take. */
  readonly pathMtu: number
  /** Milliseconds since anything was heard of the peer. */
  readonly idleMs: number
  /** With framing 'counted' only. */
  readonly framing: FramingStats | undefined
}

/** What became of one direction's messages. */
export interface DirectionStats {
  /** Messages sent so far: by us, or by the peer as far as is known here. */
  readonly sent: number
  /** Different ones that arrived. */
  readonly received: number
  /** Known to have been sent and not arrived, those that are merely on their way for now among them. */
  readonly lost: number
  /** Arrivals of a message that had arrived before. They are not delivered. */
  readonly duplicated: number
  /** Messages that arrived behind a later one (RFC 4737). */
  readonly reordered: number
  /** Arrivals so far behind the newest that nobody knows any more whether they are duplicates. They are not delivered, and count as lost. */
  readonly late: number
}

/** What the frames of framing 'counted' tell. */
export interface FramingStats {
  /** From the peer, as counted here. */
  readonly incoming: DirectionStats
  /** To the peer: but for `sent`, as it told in its newest report. It reports once a second while there is traffic, and when this side ends. */
  readonly outgoing: DirectionStats
  /** Round-trip time in milliseconds, a sample for each report; undefined before the first. `smoothed` as in RFC 6298. */
  readonly rttMs: { readonly last: number; readonly min: number; readonly smoothed: number } | undefined
  /** Frames that arrived and were not taken, by reason. */
  readonly ignored: {
    /** Shorter than a header. */
    readonly short: number
    /** Of a type that this version does not know. */
    readonly unknownType: number
    /** Reports, echoes and close frames that are too short, or say what cannot be. */
    readonly report: number
    readonly echo: number
    readonly close: number
    /** Messages that came when others behind them had been delivered (`reorderWindowMs`). */
    readonly overtaken: number
  }
}

/** Packets that did not reach any stream, by reason. */
export interface Rejected {
  readonly truncated: number
  readonly header: number
  readonly checksum: number
  readonly fragment: number
  readonly foreign: number
  /** Sequence number outside the window. */
  readonly window: number
  /** Acknowledges what was never sent, or what is long gone. */
  readonly ack: number
  /** Echoes a timestamp that was not sent lately, or none (`strict`). */
  readonly timestamp: number
  /** ICMP messages about a smaller path MTU that do not fit anything on its way (RFC 5927). */
  readonly pathMtu: number
  /** Reset or FIN with the wrong sequence number (RFC 5961): answered by a challenge ACK or ignored. */
  readonly reset: number
  /** SYN on an open connection: answered by a challenge ACK (RFC 5961). */
  readonly syn: number
  /** Data after the flow had ended. */
  readonly late: number
  /** No flow and no room or reason to keep it. */
  readonly orphan: number
}

/** What the capture saw, and what it did not pass on. */
export interface CaptureStats {
  /** Packets captured, trains counted once. */
  readonly packets: number
  /** recvmmsg calls that brought packets. */
  readonly calls: number
  /** Packets the kernel dropped for want of socket buffer; refreshed at most once a second. */
  readonly kernelDrops: number
  /** Bytes of socket buffer that the kernel granted, summed over the capture sockets. */
  readonly receiveBufferBytes: number
  readonly rejected: Rejected
}

/** The part of one listener in a port that several share (`shard`). */
export interface ShardStats {
  readonly index: number
  readonly count: number
  /** Whether the kernel took the program that steers handshakes to their shards. Without it the kernel spreads them by a hash of its own, and most are handed over. */
  readonly steered: boolean
  /** Handshakes that were accepted here, belong to another shard and were given to it. */
  readonly handedOver: number
  /** Handshakes that other shards gave to this one. */
  readonly takenOver: number
  /** Handshakes of other shards that were kept here, because nobody was there to take them. */
  readonly strays: number
  /** Peers of such connections that the captures let through one by one now; at most 64. */
  readonly exceptions: number
  /** Other shards whose packets are all captured here now, because they have more such connections than there is room for exceptions. */
  readonly wholeShards: number
}

export interface ListenerStats extends CaptureStats {
  /** Connections accepted so far. */
  readonly accepted: number
  /** Connections refused so far, whatever the reason. */
  readonly refused: number
  /** Orphans held now: captured packets whose handshake has not completed. */
  readonly orphans: number
  /** With the option `shard` only. */
  readonly shard: ShardStats | undefined
}
