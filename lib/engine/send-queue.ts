// The messages that a flow's stream has handed over, on their way into the outbox: cut into trains, numbered, held back where they must be.
import { guarded } from '../errors.ts'
import { F_BYTES_OUT, F_LAST_SENT_MS, F_MESSAGES_OUT, S_SET_BACKS, S_SND_NXT } from '../flow/layout.ts'
import { ACK, PSH } from '../native/layout.ts'
import { leavesWindow, nextSequence, trainLimit } from '../wire/rules.ts'
import { EARLY_BYTES } from './orphans.ts'
import type { Outbox, TrainOwner } from './outbox.ts'
import type { Segments } from './segments.ts'
import type { Slot } from './slot.ts'

/** Until the first acknowledgement the peer's application may not have accepted yet and keeps `EARLY_BYTES`; then data is sent anyway. */
const HOLD_MS = 1000
/** More segments in one train overrun the rings of veth devices and backlogs. */
const TRAIN_SEGMENTS = 64
/** An IP packet has 65 535 bytes, headers and options included. */
const TRAIN_BYTES = 65000

const NOTHING: readonly Uint8Array[] = []

export class SendQueue {
  readonly #slot: Slot
  readonly #segments: Segments
  readonly #owner: TrainOwner
  /** Set once the peer is known to split trains: until then every message is a train of one, with PSH. */
  trains = false
  /** When held messages go although nothing was acknowledged; Infinity while nothing is held back. */
  holdDue = Number.POSITIVE_INFINITY
  #messages: readonly Uint8Array[] = NOTHING
  #next = 0
  #inOutbox = 0
  #done: (() => void) | undefined
  #holding = true
  #sentBytes = 0

  constructor(slot: Slot, segments: Segments, owner: TrainOwner) {
    this.#slot = slot
    this.#segments = segments
    this.#owner = owner
  }

  /** True when no message waits to be numbered. */
  get empty(): boolean {
    return this.#next >= this.#messages.length
  }

  put(messages: readonly Uint8Array[], done: () => void): void {
    this.#messages = messages
    this.#next = 0
    this.#done = done
  }

  /** The flow is open: until `unhold` only what an unaccepted peer keeps is sent. */
  hold(now: number): void {
    this.holdDue = now + HOLD_MS
  }

  /** The peer has acknowledged something, or time is up. */
  unhold(): void {
    this.#holding = false
    this.holdDue = Number.POSITIVE_INFINITY
  }

  /** @param room false when the outbox takes nothing now; the flow has then arranged to be called again */
  fill(outbox: Outbox, now: number, room: (outbox: Outbox) => boolean): void {
    const { words: w, base: b, floats, floatBase: f } = this.#slot
    const messages = this.#messages
    while (this.#next < messages.length && room(outbox)) {
      const from = this.#next
      const segment = messages[from].length
      let count = 1
      let bytes = segment
      if (this.trains) {
        const limit = Math.min(TRAIN_BYTES, trainLimit(w, b))
        while (count < TRAIN_SEGMENTS && from + count < messages.length) {
          const size = messages[from + count].length
          if (size > segment || bytes + size > limit) break
          bytes += size
          count++
          if (size < segment) break
        }
      }
      // An acknowledgement or holdDue goes on.
      if (this.#holding && (this.#sentBytes + bytes > EARLY_BYTES || leavesWindow(w, b, bytes))) return
      this.#sentBytes += bytes
      const before = w[b + S_SND_NXT]
      const seq = nextSequence(w, b, bytes)
      if (seq !== before) w[b + S_SET_BACKS]++
      this.#segments.write(outbox.words, outbox.train(this.#owner, messages, from, count, segment), ACK | PSH, seq, now)
      this.#next += count
      this.#inOutbox++
      floats[f + F_MESSAGES_OUT] += count
      floats[f + F_BYTES_OUT] += bytes
    }
    floats[f + F_LAST_SENT_MS] = now
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
