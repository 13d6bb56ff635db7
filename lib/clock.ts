// Time: the current millisecond, and a timer for all deadlines of whoever keeps them. Tests give the engine a clock of their own.

/** Milliseconds on a monotonic clock, and timers on it. */
export interface Clock {
  now(): number
  /** Returns a function that cancels. The timer never keeps the process alive. */
  after(ms: number, run: () => void): () => void
}

/** Node takes a longer timeout for 1 ms. A deadline that is met early is looked at again. */
export const LONGEST_MS = 2 ** 31 - 1

export const systemClock: Clock = {
  now: () => performance.now(),
  after(ms, run) {
    const timer = setTimeout(run, Math.min(ms, LONGEST_MS)).unref()
    return () => clearTimeout(timer)
  },
}
