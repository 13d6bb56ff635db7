// The frames of framing 'counted': a header before each message, and the few frames that the two ends send each other beside messages.
// docs/wire.md specifies every byte. Pure: bytes in, bytes out.
import { isUtf8 } from 'node:buffer'

/** Frame types, the first byte of each frame. Unknown ones are the receiver's to ignore. */
export const DATA = 0
/** What the sender has received so far, and a stamp to be echoed. */
export const REPORT = 1
/** The answer to a report: its stamp. */
export const ECHO = 2
/** Why the sender ends the connection. */
export const CLOSE = 3

/** Type, counter. */
export const FRAME_HEADER = 5
/** Bytes of a close frame's text. It shares a segment with the FIN, on the smallest path too. */
export const MAX_REASON = 256
/** A figure of a report counts no further. No sender gets there; only one who lies, by counters that jump. */
export const MOST_FRAMES = 2 ** 48 - 1

const STAMP_AT = FRAME_HEADER
const STAMP = 4
const FIGURE = 6
const FIGURES_AT = STAMP_AT + STAMP
const REPORT_SIZE = FIGURES_AT + 5 * FIGURE
const ECHO_SIZE = STAMP_AT + STAMP
const REASON_AT = FRAME_HEADER + 4

/** What one end has received of the other's data frames since the connection opened. */
export interface Figures {
  /** Frames that are known to have been sent: one past the highest counter heard of. */
  readonly expected: number
  /** Different ones that arrived. */
  readonly received: number
  /** Arrivals of a frame that had arrived before. */
  readonly duplicated: number
  /** Frames that arrived behind one with a higher counter (RFC 4737, 3.3). */
  readonly reordered: number
  /** Arrivals too far behind to tell whether they were duplicates. */
  readonly late: number
}

export interface Report {
  /** Microseconds on its sender's clock, modulo 2^32. */
  readonly stampUs: number
  readonly figures: Figures
}

/** Writes a header. @param counter of a data frame its number, of any other the next data frame's; the low 32 bits count */
export function writeHeader(memory: Uint8Array, at: number, type: number, counter: number): void {
  memory[at] = type
  memory[at + 1] = counter >>> 24
  memory[at + 2] = counter >>> 16
  memory[at + 3] = counter >>> 8
  memory[at + 4] = counter
}

/** The counter of the frame at `at`, as a signed number. */
export function counterAt(memory: Uint8Array, at: number): number {
  return (memory[at + 1] << 24) | (memory[at + 2] << 16) | (memory[at + 3] << 8) | memory[at + 4]
}

export function encodeReport(counter: number, { stampUs, figures }: Report): Buffer {
  const frame = Buffer.alloc(REPORT_SIZE)
  writeHeader(frame, 0, REPORT, counter)
  frame.writeUInt32BE(stampUs >>> 0, STAMP_AT)
  const { expected, received, duplicated, reordered, late } = figures
  for (const [i, figure] of [expected, received, duplicated, reordered, late].entries()) {
    frame.writeUIntBE(figure, FIGURES_AT + i * FIGURE, FIGURE)
  }
  return frame
}

/** @returns undefined for a report that is too short; what a later version may add behind is ignored */
export function decodeReport(memory: Uint8Array, at: number, size: number): Report | undefined {
  if (size < REPORT_SIZE) return undefined
  const frame = bytesOf(memory, at, size)
  const figure = (i: number) => frame.readUIntBE(FIGURES_AT + i * FIGURE, FIGURE)
  return {
    stampUs: frame.readUInt32BE(STAMP_AT),
    figures: { expected: figure(0), received: figure(1), duplicated: figure(2), reordered: figure(3), late: figure(4) },
  }
}

export function encodeEcho(counter: number, stampUs: number): Buffer {
  const frame = Buffer.alloc(ECHO_SIZE)
  writeHeader(frame, 0, ECHO, counter)
  frame.writeUInt32BE(stampUs, STAMP_AT)
  return frame
}

/** @returns the stamp, or undefined for an echo that is too short */
export function decodeEcho(memory: Uint8Array, at: number, size: number): number | undefined {
  return size < ECHO_SIZE ? undefined : bytesOf(memory, at, size).readUInt32BE(STAMP_AT)
}

/** @param closing its reason has at most `MAX_REASON` bytes of UTF-8; left out, the frame only tells the counter */
export function encodeClose(counter: number, closing?: { readonly code: number; readonly reason: string }): Buffer {
  const text = Buffer.from(closing?.reason ?? '')
  if (text.length > MAX_REASON) throw new RangeError(`A reason has at most ${MAX_REASON} bytes; got ${text.length}`)
  const frame = Buffer.alloc(closing === undefined ? FRAME_HEADER : REASON_AT + text.length)
  writeHeader(frame, 0, CLOSE, counter)
  if (closing !== undefined) {
    frame.writeUInt32BE(closing.code, FRAME_HEADER)
    frame.set(text, REASON_AT)
  }
  return frame
}

/** @returns 'none' for one that says nothing; undefined for one that is cut off, too long or not UTF-8 */
export function decodeClose(memory: Uint8Array, at: number, size: number): { code: number; reason: string } | 'none' | undefined {
  if (size === FRAME_HEADER) return 'none'
  if (size < REASON_AT || size > REASON_AT + MAX_REASON) return undefined
  const frame = bytesOf(memory, at, size)
  const text = frame.subarray(REASON_AT)
  return isUtf8(text) ? { code: frame.readUInt32BE(FRAME_HEADER), reason: text.toString() } : undefined
}

function bytesOf(memory: Uint8Array, at: number, size: number): Buffer {
  return Buffer.from(memory.buffer, memory.byteOffset + at, size)
}
