// Segments that arrive before their flow can take them: a few, with payloads of their own.
import { D_LENGTH } from '../native/layout.ts'
import { EARLY_BYTES, EARLY_TRAINS, type KeptTrain, keep } from './orphans.ts'

export class EarlySegments {
  #trains: KeptTrain[] = []
  #bytes = 0

  /** @returns false when there is no room for it */
  keep(d: Int32Array, at: number, memory: Uint8Array): boolean {
    if (this.#bytes + d[at + D_LENGTH] > EARLY_BYTES || this.#trains.length >= EARLY_TRAINS) return false
    this.#bytes += d[at + D_LENGTH]
    this.#trains.push(keep(d, at, memory))
    return true
  }

  /** Hands over what was kept, in the order in which it came. */
  take(): KeptTrain[] {
    const trains = this.#trains
    this.#trains = []
    return trains
  }
}
