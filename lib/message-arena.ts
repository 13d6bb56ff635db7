// Memory for received messages: trains are copied out of the capture's slab into large blocks, and messages are views on those.

const BLOCK = 1 << 20

/**
 * Bytes that were handed out are never written again. A block is garbage once no message on it is referenced, so a message that is kept for long
 * keeps up to 1 MiB alive: copy it (`Buffer.from(message)`) to keep only its own bytes.
 */
export class MessageArena {
  #block = Buffer.allocUnsafeSlow(BLOCK)
  #used = 0

  /** Copies `length` bytes (at most 65 535) of `memory` at `offset`; the result belongs to the caller. */
  copy(memory: Uint8Array, offset: number, length: number): Buffer {
    if (this.#used + length > BLOCK) {
      this.#block = Buffer.allocUnsafeSlow(BLOCK)
      this.#used = 0
    }
    const start = this.#used
    const end = start + length
    this.#block.set(memory.subarray(offset, offset + length), start)
    // The next message starts on an 8-byte boundary, so that applications can lay typed arrays over theirs.
    this.#used = (end + 7) & ~7
    return this.#block.subarray(start, end)
  }
}
