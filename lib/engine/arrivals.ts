// What an arriving segment does to its flow: judged by the rules, taken in, handed to the stream, or answered.
import { guarded } from '../errors.ts'
import { F_LAST_HEARD_MS, S_DIALECT, S_IRS, S_ISN, S_RCV_WINDOW_FIELD, S_RCV_WND, S_SND_MAX, S_SND_NXT, S_SND_WND } from '../flow/layout.ts'
import {
  ACK,
  D_ACK,
  D_FLAGS,
  D_IFINDEX,
  D_LENGTH,
  D_MAC_HIGH,
  D_MAC_LOW,
  D_MSS,
  D_OFFSET,
  D_SEGMENT,
  D_SEQ,
  D_TSVAL,
  D_WINDOW,
  FIN,
  RST,
  SYN,
} from '../native/layout.ts'
import { DIALECT_NATIVE } from '../wire/dialect.ts'
import { SPLITS_TRAINS } from '../wire/hello.ts'
import {
  ACCEPTED,
  absorb,
  asksForAck,
  BAD_ACK,
  BAD_TIMESTAMP,
  beStrict,
  floorsAreLow,
  isCarriersFin,
  judge,
  judgeReset,
  nextAck,
  OUT_OF_WINDOW,
  raiseFloors,
  type Verdict,
} from '../wire/rules.ts'
import { ByteStream } from './byte-stream.ts'
import { EarlySegments } from './early.ts'
import type { FlowLife, FlowParts } from './flow-parts.ts'
import type { Framing } from './framing.ts'
import { Progress } from './progress.ts'
import { judgeLate, resetFor } from './time-wait.ts'

/** How much older than the newest an acknowledgement or an echo may be and still be believed, at least; at most twice that. */
const FLOORS_MS = 5000
/** The same without timestamps: the acknowledgement alone keeps out who guesses. */
const FLOORS_UNSTAMPED_MS = 1000

const NEVER = Number.POSITIVE_INFINITY

export class Arrivals {
  readonly #parts: FlowParts
  readonly #flow: FlowLife
  /** What arrived while the flow was opening, or before its framing was agreed on. */
  readonly early = new EarlySegments()
  /** Where the peer is a real TCP, or may be: one that has not shown the listener's key is dealt with as the kernel would, but for what it says. */
  stream: ByteStream | undefined
  /** What is taken and advertised once it has. */
  #ownWindow: readonly [number, number] = [0, 0]
  #floorsDue = 0

  constructor(parts: FlowParts, flow: FlowLife) {
    this.#parts = parts
    this.#flow = flow
    if (parts.progress !== undefined) this.stream = this.#makeStream(parts.progress)
    else if (parts.hello.locked) this.stream = this.#makeStream(new Progress(parts.slot)) // nothing is sent whose progress would count
  }

  /** The flow is open. @param selective whether the handshake agreed on selective acknowledgements */
  open(selective: boolean): void {
    const { words, base } = this.#parts.slot
    this.#ownWindow = [words[base + S_RCV_WND], words[base + S_RCV_WINDOW_FIELD]]
    this.stream?.open(selective)
  }

  /** A captured train of this flow. `memory` is overwritten after the call. */
  receive(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const parts = this.#parts
    const flags = d[at + D_FLAGS]
    if (!parts.flowing || (flags & (SYN | RST)) !== 0) {
      this.#receiveUnusual(d, at, memory, now)
      return
    }
    if (this.stream !== undefined && !this.#unlocks(d, at, memory)) {
      this.#heard(this.stream.receive(d, at, memory, now), d, at, now)
      return
    }
    const { words: w, base: b } = parts.slot
    if ((flags & FIN) !== 0 && isCarriersFin(w, b, d, at)) {
      parts.host.counters.staleFins++
      this.#takeCarriersFin(now)
      return
    }
    if (!this.#heard(judge(w, b, d, at), d, at, now)) return
    if (absorb(w, b, d, at)) this.#acknowledged(now)
    if (d[at + D_LENGTH] > 0) this.#takeData(d, at, memory, now)
    else if ((flags & FIN) === 0 && asksForAck(w, b, d, at) && parts.segments.asked(now)) this.#flow.mark()
    if ((flags & FIN) !== 0) this.#takeFin((d[at + D_SEQ] + d[at + D_LENGTH]) | 0, now)
  }

  /** @returns true when the segment counts as the peer's */
  #heard(verdict: Verdict, d: Int32Array, at: number, now: number): boolean {
    if (verdict !== ACCEPTED) {
      this.#refuse(verdict)
      return false
    }
    const { slot, link } = this.#parts
    slot.floats[slot.floatBase + F_LAST_HEARD_MS] = now
    if (now >= this.#floorsDue) this.raiseFloors(now)
    link.path?.heard(d[at + D_IFINDEX], d[at + D_MAC_HIGH], d[at + D_MAC_LOW])
    return true
  }

  #makeStream(progress: Progress): ByteStream {
    const parts = this.#parts
    return new ByteStream(parts.slot, parts.segments, progress, {
      // Whoever closes reads no more: it is acknowledged all the same, so that the peer's FIN comes.
      room: () => parts.sink?.room() ?? NEVER,
      deliver: (memory, offset, length) => parts.deliver(memory, offset, length, length, 0),
      onAcknowledged: (now) => {
        this.#acknowledged(now)
        if (!parts.queue.empty || parts.farewell.finNow) this.#flow.mark()
      },
      onEnd: (seq, now) => this.#takeFin(seq, now),
      onAckOwed: () => (parts.segments.ackNow ? this.#flow.mark() : this.#flow.schedule(parts.segments.ackDue)),
      acknowledge: () => this.#answer(),
    })
  }

  #refuse(verdict: Verdict): void {
    const parts = this.#parts
    const { counters } = parts.host
    if (verdict === OUT_OF_WINDOW) counters.window++
    else if (verdict === BAD_ACK) counters.ack++
    else if (verdict === BAD_TIMESTAMP) counters.timestamp++
    // RFC 5961, 5. To a peer who is what it seems to be it also tells the newest of our numbers.
    if (parts.strict && verdict !== OUT_OF_WINDOW) this.#challenge()
  }

  #takeData(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const parts = this.#parts
    const length = d[at + D_LENGTH]
    const offset = d[at + D_OFFSET]
    const segment = d[at + D_SEGMENT]
    if (parts.segments.received(length, now)) this.#flow.mark()
    else this.#flow.schedule(parts.segments.ackDue)
    // A hello that is repeated may have been merged with messages before it, as the last of their train.
    const last = length <= segment ? length : ((length - 1) % segment) + 1
    const before = length - last
    const rest = this.#takenAsHello((d[at + D_SEQ] + before) | 0, memory, offset + before, last) ? before : length
    if (rest === 0) return
    if (parts.agreement.pending) this.#keepUnagreed(d, at, memory)
    else if (parts.farewell.peerEnded) parts.host.counters.late++
    else if (parts.framing === undefined) parts.deliver(memory, offset, rest, segment, 0)
    else this.#takeFrames(parts.framing, memory, offset, rest, segment, now)
  }

  /** A listener that has agreed does not know whether its answer has come: what it sends meanwhile is framed. A dialler that has not agreed sends nothing framed. */
  #keepUnagreed(d: Int32Array, at: number, memory: Uint8Array): void {
    const { settings, host } = this.#parts
    if (settings.role === 'listener' || !this.early.keep(d, at, memory)) host.counters.late++
  }

  #takeFrames(framing: Framing, memory: Uint8Array, offset: number, length: number, segment: number, now: number): void {
    framing.take(memory, offset, length, segment, now)
    if (framing.talks) this.#flow.mark()
    if (framing.dueMs !== NEVER) this.#flow.schedule(framing.dueMs)
  }

  /**
   * Whether a segment shows that the peer has the listener's key, so that the flow is native from here on. Only its first bytes can: a dialler with a key
   * sends nothing but its hello until that was answered, and who has sent anything else is a stranger for good.
   */
  #unlocks(d: Int32Array, at: number, memory: Uint8Array): boolean {
    const parts = this.#parts
    const { words: w, base: b } = parts.slot
    const [seq, length] = [d[at + D_SEQ], d[at + D_LENGTH]]
    if (parts.hello.state !== 'waiting' || length === 0 || seq !== ((w[b + S_IRS] + 1) | 0) || judge(w, b, d, at) !== ACCEPTED) return false
    if (parts.hello.take(true, memory, d[at + D_OFFSET], length) === undefined) {
      this.#flow.helloMissed()
      return false
    }
    this.stream = undefined
    parts.segments.block = undefined
    ;[w[b + S_RCV_WND], w[b + S_RCV_WINDOW_FIELD]] = this.#ownWindow
    this.#meet(seq)
    return true
  }

  /** @returns true when the message was a hello, which is never delivered */
  #takenAsHello(seq: number, memory: Uint8Array, offset: number, length: number): boolean {
    const parts = this.#parts
    const before = parts.hello.state
    const first = seq === ((parts.slot.words[parts.slot.base + S_IRS] + 1) | 0)
    const hello = parts.hello.take(first, memory, offset, length)
    if (hello === undefined) {
      if (before !== parts.hello.state) this.#flow.helloMissed()
      return false
    }
    if (parts.settings.role === 'listener') parts.hello.sayNow = true
    if (hello === 'met') this.#meet(seq)
    parts.segments.ackNow = true
    this.#flow.mark()
    return true
  }

  /** The peer's hello, standing at `seq`, has come for the first time. */
  #meet(seq: number): void {
    const parts = this.#parts
    const { words, base } = parts.slot
    words[base + S_DIALECT] = DIALECT_NATIVE
    // Where the numbers were learned from what came first, this is their true beginning.
    if (parts.settings.role === 'listener') words[base + S_IRS] = (seq - 1) | 0
    if (parts.settings.options.strict) beStrict(words, base)
    parts.liveness.answers = true
    parts.queue.trains = parts.link.peerSplitsTrains = (parts.hello.peerCapabilities & SPLITS_TRAINS) !== 0
    parts.hello.repeatNow = false
    if (parts.agreement.met(parts.hello.peerCapabilities)) this.#agreed()
  }

  /** The stream may begin; the first report goes with our acknowledgement. */
  #agreed(): void {
    const { framing, agreement } = this.#parts
    framing?.report()
    guarded(() => agreement.settle())
  }

  #acknowledged(now: number): void {
    const parts = this.#parts
    if (floorsAreLow(parts.slot.words, parts.slot.base)) this.raiseFloors(now)
    if (parts.queue.holdDue !== NEVER) {
      parts.queue.unhold()
      if (!parts.queue.empty) this.#flow.mark()
    }
    if (parts.farewell.acknowledged() && parts.farewell.peerEnded) this.#flow.wait(false, now)
  }

  /** From time to time: what is too old. */
  raiseFloors(now: number): void {
    const parts = this.#parts
    this.#floorsDue = now + (parts.segments.timestamps === 0 ? FLOORS_UNSTAMPED_MS : FLOORS_MS)
    raiseFloors(parts.slot.words, parts.slot.base)
  }

  #takeCarriersFin(now: number): void {
    const parts = this.#parts
    if (!parts.farewell.peerFin) {
      this.#flow.lost(now)
      return
    }
    // It had said goodbye before: what it sent is still read to the end, only an answer to our own FIN will not come.
    parts.farewell.peerGone()
    if (parts.farewell.answered && parts.farewell.peerEnded) this.#flow.wait(false, now)
  }

  #takeFin(seq: number, now: number): void {
    const parts = this.#parts
    if (!parts.farewell.take(seq, now)) {
      parts.host.counters.reset++
      return
    }
    // The peer sends no more: it gets to know now what has arrived of it.
    parts.framing?.report()
    parts.segments.ackNow = true
    this.#flow.mark()
    this.#flow.reschedule()
  }

  /** Everything but an ordinary segment of an open flow. */
  #receiveUnusual(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const parts = this.#parts
    switch (parts.state.is) {
      case 'opening':
        this.#receiveOpening(parts.state, d, at, memory)
        return
      case 'open':
        this.#receiveOdd(d, at, memory, now)
        return
      case 'timeWait':
        this.#receiveLate(parts.state.aborted, d, at)
        return
      case 'free':
        return
    }
  }

  #receiveOpening(state: { seen: boolean }, d: Int32Array, at: number, memory: Uint8Array): void {
    const parts = this.#parts
    const flags = d[at + D_FLAGS]
    if ((flags & (SYN | ACK | RST)) === (SYN | ACK)) {
      const [ifindex, tsval, mss] = [d[at + D_IFINDEX], d[at + D_TSVAL], d[at + D_MSS]]
      this.#flow.begin({ irs: d[at + D_SEQ], isn: (d[at + D_ACK] - 1) | 0, ifindex, tsval, mss })
      parts.slot.words[parts.slot.base + S_SND_WND] = d[at + D_WINDOW]
      state.seen = true
    } else if (state.seen) {
      if (!this.early.keep(d, at, memory)) parts.host.counters.orphan++
    } else if ((flags & (ACK | RST)) === ACK && parts.host.mayAnswer()) {
      // Half-open (RFC 9293, 3.5.1): the peer still has our predecessor's connection. Our carrier's filter hides this from the kernel.
      this.#flow.control(RST, d[at + D_ACK], 0)
    }
  }

  /** SYN and RST on an open flow, and everything on one whose numbers are not known yet. */
  #receiveOdd(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const parts = this.#parts
    const { words: w, base: b } = parts.slot
    const kind = d[at + D_FLAGS] & (SYN | RST | ACK)
    if (parts.learning) {
      if (kind !== ACK) return
      const [ifindex, tsval] = [d[at + D_IFINDEX], d[at + D_TSVAL]]
      this.#flow.begin({ irs: (d[at + D_SEQ] - 1) | 0, isn: (d[at + D_ACK] - 1) | 0, ifindex, tsval, mss: undefined })
      parts.learning = false
      parts.flowing = true
      parts.hello.lookAnywhere()
      this.#flow.mark()
      this.receive(d, at, memory, now)
    } else if (kind === (SYN | ACK) && d[at + D_SEQ] === w[b + S_IRS]) {
      // The third ACK was lost: exactly these numbers, everything else the listening kernel answers with a reset or not at all.
      this.#flow.control(ACK, (w[b + S_ISN] + 1) | 0, (w[b + S_IRS] + 1) | 0)
    } else if ((kind & RST) !== 0) {
      const verdict = judgeReset(w, b, d, at)
      if (verdict === 'reset') {
        this.#flow.supersede()
        return
      }
      parts.host.counters.reset++
      if (verdict === 'challenge') this.#challenge()
    } else {
      parts.host.counters.syn++
      this.#challenge()
    }
  }

  /** RFC 5961: a plain ACK, to which a peer that really has nothing answers with an exact reset. */
  #challenge(): void {
    const parts = this.#parts
    if (parts.host.mayAnswer()) this.#answer()
  }

  #answer(): void {
    const parts = this.#parts
    const { words, base } = parts.slot
    this.#flow.control(ACK, words[base + (parts.farewell.begun ? S_SND_NXT : S_SND_MAX)], nextAck(words, base))
  }

  #receiveLate(aborted: boolean, d: Int32Array, at: number): void {
    const parts = this.#parts
    const answer = judgeLate(parts.slot, aborted, d, at)
    if (answer === 'makeWay') {
      this.#flow.free('silent')
      return
    }
    parts.host.counters.late++
    if (answer === 'acknowledge') this.#answer()
    else if (answer === 'reset' && parts.host.mayAnswer()) this.#flow.control(RST, resetFor(parts.slot, d, at), 0)
  }
}
