// The rules towards a real TCP (dialect 'tcp'): what a segment of the peer says, which of its bytes count, how much may be sent and what window
// is advertised. Pure functions over the words of one flow-table slot, beside rules.ts, which has those for peers that number as we do.
import {
  S_RCV_ACKED,
  S_RCV_NXT,
  S_RCV_SCALE,
  S_RCV_WINDOW_FIELD,
  S_RCV_WND,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_SCALE,
  S_SND_UNA,
  S_SND_WND,
  S_TS_RECENT,
} from '../flow/layout.ts'
import { after, before, distance } from '../flow/serial.ts'
import { ACK, D_ACK, D_FLAGS, D_LENGTH, D_SEQ, D_TSVAL, D_WINDOW, FIN, HAS_TIMESTAMPS } from '../native/layout.ts'
import { ACCEPTED, BAD_ACK, OLD_ACK, OUT_OF_WINDOW } from './rules.ts'

/**
 * Bytes under way at most. There is no congestion control, and a kernel that runs out of receive memory or of backlog drops even what lies inside
 * its window, which nobody would send again.
 */
export const FLIGHT_BYTES = 128 << 10

/**
 * RFC 9293, 3.10.7.4, first and fifth check; RFC 5961, 5.2; RFC 7323, 5.3.
 *
 * @returns OUT_OF_WINDOW for a segment without any byte of the window: it deserves an acknowledgement, unless it is one itself
 */
export function judgeStream(w: Int32Array, b: number, d: Int32Array, at: number): typeof ACCEPTED | typeof OUT_OF_WINDOW | typeof BAD_ACK {
  const flags = d[at + D_FLAGS]
  const from = distance(d[at + D_SEQ], w[b + S_RCV_NXT])
  const to = from + d[at + D_LENGTH] + (flags & FIN)
  const window = w[b + S_RCV_WND]
  // Without a byte it may stand on either edge of the window, so that a closed one still takes acknowledgements.
  const inside = to === from ? from >= 0 && from <= window : to > 0 && from < Math.max(window, 1)
  if (!inside || ((flags & HAS_TIMESTAMPS) !== 0 && before(d[at + D_TSVAL], w[b + S_TS_RECENT]))) return OUT_OF_WINDOW
  if ((flags & ACK) === 0) return BAD_ACK
  const ack = d[at + D_ACK]
  if (after(ack, w[b + S_SND_MAX]) || distance(ack, w[b + S_SND_UNA]) < -Math.max(w[b + S_SND_WND], OLD_ACK)) return BAD_ACK
  return ACCEPTED
}

/**
 * Takes in what an acceptable segment says of our data, and the peer's clock; its payload is not counted here.
 *
 * @param windowSeq sequence number of the segment that told the window last (SND.WL1)
 * @returns the new one
 */
export function absorbStream(w: Int32Array, b: number, d: Int32Array, at: number, windowSeq: number): number {
  const [seq, ack] = [d[at + D_SEQ], d[at + D_ACK]]
  // RFC 7323, 4.3: of segments that arrive in order, so that what is measured by the echo counts the time that a gap took.
  if ((d[at + D_FLAGS] & HAS_TIMESTAMPS) !== 0 && !after(seq, w[b + S_RCV_ACKED])) w[b + S_TS_RECENT] = d[at + D_TSVAL]
  const window = d[at + D_WINDOW] << w[b + S_SND_SCALE]
  const advanced = after(ack, w[b + S_SND_UNA])
  if (advanced) w[b + S_SND_UNA] = ack
  else if (ack !== w[b + S_SND_UNA]) return windowSeq
  // As tcp_may_update_window: an older segment does not take back what a newer one opened.
  if (!advanced && !after(seq, windowSeq) && (seq !== windowSeq || (window !== 0 && window <= w[b + S_SND_WND]))) return windowSeq
  w[b + S_SND_WND] = window
  return seq
}

/** Bytes that may be sent now: the window is never left, for a real TCP drops what lies beyond it. */
export function roomToSend(w: Int32Array, b: number): number {
  return Math.max(0, Math.min(w[b + S_SND_WND], FLIGHT_BYTES) - distance(w[b + S_SND_NXT], w[b + S_SND_UNA]))
}

/** The payload bytes of a segment that lie in the window: `skip` of them before it, then `length` in it. */
export interface Clipped {
  readonly skip: number
  readonly length: number
}

/** Cuts off what was delivered before, and what lies beyond the window (RFC 9293, 3.10.7.4: "trimming off any portions that lie outside"). */
export function clip(w: Int32Array, b: number, seq: number, length: number): Clipped {
  const from = distance(seq, w[b + S_RCV_NXT])
  const skip = Math.min(length, Math.max(0, -from))
  const end = Math.min(from + length, w[b + S_RCV_WND])
  return { skip, length: Math.max(0, end - Math.max(from, 0)) }
}

/** Bytes in order were delivered: the window's right edge stays where it is. */
export function advance(w: Int32Array, b: number, bytes: number): void {
  w[b + S_RCV_NXT] = (w[b + S_RCV_NXT] + bytes) | 0
  setWindow(w, b, Math.max(0, w[b + S_RCV_WND] - bytes))
}

/**
 * Advertises that `free` bytes will be taken. The right edge never moves back (RFC 9293, 3.8.6), and on only by two segments, or half of what is
 * free where that is less (3.8.6.2.2): a slow reader would be fed with crumbs otherwise.
 *
 * @returns true when it has moved
 */
export function advertise(w: Int32Array, b: number, free: number, segment: number): boolean {
  const window = Math.min(65535 * 2 ** w[b + S_RCV_SCALE], free)
  if (window - w[b + S_RCV_WND] < Math.max(1, Math.min(2 * segment, free >> 1))) return false
  setWindow(w, b, window)
  return true
}

/** What is taken from now on. The field is rounded down, the edge that was promised is kept all the same (RFC 7323, 2.4). */
export function setWindow(w: Int32Array, b: number, bytes: number): void {
  w[b + S_RCV_WND] = bytes
  w[b + S_RCV_WINDOW_FIELD] = Math.floor(bytes / 2 ** w[b + S_RCV_SCALE])
}
