// One flow: its life from the handshake to the end of time wait, and what its stream asks of it. What arrives and what leaves are dealt with by
// arrivals.ts and departures.ts; sockets, timers and the list of flows belong to the engine (FlowHost).
import { formatAddress } from '../address.ts'
import type { Clock } from '../clock.ts'
import { ECONNRESET, EMSGSIZE, guarded, systemError } from '../errors.ts'
import type { Deadline } from '../flow/deadlines.ts'
import {
  CLOSING,
  F_DROPPED_IN,
  F_DROPPED_OUT,
  F_LAST_HEARD_MS,
  OPEN,
  S_DIALECT,
  S_KEY,
  S_MAX_MESSAGE,
  S_PATH_MTU,
  S_SND_MAX,
  S_SND_NXT,
  S_STATE,
  TIME_WAIT,
} from '../flow/layout.ts'
import type { CaptureMode } from '../link/capture.ts'
import type { Path } from '../link/next-hops.ts'
import type { Outbox } from '../link/outbox.ts'
import type { NativeCarrier } from '../native/binding.ts'
import { ACK, HAS_TIMESTAMPS, KEY_LOCAL, KEY_PORTS, KEY_REMOTE, RST } from '../native/layout.ts'
import type { CaptureStats } from '../stats.ts'
import type { Channel, ChannelSink, CloseReason, Drop, Family } from '../transport.ts'
import { DIALECT_TCPRAW } from '../wire/dialect.ts'
import { MAX_REASON } from '../wire/frames.ts'
import { SPLITS_TRAINS } from '../wire/hello.ts'
import { nextAck, questionSequence } from '../wire/rules.ts'
import { Arrivals } from './arrivals.ts'
import { Departures } from './departures.ts'
import { type FlowLife, FlowParts, type FlowSettings, type Surroundings } from './flow-parts.ts'
import { FlowStats } from './flow-stats.ts'
import { type Handshake, headerBytes, takeAgreement, takeNumbers } from './handshake.ts'
import type { LinkChoice } from './link-choice.ts'
import type { QueueOwner } from './send-queue.ts'
import type { Slot } from './slot.ts'
import { TIME_WAIT_MS } from './time-wait.ts'

const NEVER = Number.POSITIVE_INFINITY

/** What a flow needs of its engine. */
export interface FlowHost extends Surroundings {
  readonly clock: Clock
  /** What the captures saw and what was rejected. */
  readonly stats: CaptureStats
  /** Whether an interface leaves segments as they come, or tells the sizes of what it merged. */
  keepsSizes(ifindex: number): boolean
  /** The kernel's MTU towards the remote address of a key, 0 if it has none. One system call or more. */
  pathMtu(key: Int32Array, at: number, ifindex: number): number
  /** The path between the addresses of a key, or the reason why this engine's flows do without. */
  openPath(key: Int32Array, at: number, ifindex: number): Path | string
  /** The flow has something to send: `fill` is called soon. */
  mark(flow: Flow): void
  /** Runs at the end of the tick or batch, before what was marked is sent. */
  defer(run: () => void): void
  flush(): void
  /** `onDue` is to be called at this time, if not earlier. */
  schedule(flow: Flow, dueMs: number): void
  /** Sends a segment without payload at once. */
  sendControl(flow: Flow, flags: number, seq: number, ack: number): void
  /** The flow has ended for good: its slot is free. */
  freed(flow: Flow): void
  /** Keeps the process alive, until as many calls of `unhold`. */
  hold(): void
  unhold(): void
}

export class Flow implements Channel, Deadline, QueueOwner, FlowLife {
  readonly stats: FlowStats
  /** Deadline: kept by the engine's heap. */
  dueMs = NEVER
  heapIndex = -1
  /** True while in the engine's list of flows that want to send. */
  marked = false

  readonly #host: FlowHost
  readonly #parts: FlowParts
  readonly #arrivals: Arrivals
  readonly #departures: Departures
  readonly #carrier: NativeCarrier
  #peerMss: number | undefined
  /** No longer keeps the process alive, nobody waits for it. */
  #left = false
  #referenced = true

  constructor(host: FlowHost, slot: number, carrier: NativeCarrier, settings: FlowSettings) {
    this.#host = host
    this.#parts = new FlowParts(host, slot, settings, this)
    this.#arrivals = new Arrivals(this.#parts, this)
    this.#departures = new Departures(this.#parts, this)
    this.#carrier = carrier
    const { floats, floatBase } = this.slot
    this.stats = new FlowStats(this.slot, host.clock, settings.capture, this.link, host.stats, this.#parts.framing?.stats)
    floats[floatBase + F_LAST_HEARD_MS] = host.clock.now()
    host.hold()
  }

  get slot(): Slot {
    return this.#parts.slot
  }

  get family(): Family {
    return this.#parts.family
  }

  get link(): LinkChoice {
    return this.#parts.link
  }

  get capture(): CaptureMode {
    return this.#parts.settings.capture
  }

  /** True once its slot is free. */
  get gone(): boolean {
    return this.#parts.state.is === 'free'
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
    return this.slot.words[this.slot.base + S_MAX_MESSAGE] - this.#parts.queue.header
  }
  get minMessageSize(): 0 | 1 {
    return this.#parts.framing === undefined ? 1 : 0
  }
  get maxReasonBytes(): number | undefined {
    return this.#parts.framing === undefined ? undefined : MAX_REASON
  }
  get closeReason(): CloseReason | undefined {
    return this.#parts.framing?.closeReason
  }

  attach(sink: ChannelSink): void {
    this.#parts.sink = sink
    this.drained()
    for (const train of this.#arrivals.early.take()) this.receive(train.descriptor, 0, train.payload, this.#host.clock.now())
  }

  send(messages: readonly Uint8Array[], done: () => void): void {
    if (this.#parts.state.is !== 'open' || this.#parts.farewell.asked) {
      process.nextTick(done)
      return
    }
    const { queue, framing } = this.#parts
    if (framing === undefined) queue.put(messages, done)
    else {
      const framed = framing.frame(messages, done, this.#host.clock.now())
      queue.put(framed.frames, framed.done)
      this.schedule(framing.dueMs)
    }
    this.mark()
  }

  drained(): void {
    if (this.#parts.flowing) this.#arrivals.stream?.readMore(this.#host.clock.now())
  }

  defer(run: () => void): void {
    this.#host.defer(run)
  }

  flush(): void {
    this.#host.flush()
  }

  end(done: () => void, reason?: CloseReason): void {
    if (this.#parts.state.is !== 'open') {
      process.nextTick(done)
      return
    }
    if (this.#parts.agreement.pending) this.helloMissed()
    if (this.#parts.learning) {
      // Nothing was heard and nothing sent, so the kernel's own FIN has the right numbers.
      const sink = this.#parts.sink
      this.free('fin')
      process.nextTick(done)
      guarded(() => sink?.onEnd())
      return
    }
    this.#parts.framing?.end(reason)
    this.#parts.farewell.ask(done)
    this.slot.words[this.slot.base + S_STATE] = CLOSING
    this.mark()
  }

  countDrop(drop: Drop): void {
    this.slot.floats[this.slot.floatBase + (drop.reason === 'receive-queue' ? F_DROPPED_IN : F_DROPPED_OUT)] += drop.count ?? 1
  }

  release(): void {
    this.#parts.sink = undefined
    this.#parts.queue.abandon()
    if (this.#parts.state.is !== 'open') return
    const now = this.#host.clock.now()
    if (!this.#parts.farewell.answered) this.#abort(now)
    else if (this.#parts.farewell.peerFin) this.wait(false, now)
    else {
      // The process stays until the peer's FIN has come: without a carrier the kernel would answer it with a reset.
      this.#parts.farewell.linger(now)
      this.reschedule()
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
    this.#parts.segments.ifindex = handshake.ifindex
    takeNumbers(this.slot, handshake)
  }

  /** False while no SYN-ACK has been captured for a flow that is being dialled. */
  get handshakeSeen(): boolean {
    return this.#parts.state.is === 'opening' && this.#parts.state.seen
  }

  /**
   * The kernel's handshake is complete and the carrier is mute.
   *
   * @param numbers false when they were not captured and are to be learned
   */
  open(numbers: boolean): void {
    const now = this.#host.clock.now()
    const { dscp } = this.#parts.settings.options
    const { timestamps, sack, guard } = takeAgreement(this.slot, this.#carrier, { family: this.family, peerMss: this.#peerMss, dscp, now })
    this.#parts.segments.timestamps = timestamps ? HAS_TIMESTAMPS : 0
    this.#parts.pathMtu.open(headerBytes(this.family, timestamps))
    this.stats.guard = guard
    this.slot.words[this.slot.base + S_STATE] = OPEN
    this.#parts.state = { is: 'open' }
    this.#parts.learning = !numbers
    this.#parts.flowing = numbers
    this.#chooseLink()
    this.#parts.queue.hold(now)
    const splits = this.#parts.settings.splitsTrains && this.#host.keepsSizes(this.#parts.segments.ifindex) ? SPLITS_TRAINS : 0
    this.#parts.hello.open(splits | this.#parts.agreement.capability)
    this.#parts.agreement.open(this.#parts.settings.role, now)
    if (this.#parts.hello.state === 'asking') {
      this.#parts.hello.sayNow = true
      this.mark()
    } else if (this.#parts.progress !== undefined) this.#parts.speakTcp()
    else if (this.#parts.settings.role === 'dialler') this.#parts.speakTcpraw()
    this.#arrivals.open(sack)
    this.reschedule()
  }

  #chooseLink(): void {
    // Where this host rewrites packets, what the carrier's addresses say of the way is not true.
    if (this.capture === 'raw') {
      this.#parts.link.refuse('captured by raw socket')
      return
    }
    const { words, base } = this.slot
    const path = this.#host.openPath(words, base + S_KEY, this.#parts.segments.ifindex)
    if (typeof path === 'string') this.#parts.link.refuse(path)
    else this.#parts.link.take(path)
  }

  /** A listener with a key: why the peer is a stranger, as long as it is. */
  get strangeness(): 'hello' | 'replay' | undefined {
    const { locked, replayed } = this.#parts.hello
    return locked ? (replayed ? 'replay' : 'hello') : undefined
  }

  /** While the flow waits for the peer's hello: what becomes of it if none comes. */
  get missing(): Error | undefined {
    return this.#parts.state.is === 'open' && this.#parts.agreement.pending ? this.#parts.agreement.missing() : undefined
  }

  /** The dial failed or was given up: no stream ever had it. */
  cancel(): void {
    this.#parts.agreement.forget()
    if (this.#parts.state.is === 'opening') this.free('fin')
    else if (this.#parts.state.is === 'open') this.#abort(this.#host.clock.now())
  }

  // Segments

  /** A captured train of this flow. `memory` is overwritten after the call. */
  receive(d: Int32Array, at: number, memory: Uint8Array, now: number): void {
    this.#arrivals.receive(d, at, memory, now)
  }

  /** Puts what is to be sent into the outbox. Called by the engine some time after `mark`. */
  fill(outbox: Outbox, now: number): void {
    this.#departures.fill(outbox, now)
  }

  /** @internal For the engine: a segment without payload. */
  writeControl(words: Int32Array, at: number, flags: number, seq: number, ack: number, now: number): void {
    this.#parts.segments.writeWith(words, at, flags, seq, ack, now)
  }

  /** @internal For the engine: the path, when it is time to have its neighbour confirmed and a segment may go. */
  pathToProbe(now: number): Path | undefined {
    const { path } = this.link
    return this.#parts.flowing && path !== undefined && now >= path.probeDue ? path : undefined
  }

  /** @internal For the engine: a segment that says nothing new. */
  writeProbe(words: Int32Array, at: number, now: number): void {
    const { words: w, base: b } = this.slot
    this.#parts.segments.writeWith(words, at, ACK, w[b + S_SND_NXT], nextAck(w, b), now)
  }

  trainDone(): void {
    this.#parts.queue.trainDone()
  }

  segmentRefused(errno: number, bytes: number): void {
    if (errno === EMSGSIZE && !this.#parts.pathMtu.exceededBy(bytes)) this.#narrow(this.#kernelsPathMtu)
    const size = bytes - this.#parts.queue.header
    const max = this.maxMessageSize
    const tooLong = errno === EMSGSIZE && size > max
    this.#tellDrop(
      tooLong ? { reason: 'message-size', size, max } : { reason: 'send-refused', size, code: systemError(errno, 'sendmmsg').code },
    )
  }

  /** @internal */
  outgrown(drop: Drop): void {
    process.nextTick(() => this.#tellDrop(drop))
  }

  #tellDrop(drop: Drop): void {
    this.countDrop(drop)
    guarded(() => this.#parts.sink?.onDrop(drop))
  }

  // Path MTU

  /** @internal For the engine: an ICMP message about a packet of this flow; anybody may have sent it. */
  pathReported(report: Int32Array, at: number): void {
    if (!this.#parts.flowing) return
    const verdict = this.#parts.pathMtu.reported(report, at)
    if (verdict === 'refused') this.#host.counters.pathMtu++
    else if (verdict === 'smaller') this.#tellMtu()
  }

  get #kernelsPathMtu(): number {
    return this.#host.pathMtu(this.slot.words, this.slot.base + S_KEY, this.#parts.segments.ifindex)
  }

  /** @param mtu of a route or device of this host, 0 for one that nobody knows */
  #narrow(mtu: number): void {
    if (mtu > 0 && this.#parts.pathMtu.lower(mtu)) this.#tellMtu()
  }

  #tellMtu(): void {
    const { maxMessageSize } = this
    const pathMtu = this.slot.words[this.slot.base + S_PATH_MTU]
    guarded(() => this.#parts.sink?.onMtu({ maxMessageSize, pathMtu }))
  }

  // What its halves ask for (FlowLife)

  /** @internal */
  mark(): void {
    this.#host.mark(this)
  }

  /** @internal */
  schedule(dueMs: number): void {
    this.#host.schedule(this, dueMs)
  }

  /** @internal */
  control(flags: number, seq: number, ack: number): void {
    this.#host.sendControl(this, flags, seq, ack)
  }

  /** @internal Ends the flow when the tick or batch does, and what it has put into the outbox has gone. */
  refuse(error: Error): void {
    this.#host.defer(() => {
      if (this.#parts.state.is !== 'open') return
      this.#abort(this.#host.clock.now())
      this.#tellClosed(error)
    })
  }

  /** @internal */
  helloMissed(): void {
    const { agreement, hello } = this.#parts
    if (!agreement.pending) this.#parts.speakTcpraw()
    else if (hello.locked) agreement.settle(agreement.missing())
    else this.refuse(agreement.missing())
  }

  /** @internal */
  lost(now: number): void {
    const error = this.#reset()
    this.wait(false, now)
    this.#tellClosed(error)
  }

  // Time

  /** Does what is due. @returns when to come back; Infinity for never */
  onDue(now: number): number {
    if (this.#parts.state.is === 'timeWait' && now >= this.#parts.state.until) this.free('silent')
    if (this.#parts.state.is !== 'open') return this.#nextDue()
    if (now >= this.#parts.segments.ackDue) {
      this.#parts.segments.ackDue = NEVER
      this.#parts.segments.ackNow = true
      this.mark()
    }
    if (now >= this.#parts.hello.dueMs) {
      this.#parts.hello.repeatNow = this.#parts.hello.overdue()
      if (this.#parts.hello.repeatNow) this.mark()
      else if (this.#parts.hello.state === 'none') this.helloMissed()
    }
    if (now >= this.#parts.agreement.dueMs) {
      this.#parts.agreement.dueMs = NEVER
      this.helloMissed()
    }
    this.#parts.framing?.onDue(now)
    if (this.#parts.framing?.talks) this.mark()
    if (this.#parts.state.is !== 'open') return this.#nextDue() // what was delivered may have ended it
    if (now >= this.#parts.queue.holdDue) {
      this.#parts.queue.holdNoLonger()
      if (!this.#parts.queue.empty) this.mark()
    }
    this.#onEndingDue(now)
    if (this.#parts.state.is === 'open' && now >= this.#parts.liveness.dueMs) this.#onSilence(this.#parts.liveness.check(now), now)
    const progress = this.#parts.progress
    if (this.#parts.state.is === 'open' && progress !== undefined && now >= progress.dueMs) this.#onSilence(progress.check(now), now)
    return this.#nextDue()
  }

  #onSilence(found: 'ask' | Error | undefined, now: number): void {
    if (found === 'ask') {
      const { words, base } = this.slot
      if (this.#parts.flowing) this.#host.sendControl(this, ACK, questionSequence(words, base), nextAck(words, base))
      this.#arrivals.raiseFloors(now)
    } else if (found !== undefined) {
      this.#abort(now)
      this.#tellClosed(found)
    }
  }

  #onEndingDue(now: number): void {
    const farewell = this.#parts.farewell
    if (now >= farewell.graceDue) {
      farewell.graceDue = NEVER
      this.#parts.framing?.peerEnded()
      farewell.peerEnded = true
      if (this.#parts.agreement.pending) this.helloMissed()
      guarded(() => this.#parts.sink?.onEnd())
      if (farewell.answered) this.wait(false, now)
    }
    if (now >= farewell.finDue) {
      const answers = this.slot.words[this.slot.base + S_DIALECT] !== DIALECT_TCPRAW
      if (!farewell.overdue(answers)) this.mark()
      else {
        // Nothing more will come either: the stream ends.
        if (!farewell.peerEnded) guarded(() => this.#parts.sink?.onEnd())
        this.wait(false, now)
      }
    }
    if (now >= farewell.lingerDue) this.wait(false, now)
  }

  /** The path has changed. */
  pathChanged(): void {
    if (this.#parts.liveness.waitsForAddress) this.reschedule()
    const { path } = this.link
    // Without a hop it may not be the way that packets take.
    if (this.#parts.flowing && path !== undefined && path.hop >= 0) this.#narrow(path.mtu)
  }

  #nextDue(): number {
    if (this.#parts.state.is === 'timeWait') return this.#parts.state.until
    if (this.#parts.state.is !== 'open') return NEVER
    const { graceDue, finDue, lingerDue } = this.#parts.farewell
    return Math.min(
      this.#parts.segments.ackDue,
      this.#parts.hello.dueMs,
      this.#parts.queue.holdDue,
      this.#parts.agreement.dueMs,
      this.#parts.framing?.dueMs ?? NEVER,
      graceDue,
      finDue,
      lingerDue,
      this.#parts.liveness.dueMs,
      this.#parts.progress?.dueMs ?? NEVER,
    )
  }

  /** @internal */
  reschedule(): void {
    const due = this.#nextDue()
    if (due !== NEVER) this.schedule(due)
  }

  // Ending

  /** The peer has given the connection up, by a reset or by making a new one on the same 4-tuple. */
  supersede(): void {
    const error = this.#reset()
    this.free('silent')
    this.#tellClosed(error)
  }

  #reset(): Error {
    return systemError(ECONNRESET, 'read', { address: this.remoteAddress, port: this.remotePort })
  }

  /** Tells the peer by a reset that carries the highest sequence number ever sent: a tracker takes a lower one for invalid. */
  #abort(now: number): void {
    if (this.#parts.learning) {
      this.free('reset') // nothing was sent: the kernel's numbers are exact
      return
    }
    const { words, base } = this.slot
    this.#host.sendControl(this, RST | ACK, words[base + S_SND_MAX], nextAck(words, base))
    this.wait(true, now)
  }

  /** @internal */
  wait(aborted: boolean, now: number): void {
    if (this.#parts.state.is !== 'open') return
    const until = now + TIME_WAIT_MS
    this.#parts.state = { is: 'timeWait', until, aborted }
    this.#parts.flowing = false
    this.slot.words[this.slot.base + S_STATE] = TIME_WAIT
    this.#carrier.setExit('silent')
    this.#leave()
    this.schedule(until)
  }

  #tellClosed(cause: Error): void {
    // The peer's reset may come first, but it is not what this is about.
    const error = this.#parts.agreement.refusal ?? cause
    const sink = this.#parts.sink
    this.#parts.sink = undefined
    guarded(() => this.#parts.agreement.settle(error))
    guarded(() => sink?.onClose(error))
  }

  #leave(): void {
    if (this.#left) return
    this.#left = true
    if (this.#referenced) this.#host.unhold()
    this.#parts.queue.abandon()
    this.#parts.farewell.abandon()
  }

  /** @internal */
  free(how: 'silent' | 'fin' | 'reset'): void {
    if (this.#parts.state.is === 'free') return
    this.#parts.state = { is: 'free' }
    this.#parts.flowing = false
    this.#leave()
    this.#carrier.end(how)
    this.#parts.link.release()
    this.slot.detach()
    this.#host.freed(this)
    this.#parts.settings.onFreed?.()
  }

  /** The process ends before the flow does. */
  exit(): void {
    // The kernel's own close would send the FIN as the ttl guard has it, which does not arrive.
    this.#carrier.end(this.#parts.state.is === 'timeWait' ? 'silent' : 'fin')
  }
}
