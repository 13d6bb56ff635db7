// Two engines, a wire with a tracking router on it, and virtual time: hours of a flow's life in seconds of ours. Engines, flows, timers and rules are
// the real ones; kernel sockets are replaced by memory, since a kernel's clock cannot be turned.

import { Engine } from '../../lib/engine/engine.ts'
import type { Flow } from '../../lib/engine/flow.ts'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { Strangers } from '../../lib/engine/strangers.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import type { Binding, CaptureOptions, NativeCarrier } from '../../lib/native/binding.ts'
import {
  ACK,
  D_ACK,
  D_FLAGS,
  D_KEY,
  D_LENGTH,
  D_OFFSET,
  D_SEGMENT,
  D_SEQ,
  D_TSVAL,
  D_WINDOW,
  D_WORDS,
  FIN,
  INFO_HOP_LIMIT,
  INFO_OPTIONS,
  INFO_PATH_MTU,
  INFO_RECEIVE_SCALE,
  INFO_RECEIVE_WINDOW,
  INFO_SEND_MSS,
  INFO_SEND_SCALE,
  INFO_TIMESTAMP,
  KEY_LOCAL,
  KEY_PORTS,
  KEY_REMOTE,
  KEY_WORDS,
  RST,
} from '../../lib/native/layout.ts'
import type { ChannelSink } from '../../lib/transport.ts'
import type { Dialect } from '../../lib/wire/dialect.ts'
import { TcpTracker } from '../support/tracker.ts'

/** TCPI_OPT_TIMESTAMPS, TCPI_OPT_WSCALE */
const OPTIONS = 1 | 4
const MSS = 1448
/** What SYN and SYN-ACK advertise. */
const WINDOWS = [64240, 65160] as const
const NOTHING = Buffer.alloc(0)

export interface WorldSettings {
  readonly delayMs: number
  /** Of the router's entry for an established connection. */
  readonly trackingMs: number
  /** Shift of both windows. */
  readonly scale: number
  /** Initial sequence numbers and timestamps of client and server. */
  readonly isn: readonly [number, number]
  readonly clocks: readonly [number, number]
  readonly options: FlowOptions
  /** Of the client; 'native' unless told. */
  readonly dialect?: Dialect
}

/** Of a flow that does nothing by itself. */
export const FLOW_OPTIONS: FlowOptions = {
  idleTimeoutMs: 0,
  keepAliveMs: 0,
  strict: true,
  dscp: 0,
  framing: 'none',
  reorderWindowMs: 0,
  helloKey: undefined,
}
/** Of a world whose test says nothing else. */
export const DEFAULTS: WorldSettings = {
  delayMs: 10,
  trackingMs: 7_200_000,
  scale: 7,
  isn: [1000, 2000],
  clocks: [1, 2],
  options: FLOW_OPTIONS,
}

/** What happens to packets on the wire now. */
export interface Weather {
  /** Of packets, seeded. */
  loss: number
  /** Further delay of up to so much, for each packet its own: they overtake each other. */
  jitterMs: number
  /** The cable is pulled. */
  cut: boolean
}

export class World {
  readonly weather: Weather = { loss: 0, jitterMs: 0, cut: false }
  readonly ends: readonly [End, End]
  readonly tracker: TcpTracker
  readonly settings: WorldSettings
  /** Messages in packets that the wire has lost. */
  lostMessages = 0
  /** As performance.now(): the processes begin with it. */
  #now = 0
  #random: number
  #events: { at: number; order: number; run: () => void }[] = []
  #order = 0

  constructor(settings: WorldSettings, seed: number) {
    this.settings = settings
    this.#random = seed
    const [a, b] = settings.isn
    const syn = { seq: a, ack: 0, length: 0, window: WINDOWS[0] }
    const synAck = { seq: b, ack: (a + 1) | 0, length: 0, window: WINDOWS[1] }
    this.tracker = new TcpTracker(syn, synAck, [settings.scale, settings.scale], settings.trackingMs, this.#now)
    this.ends = [new End(this, 0), new End(this, 1)]
    for (const end of this.ends) end.open()
  }

  get now(): number {
    return this.#now
  }

  /** Runs something at a time to come. @returns what cancels it */
  at(ms: number, run: () => void): () => void {
    const event = { at: ms, order: this.#order++, run }
    const events = this.#events
    let i = events.push(event) - 1
    while (i > 0 && precedes(event, events[(i - 1) >> 1])) {
      events[i] = events[(i - 1) >> 1]
      i = (i - 1) >> 1
    }
    events[i] = event
    return () => {
      event.run = () => {}
    }
  }

  /** Lets time pass. */
  async run(ms: number): Promise<void> {
    const end = this.#now + ms
    await turn()
    for (let first = this.#events[0]; first !== undefined && first.at <= end; first = this.#events[0]) {
      this.#pop()
      this.#now = Math.max(this.#now, first.at)
      first.run()
      // What the engines have put off to the end of the tick.
      await turn()
    }
    this.#now = end
  }

  #pop(): void {
    const events = this.#events
    const last = events.pop()
    if (last === undefined || events.length === 0) return
    let i = 0
    for (let child = 1; child < events.length; child = 2 * i + 1) {
      if (child + 1 < events.length && precedes(events[child + 1], events[child])) child++
      if (!precedes(events[child], last)) break
      events[i] = events[child]
      i = child
    }
    events[i] = last
  }

  /** mulberry32 */
  random(): number {
    this.#random = (this.#random + 0x6d2b79f5) | 0
    let t = Math.imul(this.#random ^ (this.#random >>> 15), 1 | this.#random)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }

  #swallows(): boolean {
    return this.weather.cut || this.random() < this.weather.loss
  }

  /** A packet leaves one end: the router looks at it, then it arrives or not. */
  carry(from: 0 | 1, d: Int32Array, payload: Uint8Array, messages: number): void {
    const lose = (isLost: boolean) => {
      if (isLost) this.lostMessages += messages
      return isLost
    }
    if (lose(this.#swallows())) return
    const flags = d[D_FLAGS]
    const segment = { seq: d[D_SEQ], ack: d[D_ACK], length: d[D_LENGTH], window: d[D_WINDOW] }
    const half = this.settings.delayMs / 2
    this.at(this.#now + half, () => {
      const fault = this.tracker.see(from, { ...segment, fin: (flags & FIN) !== 0, rst: (flags & RST) !== 0 }, this.#now)
      if (lose(fault !== undefined || this.#swallows())) return
      this.at(this.#now + half + this.random() * this.weather.jitterMs, () => this.ends[1 - from].arrive(d, payload))
    })
  }
}

/** One host. */
export class End {
  readonly flow: Flow
  readonly engine: Engine
  readonly counted = { messages: 0, closes: [] as string[], ends: 0, agreed: 0, strange: [] as string[] }
  readonly #world: World
  readonly #side: 0 | 1
  readonly #key: Int32Array
  readonly #waits: boolean
  readonly #strangers: Strangers | undefined
  #capture: CaptureOptions | undefined
  /** While the process is stopped: timers whose time has come, and what the kernel keeps for it. */
  #stopped: { timers: (() => void)[] } | undefined
  #unread: { sent: Int32Array; payload: Uint8Array }[] = []
  readonly #sink: ChannelSink = {
    onTrain: (_memory, _offset, length, segment) => {
      this.counted.messages += Math.ceil(length / segment)
    },
    room: () => Number.POSITIVE_INFINITY,
    onEnd: () => {
      this.counted.ends++
    },
    onClose: (error) => {
      this.counted.closes.push((error as { code?: string } | undefined)?.code ?? 'none')
    },
    onDrop: (drop) => {
      throw new Error(`dropped: ${drop.reason}`)
    },
    onMtu: () => {
      throw new Error('nobody has said anything of the path MTU')
    },
  }

  constructor(world: World, side: 0 | 1) {
    this.#world = world
    this.#side = side
    this.#key = new Int32Array(KEY_WORDS)
    this.#key.set([0, 0, 0xffff, 0x0a000002 - side], KEY_REMOTE)
    this.#key.set([0, 0, 0xffff, 0x0a000001 + side], KEY_LOCAL)
    this.#key[KEY_PORTS] = side === 0 ? (9191 << 16) | 40000 : (40000 << 16) | 9191
    const table = FlowTable.create({ capacity: 16 })
    const clock = {
      now: () => world.now,
      after: (ms: number, run: () => void) =>
        world.at(world.now + ms, () => (this.#stopped === undefined ? run() : this.#stopped.timers.push(run))),
    }
    this.engine = new Engine({ binding: this.#binding(), table, capture: 'packet', link: 'raw', orphans: side === 1, clock })
    this.engine.capture(4, { ports: [side === 0 ? 40000 : 9191] })
    const role = side === 0 ? 'dialler' : 'listener'
    const { options, dialect = 'native' } = world.settings
    this.#waits = options.framing === 'counted' || options.helloKey !== undefined
    const onAgreed = this.#waits ? (error: Error | undefined) => this.#onAgreed(error) : undefined
    const flow = this.engine.insert(this.#key, this.#carrier(), { role, dialect: side === 0 ? dialect : 'native', options, onAgreed })
    if (flow === undefined) throw new Error('the flow is there already')
    this.flow = flow
    if (side === 1 && options.helloKey !== undefined) {
      this.#strangers = new Strangers(clock, options.idleTimeoutMs)
      this.#strangers.admit(flow)
    }
  }

  open(): void {
    const { isn, clocks } = this.#world.settings
    const other = this.#side === 0 ? 1 : 0
    this.flow.begin({ isn: isn[this.#side], irs: isn[other], ifindex: 0, tsval: clocks[other], mss: MSS })
    this.flow.open(true)
    if (!this.#waits) this.flow.attach(this.#sink)
  }

  /** As an acceptor and a dialler do. */
  #onAgreed(error: Error | undefined): void {
    const { strangeness } = this.flow
    if (strangeness !== undefined) this.counted.strange.push(strangeness)
    else if (error !== undefined) this.#sink.onClose(error)
    else {
      this.counted.agreed++
      this.#strangers?.recognise(this.flow)
      this.flow.attach(this.#sink)
    }
  }

  /** A packet comes in. */
  arrive(sent: Int32Array, payload: Uint8Array): void {
    if (this.#stopped !== undefined) {
      this.#unread.push({ sent, payload })
      return
    }
    const capture = this.#capture
    if (capture === undefined) throw new Error('no capture is open')
    capture.descriptors.set(sent)
    capture.descriptors.set(this.#key, D_KEY)
    capture.descriptors[D_OFFSET] = 0
    capture.slab.set(payload)
    capture.onBatch(1)
  }

  /** Reads what has come while the process was stopped. */
  #read(): void {
    for (const { sent, payload } of this.#unread.splice(0)) this.arrive(sent, payload)
  }

  /** As SIGSTOP, or a long calculation. */
  stop(): void {
    this.#stopped = { timers: [] }
  }

  /** In Node's order: timers first, then what can be read. */
  resume(): void {
    const timers = this.#stopped?.timers ?? []
    this.#stopped = undefined
    for (const run of timers) run()
    this.#read()
  }

  /** The kernel closes the carrier of a dead process: the handshake's numbers, as it knows no others. */
  die(): void {
    const d = new Int32Array(D_WORDS)
    const { isn, clocks } = this.#world.settings
    d[D_SEQ] = (isn[this.#side] + 1) | 0
    d[D_ACK] = (isn[1 - this.#side] + 1) | 0
    d[D_FLAGS] = ACK | FIN
    d[D_TSVAL] = clocks[this.#side]
    this.#world.ends[1 - this.#side].arrive(d, NOTHING)
  }

  #carrier(): NativeCarrier {
    const { scale, clocks } = this.#world.settings
    return {
      localPort: 0,
      info: (out: Int32Array) => {
        out[INFO_OPTIONS] = OPTIONS
        out[INFO_SEND_SCALE] = out[INFO_RECEIVE_SCALE] = scale
        out[INFO_SEND_MSS] = MSS
        out[INFO_PATH_MTU] = 1500
        out[INFO_HOP_LIMIT] = 64
        out[INFO_RECEIVE_WINDOW] = WINDOWS[this.#side]
        out[INFO_TIMESTAMP] = clocks[this.#side]
      },
      end: () => 'none',
      setExit: () => {},
    } as unknown as NativeCarrier
  }

  #binding(): Binding {
    const nothing = () => {}
    const end = this
    class Capture {
      readonly receiveBufferBytes = 0
      readonly setFilter = nothing
      readonly ref = nothing
      readonly unref = nothing
      readonly close = nothing
      readonly kernelDrops = () => 0
      readonly drain = () => end.#read()
      constructor(options: CaptureOptions) {
        end.#capture = options
      }
    }
    class RawSender {
      readonly errno = 0
      readonly close = nothing
      send(words: Int32Array, from: number, count: number, buffers: readonly Uint8Array[]): number {
        let segments = 0
        for (let i = from; i < from + count; i++) segments += end.#leave(words.slice(i * D_WORDS, (i + 1) * D_WORDS), buffers)
        return segments
      }
    }
    class PathReports {
      readonly close = nothing
    }
    return { Capture, RawSender, PathReports, largeReceiveOffload: () => false } as unknown as Binding
  }

  #leave(d: Int32Array, buffers: readonly Uint8Array[]): number {
    const own = buffers.slice(d[D_OFFSET], d[D_OFFSET] + d[D_LENGTH])
    // The kernel copies; where nobody writes into the messages of the test, that can be spared.
    const payload = own.length === 1 && this.#world.settings.options.framing === 'none' ? own[0] : Buffer.concat(own)
    const messages = own.reduce((sum, { length }) => sum + Math.ceil(length / d[D_SEGMENT]), 0)
    d[D_LENGTH] = payload.length
    this.#world.carry(this.#side, d, payload, messages)
    return Math.max(1, messages)
  }
}

function precedes(a: { at: number; order: number }, b: { at: number; order: number }): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order)
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
