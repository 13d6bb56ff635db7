// Framing 'counted' of one flow: numbers what goes out, counts what comes in, trades reports and echoes with the peer, and keeps why the peer closed.
// It sends nothing itself and knows neither segments nor streams.
import type { CloseReason, Outgoing } from '../transport.ts'
import {
  CLOSE,
  counterAt,
  DATA,
  decodeClose,
  decodeEcho,
  decodeReport,
  ECHO,
  encodeClose,
  encodeEcho,
  encodeReport,
  FRAME_HEADER,
  MOST_FRAMES,
  REPORT,
} from '../wire/frames.ts'
import { FIRST, FrameWindow } from './frame-window.ts'
import { Framer } from './framer.ts'
import { FramingFigures } from './framing-stats.ts'
import { Reorder } from './reorder.ts'

/** From the first message, either way, that no report of ours speaks of, until the report. */
const REPORT_MS = 1000
/** An echo of something older is none of ours. */
const LONGEST_RTT_MS = 60_000

const NEVER = Number.POSITIVE_INFINITY

/** Messages are to be delivered: a train of `segment` bytes each, the last may be shorter, the first FRAME_HEADER of which are the frame's. */
export type Deliver = (memory: Uint8Array, offset: number, length: number, segment: number) => void

export class Framing {
  readonly stats: FramingFigures
  /** What the peer said when it ended. */
  closeReason: CloseReason | undefined
  readonly #deliver: Deliver
  readonly #framer = new Framer()
  readonly #window = new FrameWindow()
  readonly #reorder: Reorder | undefined
  /** Frames below this number have been given to the kernel. */
  #flushed = 0
  #reportDue = NEVER
  #reportNow = false
  #stampToEcho: number | undefined
  #closing: Buffer | undefined

  /** @param reorderWindowMs how long a message waits for those before it; 0: messages are delivered as they come */
  constructor(deliver: Deliver, reorderWindowMs: number) {
    this.#deliver = deliver
    this.#reorder = reorderWindowMs > 0 ? new Reorder(reorderWindowMs, (frame) => deliver(frame, 0, frame.length, frame.length)) : undefined
    this.stats = new FramingFigures(this.#window, this.#framer)
  }

  /** When `onDue` is to be called; Infinity for never. */
  get dueMs(): number {
    return Math.min(this.#reportDue, this.#reorder?.dueMs ?? NEVER)
  }

  /** A report is to go soon. The first, at the beginning, makes the first sample of the round-trip time. */
  report(): void {
    this.#reportNow = true
  }

  /** Makes frames of messages; see Framer. */
  frame(messages: readonly Outgoing[], done: () => void, now: number): { frames: Outgoing[]; done: () => void } {
    this.#traffic(now)
    return this.#framer.frame(messages, done)
  }

  /** A train of frames has arrived. `memory` is overwritten after the call. */
  take(memory: Uint8Array, offset: number, length: number, segment: number, now: number): void {
    const end = offset + length
    let from = offset
    for (let at = offset + this.#takeInOrder(memory, offset, length, segment, now) * segment; at < end; at += segment) {
      const size = Math.min(segment, end - at)
      if (size >= FRAME_HEADER && memory[at] === DATA) {
        if (this.#takeData(memory, at, size, now)) continue
      } else this.#takeOther(memory, at, size, now)
      if (from < at) this.#deliver(memory, from, at - from, segment)
      from = at + segment
    }
    if (from < end) this.#deliver(memory, from, end - from, segment)
  }

  /** Takes the messages at the beginning of a train that come just as they should, which all of them do as a rule. @returns how many */
  #takeInOrder(memory: Uint8Array, offset: number, length: number, segment: number, now: number): number {
    const { expected } = this.#window
    if (this.#reorder !== undefined && !(this.#reorder.empty && this.#reorder.next === expected)) return 0
    if (expected > MOST_FRAMES - length) return 0
    let count = 0
    for (let at = offset; at + FRAME_HEADER <= offset + length; at += segment) {
      if (memory[at] !== DATA || counterAt(memory, at) !== ((expected + count) | 0)) break
      count++
    }
    if (count === 0) return 0
    this.#traffic(now)
    this.#window.takeNext(count)
    if (this.#reorder !== undefined) this.#reorder.next += count
    return count
  }

  /** @returns true when it is to be delivered now */
  #takeData(memory: Uint8Array, at: number, size: number, now: number): boolean {
    this.#traffic(now)
    const window = this.#window
    const number = window.extend(counterAt(memory, at))
    if (window.take(number) !== FIRST) return false
    const reorder = this.#reorder
    if (reorder === undefined) return true
    if (number < reorder.next) this.stats.ignored.overtaken++
    else if (number === reorder.next && reorder.empty) {
      reorder.next++
      return true
    } else reorder.put(number, memory.slice(at, at + size), now)
    return false
  }

  #takeOther(memory: Uint8Array, at: number, size: number, now: number): void {
    const { ignored } = this.stats
    if (size < FRAME_HEADER) ignored.short++
    else if (memory[at] === REPORT) this.#takeReport(memory, at, size)
    else if (memory[at] === ECHO) this.#takeEcho(memory, at, size, now)
    else if (memory[at] === CLOSE) this.#takeClose(memory, at, size)
    else ignored.unknownType++
  }

  #takeReport(memory: Uint8Array, at: number, size: number): void {
    const report = decodeReport(memory, at, size)
    if (report === undefined || report.figures.expected > this.#framer.next || report.figures.received > report.figures.expected) {
      this.stats.ignored.report++
      return
    }
    this.#know(memory, at)
    this.#stampToEcho = report.stampUs
    this.stats.takeReport(report.figures)
  }

  #takeEcho(memory: Uint8Array, at: number, size: number, now: number): void {
    const stampUs = decodeEcho(memory, at, size)
    const rttMs = stampUs === undefined ? NEVER : ((stampOf(now) - stampUs) >>> 0) / 1000
    if (rttMs > LONGEST_RTT_MS) {
      this.stats.ignored.echo++
      return
    }
    this.#know(memory, at)
    this.stats.takeRtt(rttMs)
  }

  #takeClose(memory: Uint8Array, at: number, size: number): void {
    const reason = decodeClose(memory, at, size)
    if (reason === undefined) {
      this.stats.ignored.close++
      return
    }
    this.#know(memory, at)
    if (reason !== 'none') this.closeReason ??= reason
  }

  /** Frames that are no message tell how many of those went before them, the last ones too, whose loss nothing else would show. */
  #know(memory: Uint8Array, at: number): void {
    this.#window.know(this.#window.extend(counterAt(memory, at)))
  }

  /** Nothing more will come: what waits for its turn is delivered. */
  peerEnded(): void {
    this.#reorder?.flush()
  }

  /** Our side ends, after what is still to be sent. */
  end(reason: CloseReason | undefined): void {
    this.#closing = encodeClose(this.#framer.next, reason)
  }

  /** The frame that goes with the FIN. */
  closeFrame(): Buffer | undefined {
    return this.#closing
  }

  /** Does what is due. */
  onDue(now: number): void {
    this.#reorder?.onDue(now)
    if (now < this.#reportDue) return
    this.#reportDue = NEVER
    this.#reportNow = true
  }

  /** True when `control` has something to say. */
  get talks(): boolean {
    return this.#reportNow || this.#stampToEcho !== undefined
  }

  /** The next frame to go that is no message. @param flushed whether all messages have been given to the kernel */
  control(now: number, flushed: boolean): Buffer | undefined {
    if (flushed) this.#flushed = this.#framer.next
    const stampUs = this.#stampToEcho
    if (stampUs !== undefined) {
      this.#stampToEcho = undefined
      return encodeEcho(this.#flushed, stampUs)
    }
    if (!this.#reportNow) return undefined
    this.#reportNow = false
    this.#reportDue = NEVER
    return encodeReport(this.#flushed, { stampUs: stampOf(now), figures: this.#window })
  }

  #traffic(now: number): void {
    if (this.#reportDue === NEVER) this.#reportDue = now + REPORT_MS
  }
}

function stampOf(nowMs: number): number {
  return Math.floor(nowMs * 1000) >>> 0
}
