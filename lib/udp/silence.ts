// Whether the other end of a UDP connection is still there: when to ask, when to give up. It sends nothing and ends nothing itself.

/** Questions without an answer; they go at keepAliveMs, 4/3 and 5/3 of it, and the peer is dead at twice keepAliveMs. As over fake TCP. */
const QUESTIONS = 3

const NEVER = Number.POSITIVE_INFINITY

export interface SilenceOptions {
  /** 0: never. */
  readonly idleTimeoutMs: number
  /** 0: never. */
  readonly keepAliveMs: number
}

export class Silence {
  readonly #options: SilenceOptions
  heardMs: number
  #silentSince: number
  #asked = 0

  constructor(options: SilenceOptions, now: number) {
    this.#options = options
    this.heardMs = this.#silentSince = now
  }

  /** The next time at which `check` may find something. */
  get dueMs(): number {
    const { idleTimeoutMs: idle, keepAliveMs: keepAlive } = this.#options
    const asked = this.heardMs === this.#silentSince ? this.#asked : 0
    return Math.min(idle > 0 ? this.heardMs + idle : NEVER, keepAlive > 0 ? this.heardMs + this.#silenceBefore(asked) : NEVER)
  }

  check(now: number): 'ask' | 'idle' | 'dead' | undefined {
    const { idleTimeoutMs: idle, keepAliveMs: keepAlive } = this.#options
    if (idle > 0 && now >= this.heardMs + idle) return 'idle'
    if (this.heardMs !== this.#silentSince) {
      this.#silentSince = this.heardMs
      this.#asked = 0
    }
    if (keepAlive === 0 || now < this.heardMs + this.#silenceBefore(this.#asked)) return undefined
    if (this.#asked >= QUESTIONS) return 'dead'
    this.#asked++
    return 'ask'
  }

  #silenceBefore(asked: number): number {
    return (this.#options.keepAliveMs * (QUESTIONS + asked)) / QUESTIONS
  }
}
