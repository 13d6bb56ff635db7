// Numbers outgoing messages and puts a header before each. Equal messages that follow each other become one run, contiguous in memory, so that they
// still leave as trains.
import { view } from '../message-arena.ts'
import type { Outgoing } from '../transport.ts'
import { DATA, FRAME_HEADER, writeHeader } from '../wire/frames.ts'

/** Holds the longest segment. */
const BLOCK = 64 << 10
/** Blocks kept for the next messages of this thread: to allocate one costs as much as to frame a hundred messages. */
const MOST_FREE = 32
/** A run is cut into trains of so many: it had better be a multiple of it. */
const TRAIN_SEGMENTS = 64

/** Blocks that nobody uses, of all flows of this thread. */
const free: Uint8Array[] = []

export class Framer {
  /** Number of the next data frame. */
  next = 0
  #blocks: Uint8Array[] = []
  #used = BLOCK

  /**
   * Copies the messages into frames.
   *
   * @param done called when the kernel has taken all of them
   * @returns the frames, and what to call in place of `done`: their memory is used again then
   */
  frame(messages: readonly Outgoing[], done: () => void): { frames: Outgoing[]; done: () => void } {
    const frames: Outgoing[] = []
    for (let i = 0; i < messages.length; ) {
      const { length, segmentSize = length } = messages[i]
      if (segmentSize < length) this.#frameRun(messages[i++], segmentSize, frames)
      else i = this.#frameEqual(messages, i, frames)
    }
    const blocks = this.#blocks
    this.#blocks = []
    this.#used = BLOCK
    return {
      frames,
      done: () => {
        for (const block of blocks) if (free.length < MOST_FREE) free.push(block)
        done()
      },
    }
  }

  /** Frames the message at `from` and those behind it that make a run with it: equal ones, the last may be shorter. @returns where the next begins */
  #frameEqual(messages: readonly Outgoing[], from: number, frames: Outgoing[]): number {
    const size = messages[from].length
    const segment = size + FRAME_HEADER
    const end = Math.min(messages.length, from + mostInBlock(segment))
    let to = from + 1
    let bytes = segment
    while (to < end) {
      const { length, segmentSize = length } = messages[to]
      if (length > size || segmentSize < length) break
      bytes += length + FRAME_HEADER
      to++
      if (length < size) break
    }
    const run = this.#open(bytes, segment)
    let at = 0
    for (let i = from; i < to; i++) {
      const message = messages[i]
      writeHeader(run, at, DATA, this.next++)
      run.set(message, at + FRAME_HEADER)
      at += message.length + FRAME_HEADER
    }
    frames.push(run)
    return to
  }

  #frameRun(messages: Outgoing, size: number, frames: Outgoing[]): void {
    const segment = size + FRAME_HEADER
    const most = mostInBlock(segment) * size
    for (let from = 0; from < messages.length; from += most) {
      const bytes = Math.min(most, messages.length - from)
      const headers = Math.ceil(bytes / size) * FRAME_HEADER
      const run = this.#open(bytes + headers, segment)
      // In one piece behind where it belongs, then each message forward to its place: no view is made for each of them.
      run.set(view(messages, from, from + bytes), headers)
      for (let at = 0, source = headers; at < run.length; at += segment, source += size) {
        run.copyWithin(at + FRAME_HEADER, source, Math.min(source + size, run.length))
        writeHeader(run, at, DATA, this.next++)
      }
      frames.push(run)
    }
  }

  #open(bytes: number, segmentSize: number): Outgoing {
    if (this.#used + bytes > BLOCK) {
      this.#blocks.push(free.pop() ?? Buffer.allocUnsafeSlow(BLOCK))
      this.#used = 0
    }
    const start = this.#used
    this.#used += bytes
    const run: Buffer & { segmentSize?: number } = view(this.#blocks[this.#blocks.length - 1], start, this.#used)
    run.segmentSize = segmentSize
    return run
  }
}

function mostInBlock(segment: number): number {
  const most = Math.max(1, Math.floor(BLOCK / segment))
  return most > TRAIN_SEGMENTS ? most - (most % TRAIN_SEGMENTS) : most
}
