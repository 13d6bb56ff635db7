// The two seconds in which an ended flow absorbs what is still on its way, before its carrier goes and the kernel would answer with resets.
import { S_RCV_NXT, S_SND_MAX, S_SND_UNA } from '../flow/layout.ts'
import { after, maxSeq } from '../flow/serial.ts'
import { ACK, D_ACK, D_FLAGS, D_LENGTH, D_SEQ, FIN, RST, SYN } from '../native/layout.ts'
import { ACCEPTED, judge } from '../wire/rules.ts'
import type { Slot } from './slot.ts'

export const TIME_WAIT_MS = 2000

/**
 * What a late segment calls for. `makeWay`: the peer starts anew from the same address and port, the old carrier must not be in the way of its
 * SYN's repeat. `reset`: we gave the flow up and the peer does not know. `acknowledge`: its FIN came again.
 */
export type LateAnswer = 'makeWay' | 'reset' | 'acknowledge' | 'nothing'

/** @param aborted when we gave the flow up and answer with resets */
export function judgeLate({ words: w, base: b }: Slot, aborted: boolean, d: Int32Array, at: number): LateAnswer {
  const flags = d[at + D_FLAGS]
  if ((flags & (SYN | ACK)) === SYN) return 'makeWay'
  if ((flags & RST) !== 0) return 'nothing'
  if (aborted) return (flags & ACK) !== 0 ? 'reset' : 'nothing'
  if ((flags & FIN) === 0 || judge(w, b, d, at) !== ACCEPTED) return 'nothing'
  const end = (d[at + D_SEQ] + d[at + D_LENGTH] + 1) | 0
  w[b + S_RCV_NXT] = maxSeq(end, w[b + S_RCV_NXT])
  return 'acknowledge'
}

/**
 * The sequence number of the reset that answers a segment of a peer who does not know that we gave the flow up.
 *
 * A peer believes exactly what it expects next, and a tracker nothing below what the peer has acknowledged by the time that the reset passes. What a message
 * acknowledges is old by then, so it gets the end of all that was ever sent. A peer that has missed the last of it challenges that (RFC 5961, 3.2), and its
 * challenge, as every segment without payload, is answered to the number.
 */
export function resetFor({ words: w, base: b }: Slot, d: Int32Array, at: number): number {
  const ack = d[at + D_ACK]
  if (after(ack, w[b + S_SND_MAX])) return ack
  w[b + S_SND_UNA] = maxSeq(ack, w[b + S_SND_UNA])
  return w[b + (d[at + D_LENGTH] > 0 ? S_SND_MAX : S_SND_UNA)]
}
