// How a flow ends in good order: our FIN, repeated until it is answered or clearly never will be, and the peer's FIN with its grace.
import { S_DIALECT, S_RCV_NXT, S_SND_MAX, S_SND_NXT, S_SND_UNA } from '../flow/layout.ts'
import { after, distance } from '../flow/serial.ts'
import type { Outbox } from '../link/outbox.ts'
import { ACK, FIN, PSH } from '../native/layout.ts'
import { DIALECT_TCP } from '../wire/dialect.ts'
import type { Segments } from './segments.ts'
import type { Slot } from './slot.ts'

/** Repeats at 0.2, 0.6, 1.4, 3 s, then the peer is taken for gone. */
const REPEAT_MS = 200
const REPEATS = 4
/** tcpraw never answers a FIN: its rule drops what its kernel sends. */
const REPEATS_UNHEARD = 1
/** How long messages that were reordered behind the peer's FIN are still delivered. */
const GRACE_MS = 20
/** How long a flow whose stream has closed waits for the peer's FIN. */
const LINGER_MS = 1000

const NEVER = Number.POSITIVE_INFINITY

export class Farewell {
  readonly #slot: Slot
  readonly #segments: Segments
  /** Our FIN is to go with the next flush. */
  finNow = false
  finDue = NEVER
  graceDue = NEVER
  lingerDue = NEVER
  /** Our FIN was answered, or given up. */
  answered = false
  /** The peer's FIN has come. */
  peerFin = false
  /** Its grace is over: what comes now is late. */
  peerEnded = false
  #seq = 0
  #sent = 0
  #done: (() => void) | undefined
  #asked = false
  #alone = false

  constructor(slot: Slot, segments: Segments) {
    this.#slot = slot
    this.#segments = segments
  }

  /** True once our side is to be ended: no message may follow. */
  get asked(): boolean {
    return this.#asked
  }

  /** Our FIN has been sent. */
  get begun(): boolean {
    return this.#sent > 0
  }

  ask(done: () => void): void {
    this.#asked = true
    this.#done = done
    this.finNow = true
  }

  /**
   * The FIN carries the highest sequence number ever sent, wherever numbering is now; the peer's acknowledgement passes over all that was lost.
   *
   * @param words goes with it, the same each time
   */
  fill(outbox: Outbox, now: number, words?: Buffer): void {
    const { words: w, base: b } = this.#slot
    const length = words?.length ?? 0
    if (this.#sent === 0) {
      this.#seq = (w[b + S_SND_MAX] + length) | 0
      w[b + S_SND_MAX] = (this.#seq + 1) | 0
      // Until the FIN is acknowledged our acknowledgements stand where it does. Behind it, whoever has not seen it would take it for one of the lost
      // bytes that are acknowledged with all others, and so nobody would send it again. A real TCP is not misled, and wants the true number.
      w[b + S_SND_NXT] = w[b + S_DIALECT] === DIALECT_TCP ? w[b + S_SND_MAX] : this.#seq
    }
    const at = words === undefined ? outbox.control() : outbox.open(undefined, 1, length)
    this.#segments.write(outbox.words, at, words === undefined ? ACK | FIN : ACK | FIN | PSH, (this.#seq - length) | 0, now)
    if (words !== undefined) outbox.add(words)
    this.finNow = false
    this.finDue = now + REPEAT_MS * 2 ** this.#sent++
    if (this.#alone) this.#settle()
  }

  /** The peer has acknowledged something. @returns true if it was our FIN, for the first time */
  acknowledged(): boolean {
    if (this.#sent === 0 || this.answered || !after(this.#slot.words[this.#slot.base + S_SND_UNA], this.#seq)) return false
    this.#settle()
    return true
  }

  /**
   * The answer has not come in time.
   *
   * @param answers false for a peer that is not known to answer a FIN at all: fewer repeats
   * @returns true when the peer is given up
   */
  overdue(answers: boolean): boolean {
    this.finDue = NEVER
    if (this.#sent <= (answers ? REPEATS : REPEATS_UNHEARD)) {
      this.finNow = true
      return false
    }
    this.#settle()
    return true
  }

  /**
   * The peer's FIN, standing at `seq`.
   *
   * @returns false when data has been seen behind it: then it is not the peer's own
   */
  take(seq: number, now: number): boolean {
    const { words: w, base: b } = this.#slot
    const ahead = distance(seq, w[b + S_RCV_NXT])
    // Behind a lost FIN its sender's next acknowledgement stands one higher, so that the repeat finds its own number passed over.
    if (ahead < -1) return false
    if (this.peerFin) return ahead === -1
    w[b + S_RCV_NXT] = (seq + 1) | 0
    this.peerFin = true
    this.graceDue = now + GRACE_MS
    return true
  }

  /** The peer's process has ended after its FIN: ours is sent once and not waited for. */
  peerGone(): void {
    this.#alone = true
    if (this.#sent > 0 && !this.answered) this.#settle()
  }

  /** The stream has closed, our FIN is answered, the peer's has not come (FIN-WAIT-2). */
  linger(now: number): void {
    this.lingerDue = now + LINGER_MS
  }

  /** The flow is over, whatever was still expected. */
  abandon(): void {
    const done = this.#done
    this.#done = undefined
    if (done !== undefined) process.nextTick(done)
  }

  #settle(): void {
    this.answered = true
    this.finDue = NEVER
    this.abandon()
  }
}
