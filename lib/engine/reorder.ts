// Puts numbered messages in order again, within bounds: a message waits for those before it for so long and no longer, and what waits has at
// most so many bytes. It counts nothing and knows no frames.

/** Bytes that may wait, `COST` more counted for each message. Beyond, the older half goes. */
const MOST_BYTES = 1 << 20
const COST = 128

interface Held {
  readonly message: Uint8Array
  readonly sinceMs: number
}

export class Reorder {
  /** When the message that has waited longest goes, whatever is missing before it; Infinity while none waits. */
  dueMs = Number.POSITIVE_INFINITY
  /** Number of the message that is to be delivered next. */
  next = 0
  readonly #windowMs: number
  readonly #deliver: (message: Uint8Array) => void
  /** By number, in the order of arrival. */
  readonly #held = new Map<number, Held>()
  #bytes = 0

  /** @param deliver gets a message that waited when its turn has come */
  constructor(windowMs: number, deliver: (message: Uint8Array) => void) {
    this.#windowMs = windowMs
    this.#deliver = deliver
  }

  /** Whether none waits. */
  get empty(): boolean {
    return this.#held.size === 0
  }

  /** Delivers a message when its turn has come, which may be now. @param number at least `next`, and not held yet */
  put(number: number, message: Uint8Array, nowMs: number): void {
    this.#held.set(number, { message, sinceMs: nowMs })
    this.#bytes += message.length + COST
    if (this.#bytes > MOST_BYTES) this.#releaseTo(this.#median())
    else this.#releaseRun()
  }

  /** Gives out what has waited long enough, and with it what is before it and what follows without a gap. */
  onDue(nowMs: number): void {
    if (nowMs < this.dueMs) return
    let last = -1
    for (const [number, { sinceMs }] of this.#held) {
      if (sinceMs + this.#windowMs > nowMs) break
      if (number > last) last = number
    }
    this.#releaseTo(last)
  }

  /** Gives out everything: nothing more will come. */
  flush(): void {
    this.#releaseTo(Number.POSITIVE_INFINITY)
  }

  /** Delivers all up to this number in order. What is missing is not waited for any longer. */
  #releaseTo(last: number): void {
    const numbers = [...this.#held.keys()].filter((number) => number <= last).sort((a, b) => a - b)
    for (const number of numbers) {
      // Delivering runs the application, which may end the flow and so flush.
      if (!this.#held.has(number)) continue
      this.next = number
      this.#release(number)
    }
    this.#releaseRun()
  }

  #releaseRun(): void {
    while (this.#held.has(this.next)) this.#release(this.next)
    const oldest = this.#held.values().next()
    this.dueMs = oldest.done ? Number.POSITIVE_INFINITY : oldest.value.sinceMs + this.#windowMs
  }

  #release(number: number): void {
    const held = this.#held.get(number)
    if (held === undefined) return
    this.#held.delete(number)
    this.#bytes -= held.message.length + COST
    this.next++
    this.#deliver(held.message)
  }

  #median(): number {
    const numbers = [...this.#held.keys()].sort((a, b) => a - b)
    return numbers[numbers.length >> 1]
  }
}
