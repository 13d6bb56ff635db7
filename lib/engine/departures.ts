// What leaves a flow when it is its turn: the hello, what the stream has written, the FIN, an acknowledgement.
import { S_IRS, S_ISN, S_SND_MAX, S_SND_NXT, S_SND_WND } from '../flow/layout.ts'
import { distance } from '../flow/serial.ts'
import type { Outbox } from '../link/outbox.ts'
import { ACK, PSH } from '../native/layout.ts'
import { nextSequence } from '../wire/rules.ts'
import { roomToSend } from '../wire/stream-rules.ts'
import type { FlowLife, FlowParts } from './flow-parts.ts'
import type { Framing } from './framing.ts'

const NEVER = Number.POSITIVE_INFINITY

export class Departures {
  readonly #parts: FlowParts
  readonly #flow: FlowLife

  constructor(parts: FlowParts, flow: FlowLife) {
    this.#parts = parts
    this.#flow = flow
  }

  /** Puts what is to be sent into the outbox. Called by the engine some time after `mark`. */
  fill(outbox: Outbox, now: number): void {
    const parts = this.#parts
    if (!parts.flowing || parts.state.is !== 'open') return
    if (parts.hello.sayNow || parts.hello.repeatNow) this.#fillHello(outbox, now)
    if (parts.agreement.refusal !== undefined && !parts.hello.sayNow) {
      this.#flow.refuse(parts.agreement.refusal)
      return
    }
    if (!parts.queue.empty) {
      parts.queue.fill(outbox, now, this.#room)
      if (parts.queue.holdDue !== NEVER) this.#flow.schedule(parts.queue.holdDue)
    }
    if (parts.framing?.talks) this.#fillFrames(parts.framing, outbox, now)
    if (parts.farewell.finNow && parts.queue.empty && !this.#windowClosed && this.#room(outbox)) {
      parts.farewell.fill(outbox, now, parts.framing?.closeFrame())
      if (parts.farewell.answered && parts.farewell.peerEnded) this.#flow.wait(false, now)
      this.#flow.reschedule()
    }
    if (parts.segments.ackNow && this.#room(outbox)) {
      parts.segments.write(outbox.words, outbox.control(), ACK, parts.slot.words[parts.slot.base + S_SND_NXT], now)
    }
    if (parts.progress !== undefined) {
      parts.progress.sent(now, !parts.queue.empty || parts.farewell.finNow, parts.farewell.begun)
      if (parts.progress.dueMs !== NEVER) this.#flow.schedule(parts.progress.dueMs)
    }
  }

  /** A FIN takes a number of the window too, and a real TCP may drop what lies outside (RFC 9293, 3.10.7.4). */
  get #windowClosed(): boolean {
    const { progress, slot } = this.#parts
    return progress !== undefined && roomToSend(slot.words, slot.base) === 0
  }

  /** True when a descriptor may be added; else the flow waits for its turn. */
  readonly #room = (outbox: Outbox): boolean => {
    if (outbox.makeRoom()) return true
    this.#flow.mark()
    return false
  }

  /** What the framing has to say beside messages. Behind our FIN nothing may follow. */
  #fillFrames(framing: Framing, outbox: Outbox, now: number): void {
    while (!this.#parts.farewell.begun && this.#room(outbox)) {
      const frame = framing.control(now, this.#parts.queue.empty)
      if (frame === undefined) return
      this.#fillAlone(outbox, frame, nextSequence(this.#parts.slot.words, this.#parts.slot.base, frame.length), now)
    }
  }

  /** One segment of ours. */
  #fillAlone(outbox: Outbox, payload: Buffer, seq: number, now: number): void {
    this.#parts.segments.write(outbox.words, outbox.open(undefined, 1, payload.length), ACK | PSH, seq, now)
    outbox.add(payload)
  }

  #fillHello(outbox: Outbox, now: number): void {
    const parts = this.#parts
    const payload = parts.hello.payload
    if (payload === undefined || !this.#room(outbox)) return
    const { words: w, base: b } = parts.slot
    let seq = (w[b + S_ISN] + 1) | 0
    const repeat = !parts.hello.sayNow
    parts.hello.sayNow = false
    parts.hello.repeatNow = false
    // Behind our FIN nothing may follow: the answer then has numbers that were used.
    if (!repeat) seq = parts.farewell.begun ? (w[b + S_SND_NXT] - payload.length) | 0 : nextSequence(w, b, payload.length)
    else if (distance(w[b + S_SND_MAX], seq) > w[b + S_SND_WND]) {
      parts.hello.giveUp()
      this.#flow.helloMissed()
      return
    } else {
      // The kernel at the other end may still wait for the third ACK; data does not count there, it never gets past the filter.
      parts.segments.writeWith(outbox.words, outbox.control(), ACK, seq, (w[b + S_IRS] + 1) | 0, now)
    }
    if (this.#room(outbox)) this.#fillAlone(outbox, payload, seq, now)
    if (parts.hello.state !== 'asking') return
    parts.hello.asked(now)
    this.#flow.reschedule()
  }
}
