// What one flow is made of: its slot, its state, and the parts that number, queue, greet, take leave and watch. The flow owns it; what arrives
// (arrivals.ts) and what leaves (departures.ts) work on it.
import { isMapped } from '../address.ts'
import { FLAG_STRICT, S_DIALECT, S_FLAGS, S_KEY, S_MAX_MESSAGE } from '../flow/layout.ts'
import type { FlowTable } from '../flow/table.ts'
import type { CaptureMode } from '../link/capture.ts'
import { KEY_REMOTE } from '../native/layout.ts'
import type { ChannelSink, Family } from '../transport.ts'
import { DIALECT_TCPRAW } from '../wire/dialect.ts'
import type { Role } from '../wire/hello.ts'
import type { EngineCounters } from './counters.ts'
import { Farewell } from './farewell.ts'
import type { FlowOptions } from './flow-options.ts'
import type { Handshake } from './handshake.ts'
import { HelloExchange } from './hello-exchange.ts'
import { LinkChoice } from './link-choice.ts'
import { Liveness } from './liveness.ts'
import { PathMtu } from './path-mtu.ts'
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
  /** False when a dialler was told that its peer has no hello. */
  readonly hello: boolean
  readonly options: FlowOptions
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
    this.hello = new HelloExchange(settings.role, settings.hello)
    this.farewell = new Farewell(this.slot, this.segments)
    this.liveness = new Liveness(this.slot, this.link, settings.options)
    this.family = isMapped(this.slot.words, this.slot.base + S_KEY + KEY_REMOTE) ? 'IPv4' : 'IPv6'
    this.pathMtu = new PathMtu(this.slot, this.link, this.family)
  }

  /** The peer has no hello. */
  speakTcpraw(): void {
    const { words: w, base: b } = this.slot
    w[b + S_DIALECT] = DIALECT_TCPRAW
    w[b + S_MAX_MESSAGE] = Math.min(w[b + S_MAX_MESSAGE], TCPRAW_MAX_MESSAGE)
  }

  /** Whether the peer is judged strictly. */
  get strict(): boolean {
    return (this.slot.words[this.slot.base + S_FLAGS] & FLAG_STRICT) !== 0
  }
}
