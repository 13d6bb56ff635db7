// Memory for trains on their way into a flow. A buffer is lent for one train and comes back when the kernel has taken it.

/** A UDP train of 64 KiB and the overhead of its messages; one with more messages than this allows for is packed in parts. */
export const BUFFER_BYTES = 96 << 10
/** Bytes kept for reuse. */
const KEPT = 64

export interface PooledBuffer {
  readonly bytes: Buffer
  /** Gives it back; a bound function, made once, to be handed over as a callback. */
  readonly release: () => void
}

export class BufferPool {
  readonly #free: PooledBuffer[] = []

  take(): PooledBuffer {
    return this.#free.pop() ?? this.#make()
  }

  #make(): PooledBuffer {
    const buffer: PooledBuffer = {
      bytes: Buffer.allocUnsafeSlow(BUFFER_BYTES),
      release: () => {
        if (this.#free.length < KEPT) this.#free.push(buffer)
      },
    }
    return buffer
  }
}
