// What a tunnel knows of itself: the shapes of its statistics, and the counters behind them.
import type { ConnStats } from '../stats.ts'
import type { Cipher } from './keys.ts'

export interface Traffic {
  /** Datagrams carried. */
  readonly datagrams: number
  /** Their payload. */
  readonly bytes: number
}

/** Why a datagram was not carried. */
export type TunnelDropReason =
  /** The flow's send queue was full. */
  | 'queue-full'
  /** Longer than the path takes. */
  | 'message-size'
  /** No flow was open, and what waits for one was too much or too old. */
  | 'no-flow'
  /** `maxPeers` conversations were there already. */
  | 'peer-limit'
  /** The kernel refused to send it into the flow. */
  | 'send-refused'
  /** The kernel refused to send it by UDP, or to keep more of them. */
  | 'udp-refused'
  /** Dropped by the kernel for want of UDP receive buffer. */
  | 'kernel-udp'
  /** Packets dropped by the kernel for want of buffer before they were captured. */
  | 'kernel-capture'
  /** Not authentic: changed, made up, or our own sent back. */
  | 'auth'
  /** Had come before, or far too late to tell. */
  | 'replay'
  /** Not a message of the tunnel, or of no conversation. */
  | 'malformed'

export type TunnelDrops = Record<TunnelDropReason, number>

/** One flow between the tunnel's ends. */
export interface TunnelFlowStats {
  /** A flow that is dialled again has a new one. */
  readonly id: number
  readonly state: 'connecting' | 'open' | 'closing'
  /** '' and 0 while connecting. */
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  /** How its packets are sent; undefined while connecting. */
  readonly link: ConnStats['link'] | undefined
  /** Conversations on it. */
  readonly peers: number
  /** From the other end of the tunnel, and to it. */
  readonly in: Traffic
  readonly out: Traffic
  /** Share of the messages that the network lost lately, 0 to 1: in the last ten seconds with traffic. Undefined before it is known. */
  readonly lossIn: number | undefined
  readonly lossOut: number | undefined
  /** Round-trip time between the tunnel's ends, smoothed; undefined before it is known. */
  readonly rttMs: number | undefined
}

/** A snapshot. Sums only ever rise. */
export interface TunnelStats {
  readonly role: 'server' | 'client'
  /** `Date.now()` of its start. */
  readonly since: number
  /** The newest flow's cipher; 'none' where nothing is encrypted; undefined with a key while no flow has opened yet. */
  readonly encrypted: Cipher | 'none' | undefined
  /** Conversations now. */
  readonly peers: number
  readonly peersTotal: number
  readonly flows: readonly TunnelFlowStats[]
  /** Flows opened so far. */
  readonly flowsTotal: number
  /** From the other end of the tunnel, and to it: all flows, ended ones too. */
  readonly in: Traffic
  readonly out: Traffic
  /** Messages that the network is known to have lost, all flows, ended ones too. */
  readonly lostIn: number
  readonly lostOut: number
  readonly drops: Readonly<TunnelDrops>
  /** Flows that a client has dialled again. */
  readonly reconnects: number
}

/** @internal Counts in two places at once would be one too many: what a flow counts, its tunnel's sum takes when it is asked for, or when the flow ends. */
export class FlowCounters {
  datagramsIn = 0
  bytesIn = 0
  datagramsOut = 0
  bytesOut = 0
  lostIn = 0
  lostOut = 0

  add(other: FlowCounters): void {
    this.datagramsIn += other.datagramsIn
    this.bytesIn += other.bytesIn
    this.datagramsOut += other.datagramsOut
    this.bytesOut += other.bytesOut
    this.lostIn += other.lostIn
    this.lostOut += other.lostOut
  }
}

/** @internal */
export function noDrops(): TunnelDrops {
  return {
    'queue-full': 0,
    'message-size': 0,
    'no-flow': 0,
    'peer-limit': 0,
    'send-refused': 0,
    'udp-refused': 0,
    'kernel-udp': 0,
    'kernel-capture': 0,
    auth: 0,
    replay: 0,
    malformed: 0,
  }
}

/** @internal The sum of a kernel's counters that start anew now and then, as the sockets behind them do. */
export class RisingSum {
  #sum = 0
  #last = 0

  /** @returns how much it rose */
  take(now: number): number {
    const rise = now >= this.#last ? now - this.#last : now
    this.#last = now
    this.#sum += rise
    return rise
  }

  get value(): number {
    return this.#sum
  }
}
