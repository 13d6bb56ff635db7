// The sequence rules of a flow: what is acceptable from the peer, and which numbers our next segment carries. Pure functions over the
// words of one flow-table slot; docs/wire.md gives the reasons. Only the engine that owns the flow calls those that write.
import {
  FLAG_STRICT,
  FLAG_TIMESTAMPS,
  S_ACK_FLOOR,
  S_ACK_FLOOR_NEXT,
  S_ECHO_FLOOR,
  S_ECHO_FLOOR_NEXT,
  S_FLAGS,
  S_IRS,
  S_ISN,
  S_RCV_ACKED,
  S_RCV_NXT,
  S_RCV_WND,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_SCALE,
  S_SND_UNA,
  S_SND_WND,
  S_TS_ECHOED,
  S_TS_RECENT,
  S_TS_SENT,
} from '../flow/layout.ts'
import { after, before, distance, maxSeq } from '../flow/serial.ts'
import { ACK, D_ACK, D_FLAGS, D_LENGTH, D_SEQ, D_TSECR, D_TSVAL, D_WINDOW, HAS_TIMESTAMPS } from '../native/layout.ts'

/** An acknowledgement this far behind the newest one is still believed when the window is smaller. */
export const OLD_ACK = 65535

/** What a data or ACK segment was found to be. */
export const ACCEPTED = 0
/** Its sequence number is further than one window from the highest seen, either way. */
export const OUT_OF_WINDOW = 1
/** It acknowledges what we never sent, or something long gone, or nothing. */
export const BAD_ACK = 2
/** It echoes a timestamp that we did not send lately, or none although the handshake agreed on them. */
export const BAD_TIMESTAMP = 3

export type Verdict = typeof ACCEPTED | typeof OUT_OF_WINDOW | typeof BAD_ACK | typeof BAD_TIMESTAMP

/** A handshake and its repeats may have taken so long. */
const HANDSHAKE_MS = 120_000
/** A carrier's first window: it cannot have taken more. */
const CARRIER_TOOK = 65535

/**
 * Judges a segment. We set our sequence number back (see `nextSequence`), and so may the peer: a segment up to one window behind the highest is
 * new data, not a retransmission.
 */
export function judge(w: Int32Array, b: number, d: Int32Array, at: number): Verdict {
  const ahead = distance(d[at + D_SEQ], w[b + S_RCV_NXT])
  const window = w[b + S_RCV_WND]
  if (ahead > window || ahead < -window) return OUT_OF_WINDOW
  if ((d[at + D_FLAGS] & ACK) === 0) return BAD_ACK
  const ack = d[at + D_ACK]
  if (after(ack, w[b + S_SND_MAX])) return BAD_ACK
  if (distance(ack, w[b + S_SND_UNA]) < -Math.max(w[b + S_SND_WND], OLD_ACK)) return BAD_ACK
  return (w[b + S_FLAGS] & FLAG_STRICT) === 0 ? ACCEPTED : judgeStrictly(w, b, d, at)
}

/**
 * Whether the sender of a segment sees what we send. A stranger who only guesses hits the sequence numbers of a window of 16 MiB once in 128
 * times, and RFC 5961, 5.2 believes any acknowledgement of the last window. Both the acknowledgement and the echoed timestamp of a real peer only ever
 * grow, so they must not be older than what had come a few seconds ago; the seconds are for segments that were overtaken.
 */
function judgeStrictly(w: Int32Array, b: number, d: Int32Array, at: number): Verdict {
  if (before(d[at + D_ACK], w[b + S_ACK_FLOOR])) return BAD_ACK
  if ((w[b + S_FLAGS] & FLAG_TIMESTAMPS) === 0) return ACCEPTED
  if ((d[at + D_FLAGS] & HAS_TIMESTAMPS) === 0) return BAD_TIMESTAMP
  const echo = d[at + D_TSECR]
  if (after(echo, w[b + S_TS_SENT]) || before(echo, w[b + S_ECHO_FLOOR])) return BAD_TIMESTAMP
  return ACCEPTED
}

/** From here on what arrives is judged strictly. What is on its way may still acknowledge the handshake, and echo it. */
export function beStrict(w: Int32Array, b: number): void {
  w[b + S_FLAGS] |= FLAG_STRICT
  w[b + S_TS_ECHOED] = w[b + S_TS_SENT]
  w[b + S_ECHO_FLOOR] = w[b + S_ECHO_FLOOR_NEXT] = (w[b + S_TS_SENT] - HANDSHAKE_MS) | 0
  w[b + S_ACK_FLOOR] = w[b + S_ACK_FLOOR_NEXT] = (w[b + S_ISN] + 1) | 0
}

/** Raises what is too old to the newest of the last call. To be called every few seconds, and whenever `floorsAreLow`. */
export function raiseFloors(w: Int32Array, b: number): void {
  w[b + S_ACK_FLOOR] = w[b + S_ACK_FLOOR_NEXT]
  w[b + S_ACK_FLOOR_NEXT] = w[b + S_SND_UNA]
  w[b + S_ECHO_FLOOR] = w[b + S_ECHO_FLOOR_NEXT]
  w[b + S_ECHO_FLOOR_NEXT] = w[b + S_TS_ECHOED]
}

/** True when the acknowledgement has moved on by a window since the last `raiseFloors`: that much is too old by itself, and far more would be ambiguous. */
export function floorsAreLow(w: Int32Array, b: number): boolean {
  return distance(w[b + S_SND_UNA], w[b + S_ACK_FLOOR_NEXT]) > Math.max(w[b + S_SND_WND], OLD_ACK)
}

/**
 * Takes in what an acceptable segment says: the peer's acknowledgement and window, its clock, and how far its data reaches.
 *
 * @returns true when it acknowledges something new
 */
export function absorb(w: Int32Array, b: number, d: Int32Array, at: number): boolean {
  const ack = d[at + D_ACK]
  const advanced = after(ack, w[b + S_SND_UNA])
  if (advanced) {
    w[b + S_SND_UNA] = ack
    // After a set-back the peer may already hold what we were about to number again.
    w[b + S_SND_NXT] = maxSeq(ack, w[b + S_SND_NXT])
  }
  w[b + S_SND_WND] = d[at + D_WINDOW] << w[b + S_SND_SCALE]
  if ((d[at + D_FLAGS] & HAS_TIMESTAMPS) !== 0) {
    w[b + S_TS_RECENT] = maxSeq(d[at + D_TSVAL], w[b + S_TS_RECENT])
    if ((w[b + S_FLAGS] & FLAG_STRICT) !== 0) w[b + S_TS_ECHOED] = maxSeq(d[at + D_TSECR], w[b + S_TS_ECHOED])
  }
  const end = (d[at + D_SEQ] + d[at + D_LENGTH]) | 0
  w[b + S_RCV_NXT] = maxSeq(end, w[b + S_RCV_NXT])
  return advanced
}

/** Bytes of one train that the window bound allows: never more than the peer's window, whatever is in flight. */
export function trainLimit(w: Int32Array, b: number): number {
  return w[b + S_SND_WND]
}

/** Bytes that may still be sent without leaving the peer's acknowledgement plus its window. */
export function windowLeft(w: Int32Array, b: number): number {
  return w[b + S_SND_WND] - distance(w[b + S_SND_NXT], w[b + S_SND_UNA])
}

/** True when the next `length` bytes would leave the peer's acknowledgement plus its window. */
export function leavesWindow(w: Int32Array, b: number, length: number): boolean {
  return length > windowLeft(w, b)
}

/**
 * The sequence number for the next `length` bytes, and the account of having sent them. Where they would leave the peer's
 * acknowledgement plus its window, numbering is set back to that acknowledgement: nothing is retransmitted, the numbers are used again for
 * new bytes, and a connection tracker in between sees a sender that stays inside the window (nf_conntrack_proto_tcp.c, tcp_in_window).
 */
export function nextSequence(w: Int32Array, b: number, length: number): number {
  const seq = leavesWindow(w, b, length) ? w[b + S_SND_UNA] : w[b + S_SND_NXT]
  const end = (seq + length) | 0
  w[b + S_SND_NXT] = end
  w[b + S_SND_MAX] = maxSeq(end, w[b + S_SND_MAX])
  return seq
}

/** The acknowledgement that every segment of ours carries: the highest byte seen, gaps or not, never backwards. */
export function nextAck(w: Int32Array, b: number): number {
  const ack = w[b + S_RCV_NXT]
  w[b + S_RCV_ACKED] = ack
  return ack
}

/** RFC 5961, 3.2: a reset counts only with exactly the next sequence number; elsewhere in the window it deserves a challenge ACK. */
export function judgeReset(w: Int32Array, b: number, d: Int32Array, at: number): 'reset' | 'challenge' | 'ignore' {
  const ahead = distance(d[at + D_SEQ], w[b + S_RCV_NXT])
  if (ahead === 0) return 'reset'
  const window = w[b + S_RCV_WND]
  return ahead > -window && ahead <= window ? 'challenge' : 'ignore'
}

/**
 * The numbers of the kernel's own FIN: the peer's process is gone and its carrier, which never sent a byte, was closed. It acknowledges nothing
 * but the handshake, or where no filter could be attached what came before its carrier was mute.
 */
export function isCarriersFin(w: Int32Array, b: number, d: Int32Array, at: number): boolean {
  const seq = d[at + D_SEQ]
  return (
    seq === ((w[b + S_IRS] + 1) | 0) &&
    (d[at + D_ACK] - w[b + S_ISN] - 1) >>> 0 <= CARRIER_TOOK &&
    d[at + D_LENGTH] === 0 &&
    // Else it is in order, or the repeat of one that was, whoever made it. Data may have gone round the number space any times since.
    (w[b + S_RCV_NXT] - seq) >>> 0 > 1
  )
}

/** A segment without payload that stands before what we have seen: the peer asks whether we are there (RFC 9293, 3.8.4), or has not heard our last acknowledgement. */
export function asksForAck(w: Int32Array, b: number, d: Int32Array, at: number): boolean {
  return d[at + D_LENGTH] === 0 && before(d[at + D_SEQ], w[b + S_RCV_NXT])
}

/** The sequence number that makes a segment without payload such a question: one below what the peer has acknowledged. */
export function questionSequence(w: Int32Array, b: number): number {
  return (w[b + S_SND_UNA] - 1) | 0
}
