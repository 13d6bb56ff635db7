// The messages that a flow's stream has handed over, on their way into the outbox: cut into trains, numbered, held back where they must be.
import { guarded } from '../errors.ts'
import { F_BYTES_OUT, F_MESSAGES_OUT, S_DIALECT, S_MAX_MESSAGE, S_SET_BACKS, S_SND_NXT, S_SND_UNA, S_SND_WND } from '../flow/layout.ts'
import { distance } from '../flow/serial.ts'
import type { Outbox, TrainOwner } from '../link/outbox.ts'
import { view } from '../message-arena.ts'
import { ACK, PSH } from '../native/layout.ts'
import type { Drop, Outgoing } from '../transport.ts'
import { DIALECT_NATIVE } from '../wire/dialect.ts'
import { leavesWindow, nextSequence, trainLimit, windowLeft } from '../wire/rules.ts'
import { roomToSend } from '../wire/stream-rules.ts'
import { EARLY_BYTES } from './orphans.ts'
import type { Segments } from './segments.ts'
import type { Slot } from './slot.ts'

/** Until the first acknowledgement the peer's application may not have accepted yet and keeps `EARLY_BYTES`; then data is sent anyway. */
const HOLD_MS = 1000
/** How long an acknowledgement that widens the window is waited for. TCP_RTO_MIN: then the kernel itself would use old numbers again. */
const STALLED_MS = 200
/** How long a real TCP may keep its window below half of its widest, and a message waiting that does not fit into it. */
const SMALL_WINDOW_MS = 5000
/** More segments in one train overrun the rings of veth devices and backlogs. */
const TRAIN_SEGMENTS = 64
/** An IP packet has 65 535 bytes, headers and options included. */
const TRAIN_BYTES = 65000

/** Whoever's messages these are. */
export interface QueueOwner extends TrainOwner {
  /** Messages were dropped that no longer fit. Called while the outbox is being filled. */
  outgrown(drop: Drop): void
}

const NOTHING: readonly Outgoing[] = []

export class SendQueue {
  readonly #slot: Slot
  readonly #segments: Segments
  readonly #owner: QueueOwner
  /** Set once the peer is known to split trains: until then every message is a train of one, with PSH. */
  trains = false
  /** The peer is a real TCP: the window is never left, and for a window that is too small a message is cut. */
  stream = false
  /** Bytes of each message that are not the application's. */
  header = 0
  /** When held messages go although nothing was acknowledged; Infinity while nothing is held back. */
  holdDue = Number.POSITIVE_INFINITY
  #messages: readonly Outgoing[] = NOTHING
  #next = 0
  /** Where the rest of a run begins that has not gone as a whole. */
  #offset = 0
  #inOutbox = 0
  #done: (() => void) | undefined
  #holding = true
  #sentBytes = 0
  /** The widest window that was waited at, the acknowledgement then, and whether so much was acknowledged since and it has not grown. */
  #waitedAt = 0
  #waitedUna = 0
  #grown = false
  /** The acknowledgement after which none came in time. */
  #stalledAt: number | undefined
  /** Of a real TCP's windows. */
  #widest = 0

  constructor(slot: Slot, segments: Segments, owner: QueueOwner) {
    this.#slot = slot
    this.#segments = segments
    this.#owner = owner
  }

  /** True when no message waits to be numbered. */
  get empty(): boolean {
    return this.#next >= this.#messages.length
  }

  put(messages: readonly Outgoing[], done: () => void): void {
    this.#messages = messages
    this.#next = 0
    this.#offset = 0
    this.#done = done
  }

  /** The flow is open: until `unhold` only what an unaccepted peer keeps is sent. */
  hold(now: number): void {
    this.holdDue = now + HOLD_MS
  }

  /** The peer has acknowledged something. */
  unhold(): void {
    this.#holding = false
    this.holdDue = Number.POSITIVE_INFINITY
  }

  /** Time is up. */
  holdNoLonger(): void {
    const { words, base } = this.#slot
    this.#stalledAt = words[base + S_SND_UNA]
    this.#widest = words[base + S_SND_WND]
    this.unhold()
  }

  /**
   * A window of this library grows with what it takes in until it is at its widest, which takes a few round trips. Meanwhile it is not left:
   * setting back would be seen, and soon there will be room.
   */
  #windowGrows(): boolean {
    const { words: w, base: b } = this.#slot
    const una = w[b + S_SND_UNA]
    if (w[b + S_SND_WND] > this.#waitedAt) this.#grown = false
    else if (distance(una, this.#waitedUna) >= this.#waitedAt) this.#grown = true
    return !this.#grown && w[b + S_DIALECT] === DIALECT_NATIVE && this.#stalledAt !== una
  }

  /** Until there is an acknowledgement; each tells of a wider window, or of room in the old one. */
  #wait(now: number): void {
    const { words: w, base: b } = this.#slot
    this.holdDue = now + STALLED_MS
    if (w[b + S_SND_WND] <= this.#waitedAt) return
    this.#waitedAt = w[b + S_SND_WND]
    this.#waitedUna = w[b + S_SND_UNA]
  }

  /** @param room false when the outbox takes nothing now; the flow has then arranged to be called again */
  fill(outbox: Outbox, now: number, room: (outbox: Outbox) => boolean): void {
    const { words: w, base: b, floats, floatBase: f } = this.#slot
    const messages = this.#messages
    while (this.#next < messages.length && room(outbox)) {
      const first = messages[this.#next]
      const max = w[b + S_MAX_MESSAGE]
      // Of a stream's bytes none may be missing, but they may be cut anywhere.
      const segment = this.stream ? Math.min(first.length, max) : (first.segmentSize ?? first.length)
      if (segment > max) {
        this.#drop(first, segment)
        continue
      }
      const whole = first.segmentSize === undefined && !this.stream
      const grows = this.#windowGrows()
      const limit = this.trains ? Math.min(TRAIN_BYTES, grows ? windowLeft(w, b) : trainLimit(w, b)) : 0
      const bytes = whole ? this.#messagesWithin(limit) : this.#runWithin(segment, limit, now)
      // What the peer acknowledges next makes room.
      if (bytes === 0) return
      // An acknowledgement or holdDue goes on.
      if (this.#holding && (this.#sentBytes + bytes > EARLY_BYTES || leavesWindow(w, b, bytes))) return
      if (grows && leavesWindow(w, b, bytes)) {
        this.#wait(now)
        return
      }
      this.#sentBytes += bytes
      const before = w[b + S_SND_NXT]
      const seq = nextSequence(w, b, bytes)
      if (seq !== before) w[b + S_SET_BACKS]++
      const count = bytes > segment ? Math.ceil(bytes / segment) : 1
      this.#segments.write(outbox.words, outbox.open(this.#owner, count, segment), ACK | PSH, seq, now, count)
      if (whole) for (let i = 0; i < count; i++) outbox.add(messages[this.#next++])
      else {
        const end = this.#offset + bytes
        outbox.add(bytes === first.length ? first : view(first, this.#offset, end))
        this.#offset = end
        if (end === first.length) {
          this.#offset = 0
          this.#next++
        }
      }
      this.#inOutbox++
      floats[f + F_MESSAGES_OUT] += count
      floats[f + F_BYTES_OUT] += bytes - count * this.header
    }
  }

  /** The path has become too narrow for a message, or for what is left of a run, since it was written. */
  #drop(message: Outgoing, segment: number): void {
    const { words: w, base: b } = this.#slot
    const count = Math.ceil((message.length - this.#offset) / segment)
    this.#next++
    this.#offset = 0
    const drop: Drop = { reason: 'message-size', size: segment - this.header, max: w[b + S_MAX_MESSAGE] - this.header }
    this.#owner.outgrown(count > 1 ? { ...drop, count } : drop)
    // The flow is being filled: who may come back here is told later.
    const done = this.#done
    if (this.empty && this.#inOutbox === 0) {
      process.nextTick(() => {
        if (this.#done === done) this.#settle()
      })
    }
  }

  /** Bytes of the next train of single messages: equal ones, the last may be shorter, at most `limit` unless it is one message. */
  #messagesWithin(limit: number): number {
    const messages = this.#messages
    const segment = messages[this.#next].length
    const end = Math.min(messages.length, this.#next + TRAIN_SEGMENTS)
    let bytes = segment
    for (let i = this.#next + 1; i < end; i++) {
      const message = messages[i]
      const size = message.length
      if (size > segment || bytes + size > limit || message.segmentSize !== undefined) break
      bytes += size
      if (size < segment) break
    }
    return bytes
  }

  /** Bytes of the next train of a run; 0 when a real TCP takes none now. */
  #runWithin(segment: number, limit: number, now: number): number {
    const left = this.#messages[this.#next].length - this.#offset
    const bytes = Math.min(left, segment * Math.max(1, Math.min(TRAIN_SEGMENTS, Math.floor(limit / segment))))
    if (!this.stream) return bytes
    const { words: w, base: b } = this.#slot
    const room = roomToSend(w, b)
    this.#widest = Math.max(this.#widest, w[b + S_SND_WND])
    if (bytes <= room) return bytes
    // A part only if it would have to wait for ever: windows smaller than a segment are met in peers with tiny buffers.
    return w[b + S_SND_NXT] === w[b + S_SND_UNA] ? this.#partWithin(room, now) : 0
  }

  /**
   * What a window takes that is smaller than a message. Not while it is below half of its widest (RFC 9293, 3.8.6.2.1): a crumb more may be what the
   * kernel has no memory left for, its window notwithstanding (tcp_data_queue, TCPRcvQDrop), and nobody would send it again.
   */
  #partWithin(room: number, now: number): number {
    if (room >= this.#widest >> 1) return room
    if (room > 0 && this.holdDue === Number.POSITIVE_INFINITY) this.holdDue = now + SMALL_WINDOW_MS
    return 0
  }

  /** The outbox has passed one train on. */
  trainDone(): void {
    if (--this.#inOutbox === 0 && this.empty) this.#settle()
  }

  /** No more of it is to be numbered. What is in the outbox already still goes: its buffers are given back when it has gone. */
  abandon(): void {
    this.#next = this.#messages.length
    if (this.#inOutbox === 0) this.#settle()
  }

  /** The stream may reuse its buffers. */
  #settle(): void {
    const done = this.#done
    this.#done = undefined
    this.#messages = NOTHING
    this.#next = 0
    if (done !== undefined) guarded(done)
  }
}
