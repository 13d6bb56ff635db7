// What a flow takes over from the kernel's handshake: the captured numbers, and what the carrier tells, as words of its slot.
import { randomInt } from 'node:crypto'
import {
  FLAG_TIMESTAMPS,
  S_FLAGS,
  S_IP_ID,
  S_IRS,
  S_ISN,
  S_MAX_MESSAGE,
  S_PATH_MTU,
  S_RCV_NXT,
  S_RCV_SCALE,
  S_RCV_WINDOW_FIELD,
  S_RCV_WND,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_SCALE,
  S_SND_UNA,
  S_SND_WND,
  S_TOS_TTL,
  S_TS_OFFSET,
  S_TS_RECENT,
  S_TS_SENT,
} from '../flow/layout.ts'
import type { NativeCarrier } from '../native/binding.ts'
import {
  GUARD_FILTER,
  GUARD_HOP_LIMIT,
  GUARD_TTL,
  INFO_GUARD,
  INFO_HOP_LIMIT,
  INFO_OPTIONS,
  INFO_PATH_MTU,
  INFO_RECEIVE_SCALE,
  INFO_RECEIVE_WINDOW,
  INFO_SEND_MSS,
  INFO_SEND_SCALE,
  INFO_TIMESTAMP,
  INFO_WORDS,
} from '../native/layout.ts'
import type { Guard } from '../stats.ts'
import type { Family } from '../transport.ts'
import type { Slot } from './slot.ts'

/** The handshake's numbers, as captured. */
export interface Handshake {
  /** Initial sequence number of the peer. */
  readonly irs: number
  /** Ours. */
  readonly isn: number
  /** The interface that it came in by: link-local peers need it. */
  readonly ifindex: number
  /** The peer's clock. */
  readonly tsval: number
  /** The peer's maximum segment size option; 0 when its SYN had none, undefined when that was not seen. */
  readonly mss: number | undefined
}

/** What we advertise at most; reordering within it is accepted. */
const RECEIVE_WINDOW = 16 << 20
/** A listener's peer scales its window from the third ACK on, which sets the true one; a dialler's SYN-ACK was not scaled and has been noted. */
const FIRST_WINDOW = 65535
/** tcpi_options */
const TCPI_OPT_TIMESTAMPS = 1
const TCPI_OPT_SACK = 2
const TCPI_OPT_WSCALE = 4
/** NOP NOP TS */
const TIMESTAMPS_BYTES = 12

const GUARDS: Readonly<Record<number, Guard>> = { [GUARD_FILTER]: 'filter', [GUARD_HOP_LIMIT]: 'hopLimit', [GUARD_TTL]: 'ttl' }

/** Bytes of IP and TCP header of each segment after the handshake. */
export function headerBytes(family: Family, timestamps: boolean): number {
  return (family === 'IPv4' ? 40 : 60) + (timestamps ? TIMESTAMPS_BYTES : 0)
}

/** Starts numbering where the handshake left it. */
export function takeNumbers({ words: w, base: b }: Slot, { irs, isn, tsval }: Handshake): void {
  const next = (isn + 1) | 0
  w[b + S_IRS] = irs
  w[b + S_ISN] = isn
  w[b + S_TS_RECENT] = tsval
  w[b + S_RCV_NXT] = (irs + 1) | 0
  w[b + S_SND_NXT] = next
  w[b + S_SND_MAX] = next
  w[b + S_SND_UNA] = next
}

/** Takes over what both kernels agreed on, and what the host's own gives its packets: scales, windows, clock, message size, IP header. */
export function takeAgreement(
  { words: w, base: b }: Slot,
  carrier: NativeCarrier,
  { family, peerMss, dscp, now }: { family: Family; peerMss: number | undefined; dscp: number; now: number },
): { timestamps: boolean; sack: boolean; guard: Guard } {
  const info = new Int32Array(INFO_WORDS)
  carrier.info(info)
  const scaled = (info[INFO_OPTIONS] & TCPI_OPT_WSCALE) !== 0
  const timestamps = (info[INFO_OPTIONS] & TCPI_OPT_TIMESTAMPS) !== 0
  w[b + S_SND_SCALE] = scaled ? info[INFO_SEND_SCALE] : 0
  w[b + S_RCV_SCALE] = scaled ? info[INFO_RECEIVE_SCALE] : 0
  const widest = Math.min(65535, RECEIVE_WINDOW >> w[b + S_RCV_SCALE])
  w[b + S_RCV_WND] = widest << w[b + S_RCV_SCALE]
  w[b + S_RCV_WINDOW_FIELD] = Math.min(widest, info[INFO_RECEIVE_WINDOW] >> w[b + S_RCV_SCALE])
  if (w[b + S_SND_WND] === 0) w[b + S_SND_WND] = FIRST_WINDOW
  if (timestamps) w[b + S_FLAGS] |= FLAG_TIMESTAMPS
  w[b + S_TS_OFFSET] = (info[INFO_TIMESTAMP] - Math.floor(now)) | 0
  w[b + S_TS_SENT] = info[INFO_TIMESTAMP]
  // As inet_id of a TCP socket: from anywhere, up by one with each segment (ip_select_ident_segs).
  w[b + S_IP_ID] = randomInt(1 << 16)
  w[b + S_TOS_TTL] = (dscp << 10) | info[INFO_HOP_LIMIT]
  w[b + S_PATH_MTU] = info[INFO_PATH_MTU]
  w[b + S_MAX_MESSAGE] = info[INFO_SEND_MSS]
  if (peerMss === 0) {
    // A SYN without the option makes the kernel assume 536 (RFC 9293, 3.7.1), for it has to reassemble a stream; we know that messages of
    // the path's size arrive whole or not at all.
    w[b + S_MAX_MESSAGE] = info[INFO_PATH_MTU] - headerBytes(family, timestamps)
  }
  const sack = (info[INFO_OPTIONS] & TCPI_OPT_SACK) !== 0
  return { timestamps, sack, guard: GUARDS[info[INFO_GUARD]] }
}
