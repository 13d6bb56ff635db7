// Memory for received messages: trains are copied out of the capture's slab into blocks, and messages are views on those.

/**
 * Bytes that were handed out are never written again. Small trains share a block; a larger one has a block of its own. A block is garbage once
 * no message on it is referenced, so a message that is kept for long keeps at most 16 KiB alive, or 64 times its own size where that is more.
 * Larger blocks are no faster: the allocator hands out those of 16 KiB again while they are warm.
 */
const BLOCK = 16 << 10
/** Messages that may be copied in one piece. */
export const PIECE_MESSAGES = 64

export class MessageArena {
  #block = Buffer.allocUnsafeSlow(BLOCK)
  #used = 0

  /**
   * Copies `length` bytes (at most 65 535) of `memory` at `offset`; the result belongs to the caller.
   *
   * @param header bytes before the first message: what is behind them will be on the boundary
   */
  copy(memory: Uint8Array, offset: number, length: number, header = 0): Buffer {
    const bytes = memory.subarray(offset, offset + length)
    const pad = -header & 7
    if (pad + length > BLOCK) {
      const own = Buffer.allocUnsafeSlow(pad + length)
      own.set(bytes, pad)
      return view(own, pad, pad + length)
    }
    if (this.#used + pad + length > BLOCK) {
      this.#block = Buffer.allocUnsafeSlow(BLOCK)
      this.#used = 0
    }
    const start = this.#used + pad
    const end = start + length
    this.#block.set(bytes, start)
    // The next message starts on an 8-byte boundary, so that applications can lay typed arrays over theirs.
    this.#used = (end + 7) & ~7
    return view(this.#block, start, end)
  }
}

/** What `subarray` itself calls, without the argument handling before it, which costs as much again. */
const View = (Buffer as unknown as { readonly [Symbol.species]: new (memory: ArrayBufferLike, offset: number, length: number) => Buffer })[
  Symbol.species
]

/** `buffer.subarray(start, end)` for indexes that are known to be in range. */
export function view(buffer: Uint8Array, start: number, end: number): Buffer {
  return new View(buffer.buffer, buffer.byteOffset + start, end - start)
}
