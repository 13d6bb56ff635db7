// Who may do something of which only so many go on at once; the others wait, in the order in which they came.
import { abortError } from '../errors.ts'

export class Turns {
  #free: number
  readonly #waiting = new Set<() => void>()

  constructor(atOnce: number) {
    this.#free = atOnce
  }

  /**
   * Resolves when it is the caller's turn, which `pass` ends.
   *
   * @throws (rejects) AbortError, without a turn
   */
  async take(signal: AbortSignal): Promise<void> {
    if (signal.aborted) throw abortError(signal)
    if (this.#free > 0) {
      this.#free--
      return
    }
    await new Promise<void>((resolve, reject) => {
      const begin = () => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const leave = () => {
        this.#waiting.delete(begin)
        reject(abortError(signal))
      }
      this.#waiting.add(begin)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  pass(): void {
    const [next] = this.#waiting
    if (next === undefined) this.#free++
    else {
      this.#waiting.delete(next)
      next()
    }
  }
}
