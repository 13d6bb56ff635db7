// What leaves a flow when it is its turn: the hello, what the stream has written, the FIN, an acknowledgement.
import { S_IRS, S_ISN, S_SND_MAX, S_SND_NXT, S_SND_WND } from '../flow/layout.ts'
import { distance } from '../flow/serial.ts'
import { ACK, PSH } from '../native/layout.ts'
import { nextSequence } from '../wire/rules.ts'
import type { FlowLife, FlowParts } from './flow-parts.ts'
import type { Outbox } from './outbox.ts'

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
    if (!parts.queue.empty) {
      parts.queue.fill(outbox, now, this.#room)
      if (parts.queue.holdDue !== NEVER) this.#flow.schedule(parts.queue.holdDue)
    }
    if (parts.farewell.finNow && parts.queue.empty && this.#room(outbox)) {
      parts.farewell.fill(outbox, now)
      if (parts.farewell.answered && parts.farewell.peerEnded) this.#flow.wait(false, now)
      this.#flow.reschedule()
    }
    if (parts.segments.ackNow && this.#room(outbox)) {
      parts.segments.write(outbox.words, outbox.control(), ACK, parts.slot.words[parts.slot.base + S_SND_NXT], now)
    }
  }

  /** True when a descriptor may be added; else the flow waits for its turn. */
  readonly #room = (outbox: Outbox): boolean => {
    if (outbox.makeRoom()) return true
    this.#flow.mark()
    return false
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
    if (!repeat) seq = nextSequence(w, b, payload.length)
    else if (distance(w[b + S_SND_MAX], seq) > w[b + S_SND_WND]) {
      parts.hello.giveUp()
      parts.speakTcpraw()
      return
    } else {
      // The kernel at the other end may still wait for the third ACK; data does not count there, it never gets past the filter.
      parts.segments.writeWith(outbox.words, outbox.control(), ACK, seq, (w[b + S_IRS] + 1) | 0, now)
    }
    if (this.#room(outbox)) {
      parts.segments.write(outbox.words, outbox.open(undefined, 1, payload.length), ACK | PSH, seq, now)
      outbox.add(payload)
    }
    if (parts.hello.state !== 'asking') return
    parts.hello.asked(now)
    this.#flow.reschedule()
  }
}
