// One flow: the state machine behind a Channel. It judges what arrives and says what is to leave; sockets, timers and the list of flows belong
// to the engine (FlowHost), numbering and closing to its parts (Segments, SendQueue, HelloExchange, Farewell).
import { formatAddress, isMapped } from '../address.ts'
import { ECONNRESET, guarded, rethrowLater, systemError } from '../errors.ts'
import type { Deadline } from '../flow/deadlines.ts'
import {
  CLOSING,
  F_BYTES_IN,
  F_DROPPED_IN,
  F_DROPPED_OUT,
  F_LAST_HEARD_MS,
  F_MESSAGES_IN,
  FLAG_STRICT,
  OPEN,
  S_DIALECT,
  S_FLAGS,
  S_IRS,
  S_ISN,
  S_KEY,
  S_MAX_MESSAGE,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_WND,
  S_STATE,
  TIME_WAIT,
} from '../flow/layout.ts'
import { distance } from '../flow/serial.ts'
import type { FlowTable } from '../flow/table.ts'
import type { CaptureMode } from '../link/capture.ts'
import type { Path } from '../link/next-hops.ts'
import type { NativeCarrier } from '../native/binding.ts'
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
  HAS_TIMESTAMPS,
  KEY_LOCAL,
  KEY_PORTS,
  KEY_REMOTE,
  PSH,
  RST,
  SYN,
} from '../native/layout.ts'
import type { Channel, ChannelSink, Drop, Family } from '../transport.ts'
import { DIALECT_NATIVE, DIALECT_TCPRAW } from '../wire/dialect.ts'
import { type Role, SPLITS_TRAINS } from '../wire/hello.ts'
import {
  ACCEPTED,
  absorb,
  ackFloorIsLow,
  asksForAck,
  BAD_ACK,
  BAD_TIMESTAMP,
  beStrict,
  isCarriersFin,
  judge,
  judgeReset,
  nextAck,
  nextSequence,
  OUT_OF_WINDOW,
  questionSequence,
  raiseAckFloor,
  type Verdict,
} from '../wire/rules.ts'
import type { Clock } from './clock.ts'
import type { EngineCounters } from './counters.ts'
import { EarlySegments } from './early.ts'
import { Farewell } from './farewell.ts'
import type { FlowOptions } from './flow-options.ts'
import { FlowStats } from './flow-stats.ts'
import { type Handshake, headerBytes, takeAgreement, takeNumbers } from './handshake.ts'
import { HelloExchange } from './hello-exchange.ts'
import { LinkChoice } from './link-choice.ts'
import { Liveness } from './liveness.ts'
import type { Outbox, TrainOwner } from './outbox.ts'
import { Segments } from './segments.ts'
import { SendQueue } from './send-queue.ts'
import { Slot } from './slot.ts'
import { judgeLate, TIME_WAIT_MS } from './time-wait.ts'

/** tcpraw reads into 2 048 bytes, TCP header included. */
const TCPRAW_MAX_MESSAGE = 2048 - 60
/** How long an acknowledgement may be overtaken by newer ones and still be believed, at least; at most twice that. */
const ACK_FLOOR_MS = 5000

const NEVER = Number.POSITIVE_INFINITY

type State =
  /** The kernel's handshake is under way; `seen` once the SYN-ACK was captured. */
  | { is: 'opening'; seen: boolean }
  | { is: 'open' }
  /** Late segments are absorbed; `aborted` when we gave up and answer them with resets. */
  | { is: 'timeWait'; until: number; aborted: boolean }
  | { is: 'free' }

/** What a flow needs of its engine. */
export interface FlowHost {
  readonly table: FlowTable
  readonly clock: Clock
  readonly counters: EngineCounters
  /** As last sampled, summed over the captures. */
  readonly kernelDrops: number
  /** Whether an interface leaves segments as they come, or tells the sizes of what it merged. */
  keepsSizes(ifindex: number): boolean
  /** The path between the addresses of a key, or the reason why this engine's flows do without. */
  openPath(key: Int32Array, at: number, ifindex: number): Path | string
  /** The flow has something to send: `fill` is called soon. */
  mark(flow: Flow): void
  /** Runs at the end of the tick or batch, before what was marked is sent. */
  defer(run: () => void): void
  /** `onDue` is to be called at this time, if not earlier. */
  schedule(flow: Flow, dueMs: number): void
  /** Sends a segment without payload at once. */
  sendControl(flow: Flow, flags: number, seq: number, ack: number): void
  /** Whether an answer to an unexpected segment is allowed now (RFC 5961, 7: such answers are rate-limited). */
  mayAnswer(): boolean
  /** The flow has ended for good: its slot is free. */
  freed(flow: Flow): void
  /** Keeps the process alive, until as many calls of `unhold`. */
  hold(): void
  unhold(): void
}

export interface FlowSettings {
  readonly role: Role
  readonly capture: CaptureMode
  readonly splitsTrains: boolean
  /** False when a dialler was told that its peer has no hello. */
  readonly hello: boolean
  readonly options: FlowOptions
  /** The slot is free and the carrier gone. */
  readonly onFreed?: () => void
}

export class Flow implements Channel, Deadline, TrainOwner {
  readonly slot: Slot
  readonly family: Family
  readonly stats: FlowStats
  /** Deadline: kept by the engine's heap. */
  dueMs = NEVER
  heapIndex = -1
  /** True while in the engine's list of flows that want to send. */
  marked = false

  readonly #host: FlowHost
  readonly #carrier: NativeCarrier
  readonly #settings: FlowSettings
  /** By which link its segments leave. */
  readonly link = new LinkChoice()
  readonly #segments: Segments
  readonly #queue: SendQueue
  readonly #hello: HelloExchange
  readonly #farewell: Farewell
  readonly #liveness: Liveness
  /** Segments that arrived while opening. */
  readonly #early = new EarlySegments()
  #ackFloorDue = 0
  #state: State = { is: 'opening', seen: false }
  /** Open, numbers known: the ordinary case for everything that arrives. */
  #flowing = false
  /** The initial numbers are to be learned from the peer's first segment. */
  #learning = false
  #peerMss: number | undefined
  #sayHello = false
  #repeatHello = false
  #sink: ChannelSink | undefined
  /** No longer keeps the process alive, nobody waits for it. */
  #left = false
  #referenced = true

  constructor(host: FlowHost, slot: number, carrier: NativeCarrier, settings: FlowSettings) {
    this.#host = host
    this.#carrier = carrier
    this.#settings = settings
    this.slot = new Slot(host.table, slot)
    const { words, base, floats, floatBase } = this.slot
    this.family = isMapped(words, base + S_KEY + KEY_REMOTE) ? 'IPv4' : 'IPv6'
    this.stats = new FlowStats(this.slot, host.clock, settings.capture, this.link, () => host.kernelDrops)
    this.#segments = new Segments(this.slot, this.link)
    this.#queue = new SendQueue(this.slot, this.#segments, this)
    this.#hello = new HelloExchange(settings.role, settings.hello)
    this.#farewell = new Farewell(this.slot, this.#segments)
    this.#liveness = new Liveness(this.slot, this.link, settings.options)
    floats[floatBase + F_LAST_HEARD_MS] = host.clock.now()
    host.hold()
  }

  get capture(): CaptureMode {
    return this.#settings.capture
  }

  /** True once its slot is free. */
  get gone(): boolean {
    return this.#state.is === 'free'
  }

  // What the stream asks for (Channel)

  get localAddress(): string {
    return formatAddress(this.slot.words, this.slot.base + S_KEY + KEY_LOCAL)
  }
  get localPort(): number {
    return this.slot.words[this.slot.base + S_KEY + KEY_PORTS] & 0xffff
  }
  get remoteAddress(): string {
    return formatAddress(this.slot.words, this.slot.base + S_KEY + KEY_REMOTE)
  }
  get remotePort(): number {
    return this.slot.words[this.slot.base + S_KEY + KEY_PORTS] >>> 16
  }
  get maxMessageSize(): number {
    return this.slot.words[this.slot.base + S_MAX_MESSAGE]
  }

  attach(sink: ChannelSink): void {
    this.#sink = sink
    for (const train of this.#early.take()) this.receive(train.descriptor, 0, train.payload, this.#host.clock.now())
  }

  send(messages: readonly Uint8Array[], done: () => void): void {
    if (this.#state.is !== 'open' || this.#farewell.asked) {
      process.nextTick(done)
      return
    }
    this.#queue.put(messages, done)
    this.#host.mark(this)
  }

  defer(run: () => void): void {
    this.#host.defer(run)
  }

  end(done: () => void): void {
    if (this.#state.is !== 'open') {
      process.nextTick(done)
      return
    }
    if (this.#learning) {
      // Nothing was heard and nothing sent, so the kernel's own FIN has the right numbers.
      const sink = this.#sink
      this.#free('fin')
      process.nextTick(done)
      guarded(() => sink?.onEnd())
      return
    }
    this.#farewell.ask(done)
    this.slot.words[this.slot.base + S_STATE] = CLOSING
    this.#host.mark(this)
  }

  countDrop(drop: Drop): void {
    this.slot.floats[this.slot.floatBase + (drop.reason === 'receive-queue' ? F_DROPPED_IN : F_DROPPED_OUT)] += drop.count ?? 1
  }

  release(): void {
    this.#sink = undefined
    this.#queue.abandon()
    if (this.#state.is !== 'open') return
    const now = this.#host.clock.now()
    if (!this.#farewell.answered) this.#abort(now)
    else if (this.#farewell.peerFin) this.#wait(false, now)
    else {
      // The process stays until the peer's FIN has come: without a carrier the kernel would answer it with a reset.
      this.#farewell.linger(now)
      this.#reschedule()
    }
  }

  ref(): void {
    if (this.#referenced || this.#left) return
    this.#referenced = true
    this.#host.hold()
  }

  unref(): void {
    if (!this.#referenced || this.#left) return
    this.#referenced = false
    this.#host.unhold()
  }

  // Opening

  /** What was captured of the handshake. */
  begin(handshake: Handshake): void {
    this.#peerMss = handshake.mss
    this.#segments.ifindex = handshake.ifindex
    takeNumbers(this.slot, handshake)
  }

  /** False while no SYN-ACK has been captured for a flow that is being dialled. */
  get handshakeSeen(): boolean {
    return this.#state.is === 'opening' && this.#state.seen
  }

  /**
   * The kernel's handshake is complete and the carrier is mute.
   *
   * @param numbers false when they were not captured and are to be learned
   */
  open(numbers: boolean): void {
    const now = this.#host.clock.now()
    const { timestamps, guard } = takeAgreement(this.slot, this.#carrier, { family: this.family, peerMss: this.#peerMss, now })
    this.#segments.timestamps = timestamps ? HAS_TIMESTAMPS : 0
    this.stats.guard = guard
    this.slot.words[this.slot.base + S_STATE] = OPEN
    this.#state = { is: 'open' }
    this.#learning = !numbers
    this.#flowing = numbers
    this.#chooseLink()
    this.#queue.hold(now)
    this.#hello.open(this.#settings.splitsTrains && this.#host.keepsSizes(this.#segments.ifindex) ? SPLITS_TRAINS : 0)
    if (this.#hello.state === 'asking') {
      this.#sayHello = true
      this.#host.mark(this)
    } else if (this.#settings.role === 'dialler') this.#speakTcpraw()
    this.#reschedule()
  }

  #chooseLink(): void {
    // Where this host rewrites packets, what the carrier's addresses say of the way is not true.
    if (this.capture === 'raw') {
      this.link.refuse('captured by raw socket')
      return
    }
    const { words, base } = this.slot
    const path = this.#host.openPath(words, base + S_KEY, this.#segments.ifindex)
    if (typeof path === 'string') this.link.refuse(path)
    else this.link.take(path, headerBytes(this.family, this.#segments.timestamps !== 0) + words[base + S_MAX_MESSAGE])
  }

  /** The dial failed or was given up: nothing was ever open. */
  cancel(): void {
    if (this.#state.is === 'opening') this.#free('fin')
  }

  // Arriving

  /** A captured train of this flow. `memory` is overwritten after the call. */
  receive(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const flags = d[at + D_FLAGS]
    if (!this.#flowing || (flags & (SYN | RST)) !== 0) {
      this.#receiveUnusual(d, at, memory, now)
      return
    }
    const { words: w, base: b, floats, floatBase } = this.slot
    if ((flags & FIN) !== 0 && isCarriersFin(w, b, d, at)) {
      this.#host.counters.staleFins++
      this.#takeCarriersFin(now)
      return
    }
    const verdict = judge(w, b, d, at)
    if (verdict !== ACCEPTED) {
      this.#refuse(verdict)
      return
    }
    floats[floatBase + F_LAST_HEARD_MS] = now
    this.link.path?.heard(d[at + D_IFINDEX], d[at + D_MAC_HIGH], d[at + D_MAC_LOW])
    if (absorb(w, b, d, at)) this.#acknowledged(now)
    if (d[at + D_LENGTH] > 0) this.#takeData(d, at, memory, now)
    else if ((flags & FIN) === 0 && asksForAck(w, b, d, at) && this.#segments.asked(now)) this.#host.mark(this)
    if ((flags & FIN) !== 0) this.#takeFin(d, at, now)
  }

  #refuse(verdict: Verdict): void {
    const { counters } = this.#host
    if (verdict === OUT_OF_WINDOW) counters.window++
    else if (verdict === BAD_ACK) counters.ack++
    else if (verdict === BAD_TIMESTAMP) counters.timestamp++
    // RFC 5961, 5. To a peer who is what it seems to be it also tells the newest of our numbers.
    if (this.#strict && verdict !== OUT_OF_WINDOW) this.#challenge()
  }

  #takeData(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const length = d[at + D_LENGTH]
    const offset = d[at + D_OFFSET]
    const segment = d[at + D_SEGMENT]
    if (this.#segments.received(length, now)) this.#host.mark(this)
    else if (this.dueMs > this.#segments.ackDue || this.heapIndex === -1) this.#host.schedule(this, this.#segments.ackDue)
    if (length <= segment && this.#takenAsHello(d[at + D_SEQ], memory, offset, length)) return
    this.#deliver(memory, offset, length, segment)
  }

  #deliver(memory: Uint8Array, offset: number, length: number, segment: number): void {
    if (this.#farewell.peerEnded || this.#sink === undefined) {
      this.#host.counters.late++
      return
    }
    const { floats, floatBase: f } = this.slot
    floats[f + F_MESSAGES_IN] += length <= segment ? 1 : Math.ceil(length / segment)
    floats[f + F_BYTES_IN] += length
    try {
      this.#sink.onTrain(memory, offset, length, segment)
    } catch (error) {
      rethrowLater(error)
    }
  }

  /** @returns true when the message was a hello, which is never delivered */
  #takenAsHello(seq: number, memory: Uint8Array, offset: number, length: number): boolean {
    const before = this.#hello.state
    const first = seq === ((this.slot.words[this.slot.base + S_IRS] + 1) | 0)
    const hello = this.#hello.take(first, memory, offset, length)
    if (hello === undefined) {
      if (before !== this.#hello.state) this.#speakTcpraw()
      return false
    }
    if (this.#settings.role === 'listener') this.#sayHello = true
    if (hello === 'met') {
      const { words, base } = this.slot
      words[base + S_DIALECT] = DIALECT_NATIVE
      // Where the numbers were learned from what came first, this is their true beginning.
      if (this.#settings.role === 'listener') words[base + S_IRS] = (seq - 1) | 0
      if (this.#settings.options.strict) beStrict(words, base)
      this.#liveness.answers = true
      this.#queue.trains = this.link.peerSplitsTrains = (this.#hello.peerCapabilities & SPLITS_TRAINS) !== 0
      this.#repeatHello = false
    }
    this.#segments.ackNow = true
    this.#host.mark(this)
    return true
  }

  #speakTcpraw(): void {
    const { words: w, base: b } = this.slot
    w[b + S_DIALECT] = DIALECT_TCPRAW
    w[b + S_MAX_MESSAGE] = Math.min(w[b + S_MAX_MESSAGE], TCPRAW_MAX_MESSAGE)
  }

  #acknowledged(now: number): void {
    if (now >= this.#ackFloorDue || ackFloorIsLow(this.slot.words, this.slot.base)) this.#raiseAckFloor(now)
    if (this.#queue.holdDue !== NEVER) {
      this.#queue.unhold()
      if (!this.#queue.empty) this.#host.mark(this)
    }
    if (this.#farewell.acknowledged() && this.#farewell.peerEnded) this.#wait(false, now)
  }

  #raiseAckFloor(now: number): void {
    this.#ackFloorDue = now + ACK_FLOOR_MS
    raiseAckFloor(this.slot.words, this.slot.base)
  }

  #takeCarriersFin(now: number): void {
    if (!this.#farewell.peerFin) {
      const error = this.#reset()
      this.#wait(false, now)
      this.#tellClosed(error)
      return
    }
    // It had said goodbye before: what it sent is still read to the end, only an answer to our own FIN will not come.
    this.#farewell.peerGone()
    if (this.#farewell.answered && this.#farewell.peerEnded) this.#wait(false, now)
  }

  #takeFin(d: Int32Array, at: number, now: number): void {
    if (!this.#farewell.take((d[at + D_SEQ] + d[at + D_LENGTH]) | 0, now)) {
      this.#host.counters.reset++
      return
    }
    this.#segments.ackNow = true
    this.#host.mark(this)
    this.#reschedule()
  }

  /** Everything but an ordinary segment of an open flow. */
  #receiveUnusual(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    switch (this.#state.is) {
      case 'opening':
        this.#receiveOpening(this.#state, d, at, memory)
        return
      case 'open':
        this.#receiveOdd(d, at, memory, now)
        return
      case 'timeWait':
        this.#receiveLate(this.#state.aborted, d, at)
        return
      case 'free':
        return
    }
  }

  #receiveOpening(state: { seen: boolean }, d: Int32Array, at: number, memory: Uint8Array): void {
    const flags = d[at + D_FLAGS]
    if ((flags & (SYN | ACK | RST)) === (SYN | ACK)) {
      const [ifindex, tsval, mss] = [d[at + D_IFINDEX], d[at + D_TSVAL], d[at + D_MSS]]
      this.begin({ irs: d[at + D_SEQ], isn: (d[at + D_ACK] - 1) | 0, ifindex, tsval, mss })
      this.slot.words[this.slot.base + S_SND_WND] = d[at + D_WINDOW]
      state.seen = true
    } else if (state.seen) {
      if (!this.#early.keep(d, at, memory)) this.#host.counters.orphan++
    } else if ((flags & (ACK | RST)) === ACK && this.#host.mayAnswer()) {
      // Half-open (RFC 9293, 3.5.1): the peer still has our predecessor's connection. Our carrier's filter hides this from the kernel.
      this.#host.sendControl(this, RST, d[at + D_ACK], 0)
    }
  }

  /** SYN and RST on an open flow, and everything on one whose numbers are not known yet. */
  #receiveOdd(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const { words: w, base: b } = this.slot
    const kind = d[at + D_FLAGS] & (SYN | RST | ACK)
    if (this.#learning) {
      if (kind !== ACK) return
      const [ifindex, tsval] = [d[at + D_IFINDEX], d[at + D_TSVAL]]
      this.begin({ irs: (d[at + D_SEQ] - 1) | 0, isn: (d[at + D_ACK] - 1) | 0, ifindex, tsval, mss: undefined })
      this.#learning = false
      this.#flowing = true
      this.#hello.lookAnywhere()
      this.#host.mark(this)
      this.receive(d, at, memory, now)
    } else if (kind === (SYN | ACK) && d[at + D_SEQ] === w[b + S_IRS]) {
      // The third ACK was lost: exactly these numbers, everything else the listening kernel answers with a reset or not at all.
      this.#host.sendControl(this, ACK, (w[b + S_ISN] + 1) | 0, (w[b + S_IRS] + 1) | 0)
    } else if ((kind & RST) !== 0) {
      const verdict = judgeReset(w, b, d, at)
      if (verdict === 'reset') {
        this.supersede()
        return
      }
      this.#host.counters.reset++
      if (verdict === 'challenge') this.#challenge()
    } else this.#challenge()
  }

  /** RFC 5961: a plain ACK, to which a peer that really has nothing answers with an exact reset. */
  #challenge(): void {
    if (this.#host.mayAnswer()) this.#answer()
  }

  get #strict(): boolean {
    return (this.slot.words[this.slot.base + S_FLAGS] & FLAG_STRICT) !== 0
  }

  #answer(): void {
    const { words, base } = this.slot
    this.#host.sendControl(this, ACK, words[base + S_SND_MAX], nextAck(words, base))
  }

  #receiveLate(aborted: boolean, d: Int32Array, at: number): void {
    const answer = judgeLate(this.slot, aborted, d, at)
    if (answer === 'makeWay') {
      this.#free('silent')
      return
    }
    this.#host.counters.late++
    if (answer === 'acknowledge') this.#answer()
    else if (answer === 'reset' && this.#host.mayAnswer()) this.#host.sendControl(this, RST, d[at + D_ACK], 0)
  }

  // Leaving

  /** Puts what is to be sent into the outbox. Called by the engine some time after `mark`. */
  fill(outbox: Outbox, now: number): void {
    if (!this.#flowing || this.#state.is !== 'open') return
    if (this.#sayHello || this.#repeatHello) this.#fillHello(outbox, now)
    if (!this.#queue.empty) this.#queue.fill(outbox, now, this.#room)
    if (this.#farewell.finNow && this.#queue.empty && this.#room(outbox)) {
      this.#farewell.fill(outbox, now)
      if (this.#farewell.answered && this.#farewell.peerEnded) this.#wait(false, now)
      this.#reschedule()
    }
    if (this.#segments.ackNow && this.#room(outbox)) {
      this.#segments.write(outbox.words, outbox.control(), ACK, this.slot.words[this.slot.base + S_SND_NXT], now)
    }
  }

  /** True when a descriptor may be added; else the flow waits for its turn. */
  readonly #room = (outbox: Outbox): boolean => {
    if (outbox.makeRoom()) return true
    this.#host.mark(this)
    return false
  }

  #fillHello(outbox: Outbox, now: number): void {
    const payload = this.#hello.payload
    if (payload === undefined || !this.#room(outbox)) return
    const { words: w, base: b } = this.slot
    let seq = (w[b + S_ISN] + 1) | 0
    const repeat = !this.#sayHello
    this.#sayHello = false
    this.#repeatHello = false
    if (!repeat) seq = nextSequence(w, b, payload.length)
    else if (distance(w[b + S_SND_MAX], seq) > w[b + S_SND_WND]) {
      this.#hello.giveUp()
      this.#speakTcpraw()
      return
    } else {
      // The kernel at the other end may still wait for the third ACK; data does not count there, it never gets past the filter.
      this.#segments.writeWith(outbox.words, outbox.control(), ACK, seq, (w[b + S_IRS] + 1) | 0, now)
    }
    if (this.#room(outbox)) {
      this.#segments.write(outbox.words, outbox.open(undefined, 1, payload.length), ACK | PSH, seq, now)
      outbox.add(payload)
    }
    if (this.#hello.state !== 'asking') return
    this.#hello.asked(now)
    this.#reschedule()
  }

  /** @internal For the engine: a segment without payload. */
  writeControl(words: Int32Array, at: number, flags: number, seq: number, ack: number, now: number): void {
    this.#segments.writeWith(words, at, flags, seq, ack, now)
  }

  /** @internal For the engine: the path, when it is time to have its neighbour confirmed and a segment may go. */
  pathToProbe(now: number): Path | undefined {
    const { path } = this.link
    return this.#flowing && path !== undefined && now >= path.probeDue ? path : undefined
  }

  /** @internal For the engine: a segment that says nothing new. */
  writeProbe(words: Int32Array, at: number, now: number): void {
    const { words: w, base: b } = this.slot
    this.#segments.writeWith(words, at, ACK, w[b + S_SND_NXT], nextAck(w, b), now)
  }

  trainDone(): void {
    this.#queue.trainDone()
  }

  segmentRefused(errno: number, size: number): void {
    const drop: Drop = { reason: 'send-refused', size, code: systemError(errno, 'sendmmsg').code }
    this.countDrop(drop)
    guarded(() => this.#sink?.onDrop(drop))
  }

  // Time

  /** Does what is due. @returns when to come back; Infinity for never */
  onDue(now: number): number {
    if (this.#state.is === 'timeWait' && now >= this.#state.until) this.#free('silent')
    if (this.#state.is !== 'open') return this.#nextDue()
    if (now >= this.#segments.ackDue) {
      this.#segments.ackDue = NEVER
      this.#segments.ackNow = true
      this.#host.mark(this)
    }
    if (now >= this.#hello.dueMs) {
      this.#repeatHello = this.#hello.overdue()
      if (this.#repeatHello) this.#host.mark(this)
      else if (this.#hello.state === 'none') this.#speakTcpraw()
    }
    if (now >= this.#queue.holdDue) {
      this.#queue.unhold()
      if (!this.#queue.empty) this.#host.mark(this)
    }
    this.#onEndingDue(now)
    if (this.#state.is === 'open' && now >= this.#liveness.dueMs) this.#onSilence(now)
    return this.#nextDue()
  }

  #onSilence(now: number): void {
    const found = this.#liveness.check(now)
    if (found === 'ask') {
      const { words, base } = this.slot
      if (this.#flowing) this.#host.sendControl(this, ACK, questionSequence(words, base), nextAck(words, base))
      this.#raiseAckFloor(now)
    } else if (found !== undefined) {
      this.#abort(now)
      this.#tellClosed(found)
    }
  }

  #onEndingDue(now: number): void {
    const farewell = this.#farewell
    if (now >= farewell.graceDue) {
      farewell.graceDue = NEVER
      farewell.peerEnded = true
      guarded(() => this.#sink?.onEnd())
      if (farewell.answered) this.#wait(false, now)
    }
    if (now >= farewell.finDue) {
      const answers = this.slot.words[this.slot.base + S_DIALECT] !== DIALECT_TCPRAW
      if (!farewell.overdue(answers)) this.#host.mark(this)
      else {
        // Nothing more will come either: the stream ends.
        if (!farewell.peerEnded) guarded(() => this.#sink?.onEnd())
        this.#wait(false, now)
      }
    }
    if (now >= farewell.lingerDue) this.#wait(false, now)
  }

  /** The path has changed. */
  pathChanged(): void {
    if (this.#liveness.waitsForAddress) this.#reschedule()
  }

  #nextDue(): number {
    if (this.#state.is === 'timeWait') return this.#state.until
    if (this.#state.is !== 'open') return NEVER
    const { graceDue, finDue, lingerDue } = this.#farewell
    return Math.min(this.#segments.ackDue, this.#hello.dueMs, this.#queue.holdDue, graceDue, finDue, lingerDue, this.#liveness.dueMs)
  }

  #reschedule(): void {
    const due = this.#nextDue()
    if (due !== NEVER) this.#host.schedule(this, due)
  }

  // Ending

  /** The peer has given the connection up, by a reset or by making a new one on the same 4-tuple. */
  supersede(): void {
    const error = this.#reset()
    this.#free('silent')
    this.#tellClosed(error)
  }

  #reset(): Error {
    return systemError(ECONNRESET, 'read', { address: this.remoteAddress, port: this.remotePort })
  }

  /** Tells the peer by a reset that carries the highest sequence number ever sent: a tracker takes a lower one for invalid. */
  #abort(now: number): void {
    if (this.#learning) {
      this.#free('reset') // nothing was sent: the kernel's numbers are exact
      return
    }
    const { words, base } = this.slot
    this.#host.sendControl(this, RST | ACK, words[base + S_SND_MAX], nextAck(words, base))
    this.#wait(true, now)
  }

  #wait(aborted: boolean, now: number): void {
    if (this.#state.is !== 'open') return
    const until = now + TIME_WAIT_MS
    this.#state = { is: 'timeWait', until, aborted }
    this.#flowing = false
    this.slot.words[this.slot.base + S_STATE] = TIME_WAIT
    this.#carrier.setExit('silent')
    this.#leave()
    this.#host.schedule(this, until)
  }

  #tellClosed(error: Error): void {
    const sink = this.#sink
    this.#sink = undefined
    guarded(() => sink?.onClose(error))
  }

  #leave(): void {
    if (this.#left) return
    this.#left = true
    if (this.#referenced) this.#host.unhold()
    this.#queue.abandon()
    this.#farewell.abandon()
  }

  #free(how: 'silent' | 'fin' | 'reset'): void {
    if (this.#state.is === 'free') return
    this.#state = { is: 'free' }
    this.#flowing = false
    this.#leave()
    this.#carrier.end(how)
    this.link.release()
    this.slot.detach()
    this.#host.freed(this)
    this.#settings.onFreed?.()
  }

  /** The process ends before timeWait does. */
  exit(): void {
    if (this.#state.is === 'timeWait') this.#carrier.end('silent')
  }
}
