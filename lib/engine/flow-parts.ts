// What one flow is made of: its slot, its state, and the parts that number, queue, greet, take leave and watch. The flow owns it; what arrives
// (arrivals.ts) and what leaves (departures.ts) work on it.
import { isMapped } from '../address.ts'
import { rethrowLater } from '../errors.ts'
import { F_BYTES_IN, F_MESSAGES_IN, FLAG_STRICT, S_DIALECT, S_FLAGS, S_KEY, S_MAX_MESSAGE } from '../flow/layout.ts'
import type { FlowTable } from '../flow/table.ts'
import type { CaptureMode } from '../link/capture.ts'
import { KEY_REMOTE } from '../native/layout.ts'
import type { ChannelSink, Family } from '../transport.ts'
import { DIALECT_TCP, DIALECT_TCPRAW, type Dialect } from '../wire/dialect.ts'
import { FRAME_HEADER } from '../wire/frames.ts'
import type { Role } from '../wire/hello.ts'
import { Agreement } from './agreement.ts'
import type { EngineCounters } from './counters.ts'
import { Farewell } from './farewell.ts'
import type { FlowOptions } from './flow-options.ts'
import { Framing } from './framing.ts'
import type { Handshake } from './handshake.ts'
import { HelloExchange } from './hello-exchange.ts'
import { LinkChoice } from './link-choice.ts'
import { Liveness } from './liveness.ts'
import { PathMtu } from './path-mtu.ts'
import { Progress } from './progress.ts'
import { Segments } from './segments.ts'
import { type QueueOwner, SendQueue } from './send-queue.ts'
import { Slot } from './slot.ts'

export type State =
  /** The kernel's handshake is under way; `seen` once the SYN-ACK was captured. */
  | { is: 'opening'; seen: boolean }
  | { is: 'open' }
  /** Late segments are absorbed; `aborted` when we gave up and answer them with resets. */
  | { is: 'timeWait'; until: number; aborted: boolean }
  | { is: 'free' }

/** What arriving segments need of the engine. */
export interface Surroundings {
  readonly table: FlowTable
  readonly counters: EngineCounters
  /** Whether an answer to an unexpected segment is allowed now (RFC 5961, 7: such answers are rate-limited). */
  mayAnswer(): boolean
}

export interface FlowSettings {
  readonly role: Role
  readonly capture: CaptureMode
  readonly splitsTrains: boolean
  /** As the dialler was told; a listener's peer says it itself, or is taken for tcpraw. */
  readonly dialect: Dialect
  readonly options: FlowOptions
  /** With framing 'counted' or a key: both hellos agree and messages may flow, or the flow has ended before, or the peer of a listener has shown that it has not the key. */
  readonly onAgreed?: (error: Error | undefined) => void
  /** The slot is free and the carrier gone. */
  readonly onFreed?: () => void
}

/** What the halves of a flow ask of the whole. */
export interface FlowLife {
  /** There is something to send. */
  mark(): void
  /** Some part has another deadline now. */
  reschedule(): void
  /** One of them is this. */
  schedule(dueMs: number): void
  /** Sends a segment without payload at once. */
  control(flags: number, seq: number, ack: number): void
  /** What was captured of the handshake. */
  begin(handshake: Handshake): void
  /** The flow has ended and absorbs late segments; with an error unless both sides had ended it. */
  wait(aborted: boolean, now: number): void
  /** The peer has given the connection up: tells the stream. */
  lost(now: number): void
  /** The same by a reset or by a new connection on the same 4-tuple: nothing more is to be absorbed. */
  supersede(): void
  /** The peer cannot be dealt with: a reset tells it, the error tells the stream. */
  refuse(error: Error): void
  /** The peer has no hello, or none of our key. */
  helloMissed(): void
  /** Nothing is left to be absorbed. */
  free(how: 'silent' | 'fin' | 'reset'): void
}

/** tcpraw reads into 2 048 bytes, TCP header included. */
const TCPRAW_MAX_MESSAGE = 2048 - 60

export class FlowParts {
  readonly host: Surroundings
  readonly settings: FlowSettings
  readonly slot: Slot
  readonly family: Family
  /** By which link its segments leave. */
  readonly link = new LinkChoice()
  readonly segments: Segments
  readonly queue: SendQueue
  readonly hello: HelloExchange
  readonly farewell: Farewell
  readonly liveness: Liveness
  /** Where the peer is a real TCP. */
  readonly progress: Progress | undefined
  readonly agreement: Agreement
  /** With framing 'counted' only. */
  readonly framing: Framing | undefined
  readonly pathMtu: PathMtu
  state: State = { is: 'opening', seen: false }
  /** Open, numbers known: the ordinary case for everything that arrives. */
  flowing = false
  /** The initial numbers are to be learned from the peer's first segment. */
  learning = false
  sink: ChannelSink | undefined

  constructor(host: Surroundings, slot: number, settings: FlowSettings, messages: QueueOwner) {
    this.host = host
    this.settings = settings
    this.slot = new Slot(host.table, slot)
    this.segments = new Segments(this.slot, this.link)
    this.queue = new SendQueue(this.slot, this.segments, messages)
    this.family = isMapped(this.slot.words, this.slot.base + S_KEY + KEY_REMOTE) ? 'IPv4' : 'IPv6'
    this.pathMtu = new PathMtu(this.slot, this.link, this.family)
    this.hello = new HelloExchange(settings.role, settings.dialect === 'native', settings.options.helloKey)
    this.farewell = new Farewell(this.slot, this.segments)
    this.liveness = new Liveness(this.slot, this.link, settings.options)
    this.progress = settings.dialect === 'tcp' ? new Progress(this.slot) : undefined
    const { framing, reorderWindowMs } = settings.options
    this.agreement = new Agreement(this.slot, settings.options, settings.onAgreed)
    if (framing === 'none') return
    this.framing = new Framing(
      (memory, offset, length, segment) => this.deliver(memory, offset, length, segment, FRAME_HEADER),
      reorderWindowMs,
    )
    this.queue.header = FRAME_HEADER
  }

  /** Hands messages to the stream, the first `header` bytes of each left out. */
  deliver(memory: Uint8Array, offset: number, length: number, segment: number, header: number): void {
    if (this.sink === undefined) {
      this.host.counters.late++
      return
    }
    const { floats, floatBase: f } = this.slot
    const count = length <= segment ? 1 : Math.ceil(length / segment)
    floats[f + F_MESSAGES_IN] += count
    floats[f + F_BYTES_IN] += length - count * header
    try {
      this.sink.onTrain(memory, offset, length, segment, header)
    } catch (error) {
      rethrowLater(error)
    }
  }

  /** The peer has no hello. */
  speakTcpraw(): void {
    const { words: w, base: b } = this.slot
    w[b + S_DIALECT] = DIALECT_TCPRAW
    this.segments.widenAtOnce()
    w[b + S_MAX_MESSAGE] = Math.min(w[b + S_MAX_MESSAGE], TCPRAW_MAX_MESSAGE)
  }

  /** The peer is a real TCP: its kernel takes what comes before accept(), and answers questions. */
  speakTcp(): void {
    this.slot.words[this.slot.base + S_DIALECT] = DIALECT_TCP
    this.liveness.answers = true
    this.queue.stream = true
    this.queue.unhold()
  }

  /** Whether the peer is judged strictly. */
  get strict(): boolean {
    return (this.slot.words[this.slot.base + S_FLAGS] & FLAG_STRICT) !== 0
  }
}
