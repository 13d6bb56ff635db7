// Memory for trains on their way into a flow. A buffer is lent for one train and comes back when the kernel has taken it.

/** A UDP train of 64 KiB and the overhead of its messages; one with more messages than this allows for is packed in parts. */
export const BUFFER_BYTES = 96 << 10
/** One datagram: a thousand of them that wait must not hold a thousand buffers for trains. */
const SMALL_BYTES = 2 << 10
/** Buffers of each size that are kept for reuse. */
const KEPT = 64

export interface PooledBuffer {
  readonly bytes: Buffer
  /** Gives it back; a bound function, made once, to be handed over as a callback. */
  readonly release: () => void
}

export class BufferPool {
  readonly #small: PooledBuffer[] = []
  readonly #large: PooledBuffer[] = []

  /** @param size at most BUFFER_BYTES */
  take(size: number): PooledBuffer {
    return size <= SMALL_BYTES
      ? (this.#small.pop() ?? make(SMALL_BYTES, this.#small))
      : (this.#large.pop() ?? make(BUFFER_BYTES, this.#large))
  }
}

function make(size: number, free: PooledBuffer[]): PooledBuffer {
  const buffer: PooledBuffer = {
    bytes: Buffer.allocUnsafeSlow(size),
    release: () => {
      if (free.length < KEPT) free.push(buffer)
    },
  }
  return buffer
}
