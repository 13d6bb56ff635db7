// Signals: the first asks for an orderly end, the second ends at once.
import process from 'node:process'
import { AT_ONCE } from '../exit-codes.ts'

const SIGNALS = ['SIGINT', 'SIGTERM'] as const
/** One Ctrl-C can arrive twice: from the terminal, and passed on by the parent (npx). */
const SAME_MS = 300

export class StopSignal implements Disposable {
  readonly #asked = new AbortController()
  #askedAt = 0

  constructor() {
    for (const name of SIGNALS) process.on(name, this.#onSignal)
  }

  /** Aborted when the end was asked for. */
  get signal(): AbortSignal {
    return this.#asked.signal
  }

  [Symbol.dispose](): void {
    for (const name of SIGNALS) process.off(name, this.#onSignal)
  }

  readonly #onSignal = (name: (typeof SIGNALS)[number]): void => {
    if (!this.signal.aborted) {
      this.#askedAt = performance.now()
      this.#asked.abort()
    } else if (performance.now() - this.#askedAt > SAME_MS) process.exit(AT_ONCE[name])
  }
}
