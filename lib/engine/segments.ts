// What every segment of a flow carries: addresses, window, timestamps, the acknowledgement; and when an acknowledgement must go alone.
import { isLinkLocal } from '../address.ts'
import {
  F_LAST_SENT_MS,
  S_IP_ID,
  S_KEY,
  S_RCV_SCALE,
  S_RCV_WINDOW_FIELD,
  S_RCV_WND,
  S_TOS_TTL,
  S_TS_OFFSET,
  S_TS_RECENT,
  S_TS_SENT,
} from '../flow/layout.ts'
import { maxSeq } from '../flow/serial.ts'
import { NOWHERE } from '../link/hop-table.ts'
import {
  D_ACK,
  D_FLAGS,
  D_HOP,
  D_IFINDEX,
  D_IP_ID,
  D_KEY,
  D_SACK_FROM,
  D_SACK_TO,
  D_SEGMENT,
  D_SEQ,
  D_TSECR,
  D_TSVAL,
  D_TTL,
  D_WINDOW,
  FIN,
  HAS_SACK,
  type HAS_TIMESTAMPS,
  KEY_REMOTE,
  KEY_WORDS,
  RST,
} from '../native/layout.ts'
import { nextAck } from '../wire/rules.ts'
import type { LinkChoice } from './link-choice.ts'
import type { Block } from './reassembly.ts'
import type { Slot } from './slot.ts'

/** RFC 9293, 3.8.6.3 allows 500 ms; Linux's delayed ACK is 40 ms. */
const DELAYED_ACK_MS = 40
/** A flow that has sent something so lately answers no question: what it sent is an answer. As Linux's tcp_invalid_ratelimit. */
const ANSWERED_MS = 500

export class Segments {
  readonly #slot: Slot
  readonly #link: LinkChoice
  /** HAS_TIMESTAMPS where the handshake agreed on them, else 0. */
  timestamps: 0 | typeof HAS_TIMESTAMPS = 0
  /** Of the handshake. */
  ifindex = 0
  /** An acknowledgement is to go with the next flush, alone if need be. */
  ackNow = false
  /** When it must; Infinity while everything is acknowledged. */
  ackDue = Number.POSITIVE_INFINITY
  /** What pure ACKs tell of bytes that were received behind a gap (RFC 2018), where that was agreed on. */
  block: Block | undefined
  #unacked = 0
  #heardData = false
  /** The window is as wide as it gets. */
  #wide = false
  /** Bytes by which it has grown, too few to show in the header. */
  #growth = 0

  constructor(slot: Slot, link: LinkChoice) {
    this.#slot = slot
    this.#link = link
  }

  /**
   * Data of `length` bytes has arrived. The first is acknowledged at once, then each eighth of the window that the peer knows of, or after 40 ms, also
   * where the highest byte did not advance: trackers in between live on it.
   *
   * @returns true when an acknowledgement is due now
   */
  received(length: number, now: number): boolean {
    const { words, base } = this.#slot
    const known = words[base + S_RCV_WINDOW_FIELD] << words[base + S_RCV_SCALE]
    if (!this.#wide) this.#widen(length)
    this.#unacked += length
    if (!this.#heardData || this.#unacked >= known >> 3) {
      this.#heardData = true
      this.ackNow = true
    } else if (this.ackDue === Number.POSITIVE_INFINITY) this.ackDue = now + DELAYED_ACK_MS
    return this.ackNow
  }

  /** The window grows from the handshake's by twice what arrives, as the kernel's does (tcp_grow_window), until it is as wide as what we accept. */
  #widen(length: number): void {
    const { words: w, base: b } = this.#slot
    const scale = w[b + S_RCV_SCALE]
    const widest = w[b + S_RCV_WND] >> scale
    this.#growth += 2 * length
    const field = w[b + S_RCV_WINDOW_FIELD] + (this.#growth >> scale)
    this.#growth &= (1 << scale) - 1
    this.#wide = field >= widest
    w[b + S_RCV_WINDOW_FIELD] = this.#wide ? widest : field
  }

  /** For a peer that sends as much as it likes whatever the window says: what is beyond it, connection tracking in between would call invalid. */
  widenAtOnce(): void {
    const { words: w, base: b } = this.#slot
    w[b + S_RCV_WINDOW_FIELD] = w[b + S_RCV_WND] >> w[b + S_RCV_SCALE]
    this.#wide = true
  }

  /**
   * The peer asks for an acknowledgement.
   *
   * @returns true when one is due now
   */
  asked(now: number): boolean {
    if (now - this.#slot.floats[this.#slot.floatBase + F_LAST_SENT_MS] < ANSWERED_MS) return false
    this.ackNow = true
    return true
  }

  /** Fills the descriptor of a train but for its payload words; the acknowledgement it carries is the newest, and none is owed after it. */
  write(words: Int32Array, at: number, flags: number, seq: number, now: number, segments = 1): void {
    this.#unacked = 0
    this.ackNow = false
    this.ackDue = Number.POSITIVE_INFINITY
    this.writeWith(words, at, flags, seq, nextAck(this.#slot.words, this.#slot.base), now, segments)
  }

  /** The same with an acknowledgement number of the caller's. */
  writeWith(words: Int32Array, at: number, flags: number, seq: number, ack: number, now: number, segments = 1): void {
    const w = this.#slot.words
    const b = this.#slot.base
    for (let i = 0; i < KEY_WORDS; i++) words[at + D_KEY + i] = w[b + S_KEY + i]
    words[at + D_SEQ] = seq
    words[at + D_ACK] = ack
    words[at + D_FLAGS] = flags | this.timestamps
    words[at + D_WINDOW] = w[b + S_RCV_WINDOW_FIELD]
    // Never backwards, whatever moment the caller takes for now: a peer drops what is older than what it has seen (RFC 7323, 5.3).
    words[at + D_TSVAL] = w[b + S_TS_SENT] = maxSeq((w[b + S_TS_OFFSET] + Math.floor(now)) | 0, w[b + S_TS_SENT])
    words[at + D_TSECR] = w[b + S_TS_RECENT]
    words[at + D_IFINDEX] = isLinkLocal(w, b + S_KEY + KEY_REMOTE) ? this.ifindex : 0
    words[at + D_TTL] = w[b + S_TOS_TTL]
    words[at + D_IP_ID] = w[b + S_IP_ID]
    w[b + S_IP_ID] = (w[b + S_IP_ID] + segments) & 0xffff
    // Sending may have cost the path its hop since the outbox was chosen: what then goes nowhere is refused, and diverted, like what went before.
    words[at + D_HOP] = Math.max(this.#link.hop, NOWHERE)
    if (this.block !== undefined && words[at + D_SEGMENT] === 0 && (flags & (FIN | RST)) === 0) writeBlock(words, at, this.block)
    this.#slot.floats[this.#slot.floatBase + F_LAST_SENT_MS] = now
  }
}

function writeBlock(words: Int32Array, at: number, { from, to }: Block): void {
  words[at + D_FLAGS] |= HAS_SACK
  words[at + D_SACK_FROM] = from
  words[at + D_SACK_TO] = to
}
