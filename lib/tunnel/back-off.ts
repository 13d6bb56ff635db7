// How long to wait before the next attempt: twice as long each time, from 0.2 s to 10 s, and by chance up to half of it less, so that what was
// lost together does not come back together.

const FIRST_MS = 200
const LONGEST_MS = 10_000
/** While datagrams wait, somebody wants to go on. */
const LONGEST_WANTED_MS = 2000

export class BackOff {
  #failures = 0
  readonly #random: () => number

  constructor(random: () => number = Math.random) {
    this.#random = random
  }

  /** Milliseconds to wait after one more failure. */
  next(): number {
    const whole = Math.min(LONGEST_MS, FIRST_MS * 2 ** this.#failures)
    if (whole < LONGEST_MS) this.#failures++
    return Math.round(whole * (1 - this.#random() / 2))
  }

  /** An attempt that somebody waits for comes after so long at the latest. */
  get longestWantedMs(): number {
    return LONGEST_WANTED_MS
  }

  reset(): void {
    this.#failures = 0
  }
}
