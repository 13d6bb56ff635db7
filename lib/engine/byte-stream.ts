// What a flow needs beside its other parts when its peer is a real TCP (dialect 'tcp'): bytes are delivered in order and once, gaps are waited for,
// and the window says how much the application's stream will take. Which segments count is decided in wire/stream-rules.ts; it sends nothing itself.
import { S_RCV_ACKED, S_RCV_NXT, S_SND_UNA, S_SND_WND } from '../flow/layout.ts'
import { distance } from '../flow/serial.ts'
import { D_FLAGS, D_LENGTH, D_OFFSET, D_SEGMENT, D_SEQ, FIN } from '../native/layout.ts'
import { ACCEPTED, OUT_OF_WINDOW, type Verdict } from '../wire/rules.ts'
import { absorbStream, advance, advertise, clip, judgeStream, setWindow } from '../wire/stream-rules.ts'
import type { Progress } from './progress.ts'
import { Reassembly } from './reassembly.ts'
import type { Segments } from './segments.ts'
import type { Slot } from './slot.ts'

/** What the kernel may have promised in the handshake: the field of a SYN is not scaled. */
const PROMISED_WINDOW = 65535

/** What a byte stream asks of its flow. */
export interface StreamOwner {
  /** Bytes that may be delivered now. */
  room(): number
  deliver(memory: Uint8Array, offset: number, length: number): void
  /** More may be sent, or what was sent has arrived. */
  onAcknowledged(now: number): void
  /** All that stands before the peer's FIN, which is at `seq`, was delivered. */
  onEnd(seq: number, now: number): void
  /** `segments` says that an acknowledgement is owed, now or later. */
  onAckOwed(): void
  /** An acknowledgement must go for this segment alone. */
  acknowledge(): void
}

export class ByteStream {
  readonly #slot: Slot
  readonly #segments: Segments
  readonly #progress: Progress
  readonly #owner: StreamOwner
  readonly #kept = new Reassembly()
  #selective = false
  /** Of the segment that told the peer's window last. */
  #windowSeq = 0
  /** Bytes of the peer's segments, as the last one had them. */
  #segmentBytes = 1
  /** Where the peer's FIN stands, once it has been seen. */
  #finSeq: number | undefined
  #ended = false

  constructor(slot: Slot, segments: Segments, progress: Progress, owner: StreamOwner) {
    this.#slot = slot
    this.#segments = segments
    this.#progress = progress
    this.#owner = owner
  }

  /** The flow is open. @param selective whether the handshake agreed on selective acknowledgements */
  open(selective: boolean): void {
    const { words, base } = this.#slot
    this.#selective = selective
    this.#windowSeq = words[base + S_RCV_NXT]
    setWindow(words, base, PROMISED_WINDOW)
  }

  /** A segment of the peer, without SYN and RST. */
  receive(d: Int32Array, at: number, memory: Uint8Array, now: number): Verdict {
    const { words: w, base: b } = this.#slot
    const flags = d[at + D_FLAGS]
    const length = d[at + D_LENGTH]
    const verdict = judgeStream(w, b, d, at)
    if (verdict !== ACCEPTED) {
      if (verdict === OUT_OF_WINDOW) this.#answerOutside(length > 0 || (flags & FIN) !== 0, now)
      return verdict
    }
    const [una, window] = [w[b + S_SND_UNA], w[b + S_SND_WND]]
    this.#windowSeq = absorbStream(w, b, d, at, this.#windowSeq)
    const advanced = w[b + S_SND_UNA] !== una
    if (advanced || (window === 0 && w[b + S_SND_WND] > 0)) this.#progress.moved(now)
    if (advanced || w[b + S_SND_WND] > window) this.#owner.onAcknowledged(now)
    if (length > 0 && !this.#ended) this.#takeData(d, at, memory, now)
    if ((flags & FIN) !== 0) this.#finSeq ??= (d[at + D_SEQ] + length) | 0
    this.#takeFin(now)
    return verdict
  }

  /** The application's stream takes more: what was kept for want of room, and from the peer. */
  readMore(now: number): void {
    if (this.#ended) return
    const delivered = this.#deliverKept()
    this.#takeFin(now)
    if (this.#advertise() || delivered) this.#oweAck()
  }

  /** RFC 9293, 3.10.7.4: what has come before is acknowledged again; questions (zero-window probes, keepalives) no more often than Linux does. */
  #answerOutside(occupies: boolean, now: number): void {
    // Room may have come without `readMore`, where the queue is too small to hold anything.
    if (this.#advertise() || occupies) this.#oweAck()
    else if (this.#segments.asked(now)) this.#owner.onAckOwed()
  }

  #takeData(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const { words: w, base: b } = this.#slot
    const { skip, length } = clip(w, b, d[at + D_SEQ], d[at + D_LENGTH])
    const seq = (d[at + D_SEQ] + skip) | 0
    const offset = d[at + D_OFFSET] + skip
    this.#segmentBytes = d[at + D_SEGMENT]
    if (length > 0 && seq !== w[b + S_RCV_NXT]) {
      this.#kept.keep(seq, memory, offset, length)
      this.#tellKept()
      // One for each, at once: the peer counts them to see what was lost (RFC 5681, 4.2).
      this.#owner.acknowledge()
      return
    }
    const taken = Math.min(length, this.#owner.room())
    if (taken > 0) {
      advance(w, b, taken)
      this.#owner.deliver(memory, offset, taken)
    }
    const gap = !this.#kept.empty
    if (gap) this.#deliverKept()
    this.#advertise()
    // Of a stream's ordinary segments every second one is acknowledged (RFC 9293, 3.8.6.3), everything else at once.
    const due = distance(w[b + S_RCV_NXT], w[b + S_RCV_ACKED])
    if (gap || skip > 0 || taken < d[at + D_LENGTH] || due >= 2 * this.#segmentBytes) this.#oweAck()
    else {
      this.#segments.received(taken, now)
      this.#owner.onAckOwed()
    }
  }

  /** @returns true when there was something to deliver */
  #deliverKept(): boolean {
    const { words: w, base: b } = this.#slot
    const from = w[b + S_RCV_NXT]
    for (;;) {
      const bytes = this.#kept.take(w[b + S_RCV_NXT], this.#owner.room())
      if (bytes === undefined) break
      advance(w, b, bytes.length)
      this.#owner.deliver(bytes, 0, bytes.length)
    }
    this.#tellKept()
    return w[b + S_RCV_NXT] !== from
  }

  #takeFin(now: number): void {
    const { words, base } = this.#slot
    if (this.#ended || this.#finSeq === undefined || this.#finSeq !== words[base + S_RCV_NXT]) return
    this.#ended = true
    this.#owner.onEnd(this.#finSeq, now)
  }

  /** Half of the room: messages cost more than their bytes, as in a kernel's socket (tcp_adv_win_scale). */
  #advertise(): boolean {
    const { words, base } = this.#slot
    return advertise(words, base, this.#owner.room() >> 1, this.#segmentBytes)
  }

  /** What acknowledgements tell of the bytes behind a gap. */
  #tellKept(): void {
    this.#segments.block = this.#selective ? this.#kept.block : undefined
  }

  #oweAck(): void {
    this.#segments.ackNow = true
    this.#owner.onAckOwed()
  }
}
