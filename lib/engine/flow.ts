// One flow: the state machine behind a Channel. It judges what arrives, numbers what leaves, and closes in good order. It owns its slot's words
// and its carrier; sockets, timers and the list of flows belong to the engine (FlowHost).
import { formatAddress, isLinkLocal, isMapped } from '../address.ts'
import { ECONNRESET, FakeTcpError, systemError } from '../errors.ts'
import type { Deadline } from '../flow/deadlines.ts'
import {
  CLOSING,
  F_BYTES_IN,
  F_BYTES_OUT,
  F_DROPPED_IN,
  F_DROPPED_OUT,
  F_LAST_HEARD_MS,
  F_LAST_SENT_MS,
  F_MESSAGES_IN,
  F_MESSAGES_OUT,
  OPEN,
  S_DIALECT,
  S_IRS,
  S_ISN,
  S_KEY,
  S_MAX_MESSAGE,
  S_RCV_NXT,
  S_RCV_SCALE,
  S_RCV_WINDOW_FIELD,
  S_RCV_WND,
  S_SET_BACKS,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_SCALE,
  S_SND_UNA,
  S_SND_WND,
  S_STATE,
  S_TS_OFFSET,
  S_TS_RECENT,
  SLOT_WORDS,
  TIME_WAIT,
} from '../flow/layout.ts'
import type { FlowTable } from '../flow/table.ts'
import type { CaptureMode } from '../link/capture.ts'
import type { NativeCarrier } from '../native/binding.ts'
import {
  ACK,
  D_ACK,
  D_FLAGS,
  D_IFINDEX,
  D_KEY,
  D_LENGTH,
  D_MAC_HIGH,
  D_OFFSET,
  D_SEGMENT,
  D_SEQ,
  D_TSECR,
  D_TSVAL,
  D_TTL,
  D_WINDOW,
  FIN,
  HAS_TIMESTAMPS,
  INFO_OPTIONS,
  INFO_RECEIVE_SCALE,
  INFO_SEND_MSS,
  INFO_SEND_SCALE,
  INFO_TIMESTAMP,
  INFO_WORDS,
  KEY_LOCAL,
  KEY_PORTS,
  KEY_REMOTE,
  KEY_WORDS,
  PSH,
  RST,
  SYN,
} from '../native/layout.ts'
import type { ConnStats } from '../stats.ts'
import type { Channel, ChannelSink, Drop, Family } from '../transport.ts'
import { DIALECT_NATIVE, DIALECT_TCPRAW } from '../wire/dialect.ts'
import { type Role, SPLITS_TRAINS } from '../wire/hello.ts'
import { ACCEPTED, absorb, judge, judgeReset, nextAck, nextSequence, OUT_OF_WINDOW, trainLimit } from '../wire/rules.ts'
import type { Clock } from './clock.ts'
import type { EngineCounters } from './counters.ts'
import { FlowStats, type FlowWords } from './flow-stats.ts'
import { HelloExchange } from './hello-exchange.ts'
import { EARLY_BYTES, type KeptTrain, keep } from './orphans.ts'
import type { Outbox, TrainOwner } from './outbox.ts'

/** RFC 9293, 3.8.6.3 allows 500 ms; Linux's quick ACK is 40 ms. */
const DELAYED_ACK_MS = 40
/** Until the first acknowledgement the peer's application may not have accepted yet and keeps `EARLY_BYTES`; then data is sent anyway. */
const HOLD_MS = 1000
/** Longest train: more segments overrun the rings of veth devices and backlogs. */
const TRAIN_SEGMENTS = 64
const TRAIN_BYTES = 65000
/** What we advertise at most: acknowledgements come each eighth of it, and reordering within it is accepted. */
const RECEIVE_WINDOW = 16 << 20
/** FIN repeats at 0.2, 0.6, 1.4, 3 s, then the peer is taken for gone. */
const FIN_REPEAT_MS = 200
const FIN_REPEATS = 4
/** How long messages that were reordered behind the FIN are still delivered. */
const FIN_GRACE_MS = 20
/** How long an ended flow absorbs late segments before its carrier goes and the kernel would answer them with resets. */
const TIME_WAIT_MS = 2000
/** How long a flow whose stream has closed waits for the peer's FIN. */
const LINGER_MS = 1000
/** tcpraw reads into 2 048 bytes, TCP header included. */
const TCPRAW_MAX_MESSAGE = 2048 - 60

const NEVER = Number.POSITIVE_INFINITY
const NOTHING: readonly Uint8Array[] = []

type State =
  /** The kernel's handshake is under way; `seen` once the SYN-ACK was captured. */
  { is: 'opening'; seen: boolean } | { is: 'open' } | { is: 'timeWait'; until: number; aborted: boolean } | { is: 'free' }

/** What a flow needs of its engine. */
export interface FlowHost {
  readonly table: FlowTable
  readonly clock: Clock
  readonly counters: EngineCounters
  /** The flow has something to send: `fill` is called soon. */
  mark(flow: Flow): void
  /** `onDue` is to be called at this time, if not earlier. */
  schedule(flow: Flow, dueMs: number): void
  /** Sends a segment without payload at once. */
  sendControl(flow: Flow, flags: number, seq: number, ack: number): void
  /** Whether an answer to an unexpected segment is allowed now (RFC 5961, 7: such answers are rate-limited). */
  mayAnswer(): boolean
  /** The flow has ended for good: its slot is free. */
  freed(flow: Flow): void
  hold(): void
  unhold(): void
}

export interface FlowSettings {
  readonly role: Role
  readonly capture: CaptureMode
  readonly splitsTrains: boolean
  /** False when a dialler was told that its peer has no hello. */
  readonly hello: boolean
  /** 0: never. */
  readonly idleTimeoutMs: number
  /** The slot is free and the carrier gone. */
  readonly onFreed?: () => void
}

export class Flow implements Channel, Deadline, TrainOwner, FlowWords {
  readonly slot: number
  readonly family: Family
  readonly stats: ConnStats
  /** Deadline: kept by the engine's heap. */
  dueMs = NEVER
  heapIndex = -1
  /** True while in the engine's list of flows that want to send. */
  marked = false
  words: Int32Array
  base: number
  floats: Float64Array
  floatBase: number

  readonly #host: FlowHost
  readonly #carrier: NativeCarrier
  readonly #settings: FlowSettings
  readonly #hello: HelloExchange
  #state: State = { is: 'opening', seen: false }
  /** Open, numbers known: the ordinary case for everything that arrives. */
  #flowing = false
  /** The initial numbers are to be learned from the peer's first segment. */
  #learning = false
  #timestamps = 0
  #ifindex = 0
  #sink: ChannelSink | undefined
  #closed = false
  #referenced = true
  /** Segments that arrived while opening. */
  #early: KeptTrain[] = []
  #earlyBytes = 0

  #messages: readonly Uint8Array[] = NOTHING
  #next = 0
  #inOutbox = 0
  #done: (() => void) | undefined
  #holding = true
  #holdDue = NEVER
  #sentBytes = 0
  #trains = false
  #sayHello = false
  #repeatHello = false

  #unacked = 0
  #heardData = false
  #ackNow = false
  #ackDue = NEVER

  #fin: { seq: number; repeats: number } | undefined
  /** Set by `end`; called once our FIN is answered or never will be. */
  #endDone: (() => void) | undefined
  #ending = false
  #finNow = false
  #finDue = NEVER
  #finAnswered = false
  #peerFin = false
  #peerEnded = false
  #graceDue = NEVER
  #lingerDue = NEVER

  constructor(host: FlowHost, slot: number, carrier: NativeCarrier, settings: FlowSettings) {
    this.#host = host
    this.slot = slot
    this.#carrier = carrier
    this.#settings = settings
    this.words = host.table.words
    this.base = host.table.base(slot)
    this.floats = host.table.floats
    this.floatBase = this.base / 2
    this.family = isMapped(this.words, this.base + S_KEY + KEY_REMOTE) ? 'IPv4' : 'IPv6'
    this.#hello = new HelloExchange(settings.role, settings.splitsTrains ? SPLITS_TRAINS : 0, settings.hello)
    this.stats = new FlowStats(this, host.clock, settings.capture)
    this.floats[this.floatBase + F_LAST_HEARD_MS] = host.clock.now()
    host.hold()
  }

  // ---- Channel -------------------------------------------------------------------------------------------------------------------

  get localAddress(): string {
    return formatAddress(this.words, this.base + S_KEY + KEY_LOCAL)
  }
  get localPort(): number {
    return this.words[this.base + S_KEY + KEY_PORTS] & 0xffff
  }
  get remoteAddress(): string {
    return formatAddress(this.words, this.base + S_KEY + KEY_REMOTE)
  }
  get remotePort(): number {
    return this.words[this.base + S_KEY + KEY_PORTS] >>> 16
  }
  get maxMessageSize(): number {
    return this.words[this.base + S_MAX_MESSAGE]
  }

  attach(sink: ChannelSink): void {
    this.#sink = sink
    const early = this.#early
    this.#early = []
    for (const train of early) this.receive(train.descriptor, 0, train.payload, this.#host.clock.now())
  }

  send(messages: readonly Uint8Array[], done: () => void): void {
    if (this.#state.is !== 'open' || this.#ending) {
      process.nextTick(done)
      return
    }
    this.#messages = messages
    this.#next = 0
    this.#done = done
    this.#host.mark(this)
  }

  end(done: () => void): void {
    if (this.#state.is !== 'open') {
      process.nextTick(done)
      return
    }
    this.#ending = true
    this.#endDone = done
    this.#finNow = true
    this.words[this.base + S_STATE] = CLOSING
    this.#host.mark(this)
  }

  countDrop(drop: Drop): void {
    this.floats[this.floatBase + (drop.reason === 'receive-queue' ? F_DROPPED_IN : F_DROPPED_OUT)]++
  }

  release(): void {
    this.#sink = undefined
    this.#settleWrites()
    if (this.#state.is !== 'open') return
    if (!this.#finAnswered) this.#abort()
    else if (this.#peerFin) this.#wait(false)
    else {
      // The process stays until the peer's FIN has come (FIN-WAIT-2): without a carrier the kernel would answer it with a reset.
      this.#lingerDue = this.#host.clock.now() + LINGER_MS
      this.#host.schedule(this, this.#lingerDue)
    }
  }

  ref(): void {
    if (this.#referenced || this.#closed) return
    this.#referenced = true
    this.#host.hold()
  }

  unref(): void {
    if (!this.#referenced || this.#closed) return
    this.#referenced = false
    this.#host.unhold()
  }

  // ---- opening -------------------------------------------------------------------------------------------------------------------

  /** The captured handshake's numbers: the peer's initial one and ours, and the peer's clock. */
  begin(irs: number, isn: number, tsval: number): void {
    const w = this.words
    const b = this.base
    w[b + S_IRS] = irs
    w[b + S_TS_RECENT] = tsval
    w[b + S_ISN] = isn
    w[b + S_RCV_NXT] = (irs + 1) | 0
    w[b + S_SND_NXT] = w[b + S_SND_MAX] = w[b + S_SND_UNA] = (isn + 1) | 0
  }

  get capture(): CaptureMode {
    return this.#settings.capture
  }

  /** True once its slot is free. */
  get gone(): boolean {
    return this.#state.is === 'free'
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
    const w = this.words
    const b = this.base
    const now = this.#host.clock.now()
    const info = new Int32Array(INFO_WORDS)
    this.#carrier.info(info)
    const scaled = (info[INFO_OPTIONS] & 4) !== 0
    w[b + S_SND_SCALE] = scaled ? info[INFO_SEND_SCALE] : 0
    w[b + S_RCV_SCALE] = scaled ? info[INFO_RECEIVE_SCALE] : 0
    w[b + S_RCV_WINDOW_FIELD] = Math.min(65535, RECEIVE_WINDOW >> w[b + S_RCV_SCALE])
    w[b + S_RCV_WND] = w[b + S_RCV_WINDOW_FIELD] << w[b + S_RCV_SCALE]
    // A listener's peer scales its window from the third ACK on; a dialler's SYN-ACK was not scaled and has been noted.
    if (w[b + S_SND_WND] === 0) w[b + S_SND_WND] = 65535
    w[b + S_MAX_MESSAGE] = info[INFO_SEND_MSS]
    w[b + S_TS_OFFSET] = (info[INFO_TIMESTAMP] - Math.floor(now)) | 0
    this.#timestamps = (info[INFO_OPTIONS] & 1) !== 0 ? HAS_TIMESTAMPS : 0
    w[b + S_STATE] = OPEN
    this.#state = { is: 'open' }
    this.#learning = !numbers
    this.#flowing = numbers
    this.#holdDue = now + HOLD_MS
    if (this.#hello.state === 'asking') {
      this.#sayHello = true
      this.#host.mark(this)
    } else if (this.#settings.role === 'dialler') this.#speakTcpraw()
    this.#reschedule(now)
  }

  /** The dial failed or was given up: nothing was ever open. */
  cancel(): void {
    if (this.#state.is === 'opening') this.#free('fin')
  }

  // ---- arriving ------------------------------------------------------------------------------------------------------------------

  /** A captured train of this flow. `memory` is overwritten after the call. */
  receive(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const flags = d[at + D_FLAGS]
    if (!this.#flowing || (flags & (SYN | RST)) !== 0) {
      this.#receiveUnusual(d, at, memory, now)
      return
    }
    const w = this.words
    const b = this.base
    if ((flags & FIN) !== 0 && this.#isCarriersFin(d, at)) {
      this.#host.counters.staleFins++
      this.#lose(this.#reset(), now)
      return
    }
    const verdict = judge(w, b, d, at)
    if (verdict !== ACCEPTED) {
      if (verdict === OUT_OF_WINDOW) this.#host.counters.window++
      else this.#host.counters.ack++
      return
    }
    this.floats[this.floatBase + F_LAST_HEARD_MS] = now
    if (absorb(w, b, d, at)) this.#acknowledged()
    if (d[at + D_LENGTH] > 0) this.#takeData(d, at, memory, now)
    if ((flags & FIN) !== 0) this.#takeFin(d, at, now)
  }

  #takeData(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const length = d[at + D_LENGTH]
    const offset = d[at + D_OFFSET]
    const segment = d[at + D_SEGMENT]
    this.#unacked += length
    if (!this.#heardData || this.#unacked >= this.words[this.base + S_RCV_WND] >> 3) {
      this.#heardData = true
      this.#ackNow = true
      this.#host.mark(this)
    } else if (this.#ackDue === NEVER) {
      this.#ackDue = now + DELAYED_ACK_MS
      this.#host.schedule(this, this.#ackDue)
    }
    if (length <= segment) {
      const first = d[at + D_SEQ] === ((this.words[this.base + S_IRS] + 1) | 0)
      const before = this.#hello.state
      const hello = this.#hello.take(first, memory, offset, length)
      if (hello !== undefined) {
        this.#takeHello(hello)
        return
      }
      if (before !== this.#hello.state) this.#speakTcpraw()
    }
    if (this.#peerEnded || this.#sink === undefined) {
      this.#host.counters.late++
      return
    }
    const f = this.floatBase
    this.floats[f + F_MESSAGES_IN] += length <= segment ? 1 : Math.ceil(length / segment)
    this.floats[f + F_BYTES_IN] += length
    try {
      this.#sink.onTrain(memory, offset, length, segment)
    } catch (error) {
      rethrowLater(error)
    }
  }

  #takeHello(hello: 'met' | 'repeat'): void {
    if (this.#settings.role === 'listener') {
      this.#sayHello = true
      this.#ackNow = true
    }
    if (hello === 'met') {
      this.words[this.base + S_DIALECT] = DIALECT_NATIVE
      this.#trains = (this.#hello.peerCapabilities & SPLITS_TRAINS) !== 0
      this.#repeatHello = false
    }
    this.#host.mark(this)
  }

  #speakTcpraw(): void {
    const w = this.words
    w[this.base + S_DIALECT] = DIALECT_TCPRAW
    w[this.base + S_MAX_MESSAGE] = Math.min(w[this.base + S_MAX_MESSAGE], TCPRAW_MAX_MESSAGE)
  }

  #acknowledged(): void {
    if (this.#holding) {
      this.#holding = false
      this.#holdDue = NEVER
      if (this.#next < this.#messages.length) this.#host.mark(this)
    }
    if (this.#fin !== undefined && !this.#finAnswered && ((this.words[this.base + S_SND_UNA] - this.#fin.seq) | 0) > 0)
      this.#finSettled(true)
  }

  /** The numbers of the kernel's own FIN: the peer's process is gone and its carrier, which never sent a byte, was closed. */
  #isCarriersFin(d: Int32Array, at: number): boolean {
    const w = this.words
    const b = this.base
    return (
      d[at + D_SEQ] === ((w[b + S_IRS] + 1) | 0) &&
      d[at + D_ACK] === ((w[b + S_ISN] + 1) | 0) &&
      d[at + D_LENGTH] === 0 &&
      w[b + S_RCV_NXT] !== d[at + D_SEQ] &&
      !this.#peerFin
    )
  }

  #takeFin(d: Int32Array, at: number, now: number): void {
    const w = this.words
    const b = this.base
    const fin = (d[at + D_SEQ] + d[at + D_LENGTH]) | 0
    const ahead = (fin - w[b + S_RCV_NXT]) | 0
    if (ahead >= 0 && !this.#peerFin) {
      w[b + S_RCV_NXT] = (fin + 1) | 0
      this.#peerFin = true
      this.#graceDue = now + FIN_GRACE_MS
      this.#host.schedule(this, this.#graceDue)
    } else if (ahead !== -1 || !this.#peerFin) {
      this.#host.counters.reset++
      return
    }
    this.#ackNow = true
    this.#host.mark(this)
  }

  /** Everything but an ordinary segment of an open flow. */
  #receiveUnusual(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    const flags = d[at + D_FLAGS]
    const w = this.words
    const b = this.base
    switch (this.#state.is) {
      case 'opening':
        if ((flags & (SYN | ACK | RST)) === (SYN | ACK)) {
          this.begin(d[at + D_SEQ], (d[at + D_ACK] - 1) | 0, d[at + D_TSVAL])
          w[b + S_SND_WND] = d[at + D_WINDOW]
          this.#ifindex = d[at + D_IFINDEX]
          this.#state.seen = true
        } else if (this.#state.seen) this.#keepEarly(d, at, memory)
        else if ((flags & (ACK | RST)) === ACK) {
          // Half-open (RFC 9293, 3.5.1): the peer still has our predecessor's connection. Our carrier's filter hides this from the kernel.
          this.#host.sendControl(this, RST, d[at + D_ACK], 0)
        }
        return
      case 'open':
        if (this.#learning && (flags & (SYN | RST | ACK)) === ACK) {
          this.#ifindex = d[at + D_IFINDEX]
          this.begin((d[at + D_SEQ] - 1) | 0, (d[at + D_ACK] - 1) | 0, d[at + D_TSVAL])
          this.#learning = false
          this.#flowing = true
          this.#host.mark(this)
          this.receive(d, at, memory, now)
        } else if ((flags & (SYN | RST | ACK)) === (SYN | ACK) && d[at + D_SEQ] === w[b + S_IRS]) {
          // The third ACK was lost: exactly these numbers, everything else the listening kernel answers with a reset or not at all.
          this.#host.sendControl(this, ACK, (w[b + S_ISN] + 1) | 0, (w[b + S_IRS] + 1) | 0)
        } else if ((flags & RST) !== 0) this.#takeReset(d, at)
        else if ((flags & SYN) !== 0) this.#challenge()
        return
      case 'timeWait':
        this.#receiveLate(d, at, flags)
        return
      case 'free':
        return
    }
  }

  #takeReset(d: Int32Array, at: number): void {
    const verdict = this.#learning ? 'ignore' : judgeReset(this.words, this.base, d, at)
    if (verdict === 'reset') {
      this.supersede()
      return
    }
    this.#host.counters.reset++
    if (verdict === 'challenge') this.#challenge()
  }

  /** RFC 5961: a plain ACK, to which a peer that really has nothing answers with an exact reset. */
  #challenge(): void {
    if (this.#learning || !this.#host.mayAnswer()) return
    this.#host.sendControl(this, ACK, this.words[this.base + S_SND_MAX], nextAck(this.words, this.base))
  }

  #receiveLate(d: Int32Array, at: number, flags: number): void {
    if ((flags & SYN) !== 0 && (flags & ACK) === 0) {
      // The peer starts anew from the same address and port: the old carrier must not be in the way of the SYN's repeat.
      this.#free('silent')
      return
    }
    this.#host.counters.late++
    if ((flags & RST) !== 0 || this.#state.is !== 'timeWait') return
    if (this.#state.aborted) {
      if ((flags & ACK) !== 0 && this.#host.mayAnswer()) this.#host.sendControl(this, RST, d[at + D_ACK], 0)
      return
    }
    if ((flags & FIN) === 0 || judge(this.words, this.base, d, at) !== ACCEPTED) return
    const fin = (d[at + D_SEQ] + d[at + D_LENGTH]) | 0
    if (((fin + 1 - this.words[this.base + S_RCV_NXT]) | 0) > 0) this.words[this.base + S_RCV_NXT] = (fin + 1) | 0
    this.#host.sendControl(this, ACK, this.words[this.base + S_SND_MAX], nextAck(this.words, this.base))
  }

  #keepEarly(d: Int32Array, at: number, memory: Uint8Array): void {
    if (this.#earlyBytes + d[at + D_LENGTH] > EARLY_BYTES) {
      this.#host.counters.orphan++
      return
    }
    this.#earlyBytes += d[at + D_LENGTH]
    this.#early.push(keep(d, at, memory))
  }

  // ---- leaving -------------------------------------------------------------------------------------------------------------------

  /** Puts what is to be sent into the outbox. Called by the engine some time after `mark`. */
  fill(outbox: Outbox, now: number): void {
    if (!this.#flowing || this.#state.is !== 'open') return
    if (this.#sayHello || this.#repeatHello) this.#fillHello(outbox, now)
    if (this.#next < this.#messages.length) this.#fillData(outbox, now)
    if (this.#finNow && this.#next >= this.#messages.length) this.#fillFin(outbox, now)
    if (this.#ackNow) {
      if (!this.#room(outbox)) return
      this.#write(outbox.words, outbox.control(), ACK, this.words[this.base + S_SND_NXT], now)
    }
  }

  /** True when a descriptor may be added; else the flow waits for its turn. */
  #room(outbox: Outbox): boolean {
    if (outbox.full) outbox.flush()
    if (!outbox.blocked) return true
    this.#host.mark(this)
    return false
  }

  #fillHello(outbox: Outbox, now: number): void {
    const payload = this.#hello.payload
    if (payload === undefined || !this.#room(outbox)) return
    const w = this.words
    const b = this.base
    const start = (w[b + S_ISN] + 1) | 0
    let seq = start
    if (this.#sayHello) seq = nextSequence(w, b, payload.length)
    else {
      // The kernel at the other end may still wait for the third ACK; data does not count there, it never gets past the filter.
      this.#write(outbox.words, outbox.control(), ACK, start, now, (w[b + S_IRS] + 1) | 0)
      if (((w[b + S_SND_MAX] - start) | 0) > w[b + S_SND_WND]) {
        this.#hello.giveUp()
        this.#repeatHello = false
        return
      }
    }
    this.#write(outbox.words, outbox.train(undefined, [payload], 0, 1, payload.length), ACK | PSH, seq, now)
    this.#sayHello = false
    this.#repeatHello = false
    if (this.#settings.role === 'dialler') {
      this.#hello.asked(now)
      this.#host.schedule(this, this.#hello.dueMs)
    }
  }

  #fillData(outbox: Outbox, now: number): void {
    const messages = this.#messages
    const w = this.words
    const b = this.base
    const f = this.floatBase
    while (this.#next < messages.length) {
      if (!this.#room(outbox)) return
      const from = this.#next
      const segment = messages[from].length
      let count = 1
      let bytes = segment
      if (this.#trains) {
        const limit = Math.min(TRAIN_BYTES, trainLimit(w, b))
        while (count < TRAIN_SEGMENTS && from + count < messages.length) {
          const size = messages[from + count].length
          if (size > segment || bytes + size > limit) break
          bytes += size
          count++
          if (size < segment) break
        }
      }
      if (this.#holding && this.#sentBytes + bytes > EARLY_BYTES) {
        if (now < this.#holdDue) return // an acknowledgement or the deadline goes on
        this.#holding = false
        this.#holdDue = NEVER
      }
      this.#sentBytes += bytes
      const before = w[b + S_SND_NXT]
      const seq = nextSequence(w, b, bytes)
      if (seq !== before) w[b + S_SET_BACKS]++
      this.#write(outbox.words, outbox.train(this, messages, from, count, segment), ACK | PSH, seq, now)
      this.#next += count
      this.#inOutbox++
      this.floats[f + F_MESSAGES_OUT] += count
      this.floats[f + F_BYTES_OUT] += bytes
    }
    this.floats[f + F_LAST_SENT_MS] = now
  }

  #fillFin(outbox: Outbox, now: number): void {
    if (!this.#room(outbox)) return
    this.#finNow = false
    const w = this.words
    const b = this.base
    if (this.#fin === undefined) {
      this.#fin = { seq: w[b + S_SND_MAX], repeats: 0 }
      w[b + S_SND_NXT] = w[b + S_SND_MAX] = (this.#fin.seq + 1) | 0
    } else this.#fin.repeats++
    this.#write(outbox.words, outbox.control(), ACK | FIN, this.#fin.seq, now)
    this.#finDue = now + FIN_REPEAT_MS * 2 ** this.#fin.repeats
    this.#host.schedule(this, this.#finDue)
  }

  /** Fills the descriptor at `at`; whatever goes out carries the newest acknowledgement. */
  #write(words: Int32Array, at: number, flags: number, seq: number, now: number, ack = this.#acknowledge()): void {
    this.writeHeader(words, at, flags, seq, ack, now)
  }

  #acknowledge(): number {
    this.#unacked = 0
    this.#ackNow = false
    this.#ackDue = NEVER
    return nextAck(this.words, this.base)
  }

  /** Fills everything but the payload words of a descriptor. */
  writeHeader(words: Int32Array, at: number, flags: number, seq: number, ack: number, now: number): void {
    const w = this.words
    const b = this.base
    for (let i = 0; i < KEY_WORDS; i++) words[at + D_KEY + i] = w[b + S_KEY + i]
    words[at + D_SEQ] = seq
    words[at + D_ACK] = ack
    words[at + D_FLAGS] = flags | this.#timestamps
    words[at + D_WINDOW] = w[b + S_RCV_WINDOW_FIELD]
    words[at + D_TSVAL] = (w[b + S_TS_OFFSET] + Math.floor(now)) | 0
    words[at + D_TSECR] = w[b + S_TS_RECENT]
    words[at + D_IFINDEX] = isLinkLocal(w, b + S_KEY + KEY_REMOTE) ? this.#ifindex : 0
    words[at + D_TTL] = 0
    words[at + D_MAC_HIGH] = 0
  }

  trainDone(): void {
    if (--this.#inOutbox === 0 && this.#next >= this.#messages.length) this.#settleWrites()
  }

  segmentRefused(errno: number, size: number): void {
    const error = systemError(errno, 'sendmmsg')
    const drop: Drop = { reason: 'send-refused', size, code: error.code }
    this.countDrop(drop)
    this.#sink?.onDrop(drop)
  }

  #settleWrites(): void {
    const done = this.#done
    this.#done = undefined
    this.#messages = NOTHING
    this.#next = 0
    done?.()
  }

  // ---- time ----------------------------------------------------------------------------------------------------------------------

  /** Does what is due. @returns when to come back; Infinity for never */
  onDue(now: number): number {
    if (this.#state.is === 'timeWait') {
      if (now < this.#state.until) return this.#state.until
      this.#free('silent')
      return NEVER
    }
    if (this.#state.is !== 'open') return NEVER
    if (now >= this.#ackDue) {
      this.#ackDue = NEVER
      this.#ackNow = true
      this.#host.mark(this)
    }
    if (now >= this.#hello.dueMs) {
      if (this.#hello.overdue()) {
        this.#repeatHello = true
        this.#host.mark(this)
      } else if (this.#hello.state === 'none') this.#speakTcpraw()
    }
    if (now >= this.#holdDue) {
      this.#holdDue = NEVER
      this.#holding = false
      if (this.#next < this.#messages.length) this.#host.mark(this)
    }
    if (now >= this.#graceDue) {
      this.#graceDue = NEVER
      this.#peerEnded = true
      this.#sink?.onEnd()
      if (this.#finAnswered) this.#wait(false)
    }
    if (now >= this.#finDue) {
      this.#finDue = NEVER
      if (this.#fin !== undefined && this.#fin.repeats < FIN_REPEATS) {
        this.#finNow = true
        this.#host.mark(this)
      } else this.#finSettled(false)
    }
    if (now >= this.#lingerDue) this.#wait(false)
    const idle = this.#settings.idleTimeoutMs
    if (idle > 0 && now >= this.floats[this.floatBase + F_LAST_HEARD_MS] + idle) {
      this.#abort()
      this.#tellClosed(
        new FakeTcpError(
          'ERR_FAKETCP_IDLE',
          `Nothing was heard from ${this.remoteAddress}:${this.remotePort} for ${idle} ms (idleTimeoutMs)`,
        ),
      )
    }
    return this.#nextDue()
  }

  #nextDue(): number {
    if (this.#state.is === 'timeWait') return this.#state.until
    if (this.#state.is !== 'open') return NEVER
    const idle = this.#settings.idleTimeoutMs
    const idleDue = idle > 0 ? this.floats[this.floatBase + F_LAST_HEARD_MS] + idle : NEVER
    return Math.min(this.#ackDue, this.#hello.dueMs, this.#holdDue, this.#graceDue, this.#lingerDue, this.#finDue, idleDue)
  }

  #reschedule(now: number): void {
    const due = this.#nextDue()
    if (due !== NEVER) this.#host.schedule(this, Math.max(due, now))
  }

  // ---- ending --------------------------------------------------------------------------------------------------------------------

  /** Our FIN was answered, or never will be. */
  #finSettled(answered: boolean): void {
    this.#finAnswered = true
    this.#finDue = NEVER
    this.#settleEnd()
    if (!answered || this.#peerEnded) this.#wait(false)
  }

  /** Tells the peer by a reset that carries the highest sequence number ever sent: a tracker takes a lower one for invalid. */
  #abort(): void {
    if (!this.#learning) this.#host.sendControl(this, RST | ACK, this.words[this.base + S_SND_MAX], nextAck(this.words, this.base))
    this.#wait(true)
  }

  /** The peer is gone without having said so. */
  #lose(error: Error, now: number): void {
    this.#wait(false, now)
    this.#tellClosed(error)
  }

  /** The peer has given the connection up, by a reset or by making a new one on the same 4-tuple. */
  supersede(): void {
    const error = this.#reset()
    this.#free('silent')
    this.#tellClosed(error)
  }

  #reset(): Error {
    return systemError(ECONNRESET, 'read', { address: this.remoteAddress, port: this.remotePort })
  }

  #wait(aborted: boolean, now = this.#host.clock.now()): void {
    if (this.#state.is !== 'open') return
    const until = now + TIME_WAIT_MS
    this.#state = { is: 'timeWait', until, aborted }
    this.#flowing = false
    this.words[this.base + S_STATE] = TIME_WAIT
    this.#carrier.setExit('silent')
    this.#leave()
    this.#host.schedule(this, until)
  }

  #tellClosed(error: Error | undefined): void {
    const sink = this.#sink
    this.#sink = undefined
    sink?.onClose(error)
  }

  /** The flow no longer keeps the process alive, and nobody waits for it any more. */
  #leave(): void {
    if (this.#closed) return
    this.#closed = true
    if (this.#referenced) this.#host.unhold()
    this.#settleWrites()
    this.#settleEnd()
  }

  #settleEnd(): void {
    const done = this.#endDone
    this.#endDone = undefined
    if (done !== undefined) process.nextTick(done)
  }

  #free(how: 'silent' | 'fin'): void {
    if (this.#state.is === 'free') return
    this.#state = { is: 'free' }
    this.#flowing = false
    this.#leave()
    this.#carrier.end(how)
    // The slot may be taken by another flow at once; the statistics go on reading what it held.
    this.words = this.words.slice(this.base, this.base + SLOT_WORDS)
    this.floats = this.floats.slice(this.floatBase, this.floatBase + SLOT_WORDS / 2)
    this.base = 0
    this.floatBase = 0
    this.#host.freed(this)
    this.#settings.onFreed?.()
  }

  /** The process ends before timeWait does. */
  exit(): void {
    if (this.#state.is === 'timeWait') this.#carrier.end('silent')
  }

  /** Ends at once, without a packet where that is possible: the engine is closing. */
  shutDown(error: Error | undefined): void {
    if (this.#state.is === 'open') this.#abort()
    this.#tellClosed(error)
    this.#free(this.#state.is === 'opening' ? 'fin' : 'silent')
  }
}

/** An exception of the application's handler must not cost the other messages of the batch: it surfaces a tick later as uncaught. */
function rethrowLater(error: unknown): void {
  process.nextTick(() => {
    throw error
  })
}
