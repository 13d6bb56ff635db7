// The engine: captures and outboxes of one set of ports, and the flows on it. It hands each captured train to its flow, keeps orphans, runs one
// timer for all deadlines and sends what flows have to say. Dialling and accepting stand on it (dialler.ts, acceptor.ts).
import { formatAddress, isLinkLocal, isMapped } from '../address.ts'
import { isKnownToKernel } from '../carrier/known.ts'
import { type Clock, systemClock } from '../clock.ts'
import { FakeTcpError, guarded } from '../errors.ts'
import { DeadlineHeap } from '../flow/deadlines.ts'
import { F_OPENED_MS } from '../flow/layout.ts'
import { EXISTS, type FlowTable, FULL } from '../flow/table.ts'
import { type Capture, type CaptureFilter, type CaptureMode, openCapture } from '../link/capture.ts'
import type { Path } from '../link/next-hops.ts'
import type { Outbox } from '../link/outbox.ts'
import { watchPathReports } from '../link/path-reports.ts'
import type { LinkMode } from '../link/sender.ts'
import type { Binding, NativeCarrier } from '../native/binding.ts'
import { D_ACK, D_FLAGS, D_KEY, D_SEQ, D_WORDS, KEY_LOCAL, KEY_REMOTE, KEY_WORDS, REPORT_KEY, RST } from '../native/layout.ts'
import { EngineCounters, EngineStats } from './counters.ts'
import { Flow, type FlowHost } from './flow.ts'
import type { FlowSettings } from './flow-parts.ts'
import { Links } from './links.ts'
import { type Orphan, Orphans } from './orphans.ts'

export interface EngineSettings {
  readonly binding: Binding
  readonly table: FlowTable
  readonly capture: CaptureMode | 'auto'
  readonly link: LinkMode | 'auto'
  /** A listening engine keeps packets of unknown peers for a while and resets those that nobody claims; a dialling one ignores them. */
  readonly orphans: boolean
  /** Which unknown peers concern this engine; left out: all. */
  readonly concerns?: (words: Int32Array, at: number) => boolean
  readonly clock?: Clock
}

/**
 * RFC 5961, 7: unexpected segments are answered about this often, by the whole engine. Half as often to half as often again, as chance has it: a stranger with a connection of his
 * own could count what is left of a fixed number, and so find out the numbers of somebody else's (CVE-2016-5696; tcp_send_challenge_ack).
 */
const ANSWERS_A_SECOND = 100
const SAMPLE_MS = 1000
const REAP_MS = 1000
/** A timer that comes so late: the process was stopped or busy. */
const LATE_MS = 1000
/** Flushes that may follow each other before input gets its turn: a sender whose socket buffer never fills would starve it. */
const FLUSHES_A_TURN = 4

/** Engines of this thread with sockets open. */
const running = new Set<Engine>()

/** process.exit() runs no cleanup of the addon: what must not be left to the kernel's own close is done here. */
function onExit(): void {
  for (const engine of running) engine.exit()
}

/** Set inside the class, so that a flush needs no closure. */
let flush: (engine: Engine) => void

export class Engine implements FlowHost {
  readonly table: FlowTable
  readonly clock: Clock
  readonly counters = new EngineCounters()
  readonly captures: Capture[] = []
  readonly stats = new EngineStats(this.counters, this.captures)
  #orphans: Orphans | undefined
  /** Called when the last flow is gone. */
  onIdle: () => void = () => {}

  readonly #binding: Binding
  readonly #mode: CaptureMode | 'auto'
  readonly #owner: number
  readonly #concerns: (words: Int32Array, at: number) => boolean
  /** By slot; only our own. */
  readonly #flows: Array<Flow | undefined> = []
  #flowCount = 0
  readonly #links: Links
  /** Ends hearing of path MTUs, by family. */
  readonly #unwatch = new Map<4 | 6, () => void>()
  readonly #deadlines = new DeadlineHeap<Flow>()
  #armed = Number.POSITIVE_INFINITY
  #disarm: () => void = () => {}
  #marked: Flow[] = []
  #flushPlanned = false
  #deferred: Array<() => void> = []
  #flushes = 0
  #flushing = false
  #inBatch = false
  #holds = 0
  #answers = 0
  #answersSince = Number.NEGATIVE_INFINITY
  #sampleDue = 0
  #reapDue = 0
  #closed = false

  constructor(settings: EngineSettings) {
    this.#binding = settings.binding
    this.table = settings.table
    this.#mode = settings.capture
    this.clock = settings.clock ?? systemClock
    this.#orphans = settings.orphans ? new Orphans((trains) => (this.counters.orphan += trains)) : undefined
    this.#owner = settings.table.register()
    this.#concerns = settings.concerns ?? (() => true)
    this.#links = new Links({
      binding: settings.binding,
      clock: this.clock,
      link: settings.link,
      find: (words, at) => this.find(words, at),
      onRoom: () => this.#flushSoon(),
      onPathsChanged: () => this.#pathsChanged(),
    })
    if (running.size === 0) process.on('exit', onExit)
    running.add(this)
  }

  get orphans(): Orphans | undefined {
    return this.#orphans
  }

  /** No handshake will complete here any more: unknown peers are somebody else's, or nobody's. */
  forgetOrphans(): void {
    this.#orphans = undefined
  }

  /** Opens the capture socket of a family unless it is open; of one mode where that is named. */
  capture(family: 4 | 6, filter: CaptureFilter, mode: CaptureMode | 'auto' = this.#mode): void {
    if (this.captures.some((one) => one.family === family && (mode === 'auto' || one.mode === mode))) return
    const capture = openCapture(this.#binding, mode, family, filter, (from, count) => this.#onBatch(from, count))
    if (this.#holds === 0) capture.unref()
    this.captures.push(capture)
  }

  setFilter(filter: CaptureFilter): void {
    for (const capture of this.captures) capture.setFilter(filter)
  }

  /** Handles what has been captured but not read, so that a handshake the kernel has just completed is known. */
  drain(): void {
    for (const capture of this.captures) capture.drain()
  }

  /** True when packets are captured by AF_PACKET for want of an order to the contrary: raw capture may serve where that sees nothing. */
  get mayFallBack(): boolean {
    return this.#mode === 'auto' && this.captures.some((capture) => capture.mode === 'packet')
  }

  get flowCount(): number {
    return this.#flowCount
  }

  /**
   * Enters a flow into the table.
   *
   * @returns undefined when the 4-tuple is in the table already
   * @throws FakeTcpError `ERR_FAKETCP_TABLE_FULL`
   */
  insert(
    key: Int32Array,
    carrier: NativeCarrier,
    settings: Omit<FlowSettings, 'capture' | 'splitsTrains'>,
    mode?: CaptureMode,
  ): Flow | undefined {
    const family = isMapped(key, KEY_LOCAL) ? 4 : 6
    const capture = this.captures.find((one) => one.family === family && (mode === undefined || one.mode === mode))
    if (capture === undefined) throw new RangeError(`no capture is open for IPv${family}`)
    let slot = this.table.insert(key, 0, this.#owner)
    // Flows of threads that were terminated hold their slots until somebody needs them.
    if (slot < 0 && this.#mayReap() && this.table.reap() > 0) slot = this.table.insert(key, 0, this.#owner)
    if (slot === EXISTS) return undefined
    if (slot === FULL) {
      const { capacity } = this.table
      throw new FakeTcpError(
        'ERR_FAKETCP_TABLE_FULL',
        `The flow table is full: all ${capacity} slots are taken (see createFlowTable({ capacity }))`,
      )
    }
    const flow = new Flow(this, slot, carrier, { ...settings, capture: capture.mode, splitsTrains: capture.splitsTrains })
    this.table.floats[(this.table.base(slot) >> 1) + F_OPENED_MS] = this.clock.now()
    this.#flows[slot] = flow
    this.#flowCount++
    return flow
  }

  /** Reaping looks at every slot: not for each connection of a flood. */
  #mayReap(): boolean {
    const now = this.clock.now()
    if (now < this.#reapDue) return false
    this.#reapDue = now + REAP_MS
    return true
  }

  /** The flow of a key, if it is one of ours. */
  find(words: Int32Array, at: number): Flow | undefined {
    const slot = this.table.find(words, at)
    return slot < 0 ? undefined : this.#flows[slot]
  }

  /** The process ends: ended flows go silently, of the others the kernel's FIN tells their peers. */
  exit(): void {
    for (const flow of this.#flows) flow?.exit()
  }

  /** Closes every socket of an engine without flows. Idempotent. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    running.delete(this)
    if (running.size === 0) process.off('exit', onExit)
    this.#disarm()
    this.#links.close()
    for (const stop of this.#unwatch.values()) stop()
    for (const capture of this.captures) capture.close()
  }

  // What flows ask for (FlowHost)

  mark(flow: Flow): void {
    if (flow.marked) return
    flow.marked = true
    this.#marked.push(flow)
    // Within a batch the flush waits for its end: what the application answers in this tick carries the acknowledgement.
    if (!this.#inBatch) this.#flushSoon()
  }

  defer(run: () => void): void {
    if (this.#closed) {
      process.nextTick(run)
      return
    }
    this.#deferred.push(run)
    if (!this.#inBatch) this.#flushSoon()
  }

  flush(): void {
    if (!this.#inBatch && !this.#flushing) this.#flush()
  }

  schedule(flow: Flow, dueMs: number): void {
    if (flow.heapIndex === -1) {
      flow.dueMs = dueMs
      this.#deadlines.add(flow)
    } else if (dueMs < flow.dueMs) this.#deadlines.update(flow, dueMs)
    else return
    this.#arm(dueMs)
  }

  sendControl(flow: Flow, flags: number, seq: number, ack: number): void {
    const outbox = this.#links.of(flow)
    const at = openControl(outbox)
    if (at < 0) return
    flow.writeControl(outbox.words, at, flags, seq, ack, this.clock.now())
    this.#transmit()
  }

  mayAnswer(): boolean {
    const now = this.clock.now()
    if (now - this.#answersSince >= 1000) {
      this.#answersSince = now
      this.#answers = Math.round(ANSWERS_A_SECOND * (0.5 + Math.random()))
    }
    if (this.#answers === 0) return false
    this.#answers--
    return true
  }

  freed(flow: Flow): void {
    this.#flows[flow.slot.index] = undefined
    this.#deadlines.remove(flow)
    this.table.remove(flow.slot.index, this.#owner)
    this.#closeFallback(flow)
    if (--this.#flowCount === 0 && !this.#closed) this.onIdle()
  }

  /** A raw capture beside the packet capture shows every packet a second time: it goes with the last flow that needed it. */
  #closeFallback(freed: Flow): void {
    if (freed.capture !== 'raw' || this.#flows.some((flow) => flow?.capture === 'raw' && flow.family === freed.family)) return
    const family = freed.family === 'IPv4' ? 4 : 6
    const at = this.captures.findIndex((one) => one.family === family && one.mode === 'raw')
    if (at < 0 || !this.captures.some((one) => one.family === family && one.mode === 'packet')) return
    this.captures[at].close()
    this.captures.splice(at, 1)
  }

  hold(): void {
    if (this.#holds++ === 0) for (const capture of this.captures) capture.ref()
  }

  unhold(): void {
    if (--this.#holds === 0) for (const capture of this.captures) capture.unref()
  }

  // Arriving

  #onBatch(capture: Capture, count: number): void {
    const d = capture.descriptors
    const now = this.clock.now()
    this.#inBatch = true
    this.#flushes = 0
    try {
      for (let i = 0; i < count && !this.#closed; i++) this.#dispatch(capture, d, i * D_WORDS, now)
      // At once rather than a tick later: what was answered here is a round trip faster. A flush that is planned already comes as soon.
      if (!this.#flushPlanned && (this.#marked.length > 0 || this.#deferred.length > 0)) this.#flush()
    } finally {
      this.#inBatch = false
    }
    if (now >= this.#sampleDue && !this.#closed) {
      this.#sampleDue = now + SAMPLE_MS
      for (const one of this.captures) one.sample()
    }
  }

  #dispatch(capture: Capture, d: Int32Array, at: number, now: number): void {
    const slot = this.table.find(d, at + D_KEY)
    if (slot < 0) {
      this.#onOrphan(capture, d, at, now)
      return
    }
    const flow = this.#flows[slot]
    // Another thread's flow, or one that this socket shows a second time (see `capture` of the flow's settings).
    if (flow === undefined || flow.capture !== capture.mode) return
    flow.receive(d, at, capture.slab, now)
    // A flow in timeWait makes way when its peer starts anew; the SYN belongs to the one that follows.
    if (flow.gone) this.#onOrphan(capture, d, at, now)
  }

  #onOrphan(capture: Capture, d: Int32Array, at: number, now: number): void {
    if (
      this.orphans === undefined ||
      capture !== this.captures.find((one) => one.family === capture.family) ||
      (d[at + D_FLAGS] & RST) !== 0 ||
      !this.#concerns(d, at + D_KEY)
    ) {
      this.counters.orphan++
      return
    }
    this.orphans.note(d, at, capture.slab, now)
    this.#arm(this.orphans.nextMs)
  }

  /**
   * Data that nobody claimed: its sender believes in a connection that this host does not know. One reset tells it.
   *
   * @returns false when it has to wait for its turn
   */
  #resetOrphan(orphan: Orphan): boolean {
    // Another thread or process may have it: a listener on the same port before us, or after.
    if (this.table.find(orphan.key, 0) >= 0 || isKnownToKernel(orphan.key, this.clock.now()) || !this.#isLocal(orphan.key)) return true
    if (!this.mayAnswer()) return false
    const outbox = this.#links.raw(isMapped(orphan.key, KEY_LOCAL) ? 4 : 6)
    const at = openControl(outbox)
    if (at < 0) return false
    const words = outbox.words
    words.fill(0, at + KEY_WORDS, at + D_WORDS)
    words.set(orphan.key, at + D_KEY)
    words[at + D_SEQ] = orphan.ack
    words[at + D_ACK] = 0
    words[at + D_FLAGS] = RST
    this.#transmit()
    return true
  }

  /** A router captures what it only forwards: its reset would end a stranger's connection. */
  #isLocal(key: Int32Array): boolean {
    const source = new Int32Array(4)
    try {
      this.#binding.sourceAddress(formatAddress(key, KEY_LOCAL), source)
    } catch {
      return false
    }
    return source.every((word, i) => word === key[KEY_LOCAL + i])
  }

  // Leaving

  #flushSoon(): void {
    if (this.#flushPlanned || this.#closed) return
    this.#flushPlanned = true
    if (this.#flushes < FLUSHES_A_TURN) process.nextTick(flush, this)
    else {
      this.#flushes = 0
      setImmediate(flush, this)
    }
  }

  static {
    flush = (engine) => engine.#flush()
  }

  #flush(): void {
    if (this.#closed) return
    // Planned until the end, so that flows which wait for room mark themselves without planning the next flush.
    this.#flushPlanned = true
    this.#flushing = true
    try {
      const deferred = this.#deferred
      this.#deferred = []
      for (const run of deferred) guarded(run)
      const now = this.clock.now()
      const marked = this.#marked
      this.#marked = []
      for (const flow of marked) {
        flow.marked = false
        this.#links.probe(flow, now)
        flow.fill(this.#links.of(flow), now)
      }
      this.#links.transmit()
      this.#links.settle()
    } finally {
      this.#flushPlanned = false
      this.#flushing = false
      this.#flushes++
    }
    if (this.#deferred.length > 0 || this.#marked.some((flow) => !this.#links.of(flow).blocked)) this.#flushSoon()
  }

  #transmit(): void {
    this.#links.transmit()
    if (this.#links.unsettled) this.#flushSoon()
  }

  /** Opens the senders of a family now, and listens for reports about what they send, so that a missing capability is told before the handshake. */
  prepareToSend(family: 4 | 6): void {
    this.#links.prepare(family)
    if (this.#unwatch.has(family)) return
    const stop = watchPathReports(this.#binding, family, (report, at) => this.find(report, at + REPORT_KEY)?.pathReported(report, at))
    this.#unwatch.set(family, stop)
  }

  pathMtu(key: Int32Array, at: number, ifindex: number): number {
    const address = formatAddress(key, at + KEY_REMOTE)
    const zone = isLinkLocal(key, at + KEY_REMOTE) ? `%${ifindex}` : ''
    try {
      return this.#binding.sourceAddress(address + zone, new Int32Array(4))
    } catch {
      return 0 // no route
    }
  }

  openPath(key: Int32Array, at: number, ifindex: number): Path | string {
    return this.#links.openPath(key, at, ifindex)
  }

  keepsSizes(ifindex: number): boolean {
    return ifindex === 0 || !this.#binding.largeReceiveOffload(ifindex)
  }

  #pathsChanged(): void {
    for (const flow of this.#flows) flow?.pathChanged()
  }

  // Time

  #arm(dueMs: number): void {
    if (dueMs >= this.#armed || this.#closed) return
    this.#disarm()
    this.#armed = dueMs
    this.#disarm = this.clock.after(Math.max(1, Math.ceil(dueMs - this.clock.now())), () => this.#onTimer())
  }

  #onTimer(): void {
    const now = this.clock.now()
    const late = now - this.#armed > LATE_MS
    this.#armed = Number.POSITIVE_INFINITY
    this.#disarm = () => {}
    this.#flushes = 0
    // What came meanwhile still waits to be read: nobody is to be called silent who was not.
    if (late) this.drain()
    for (let flow = this.#deadlines.peek(); flow !== undefined && flow.dueMs <= now && !this.#closed; flow = this.#deadlines.peek()) {
      const next = flow.onDue(now)
      if (flow.heapIndex === -1) continue // freed
      if (next === Number.POSITIVE_INFINITY) this.#deadlines.remove(flow)
      else this.#deadlines.update(flow, Math.max(next, now + 1))
    }
    if (this.#closed) return
    this.orphans?.expire(now, (orphan) => this.#resetOrphan(orphan))
    this.#arm(Math.min(this.#deadlines.peek()?.dueMs ?? Number.POSITIVE_INFINITY, this.orphans?.nextMs ?? Number.POSITIVE_INFINITY))
  }
}

/** A descriptor for a segment without payload, or -1 while the kernel takes nothing: such a segment is as lost as any, what matters is repeated. */
function openControl(outbox: Outbox): number {
  return outbox.makeRoom() ? outbox.control() : -1
}
