// What one engine counts of packets that reached no stream, by reason.
import type { Capture } from '../link/capture.ts'
import {
  COUNT_CALLS,
  COUNT_PACKETS,
  REJECT_CHECKSUM,
  REJECT_FOREIGN,
  REJECT_FRAGMENT,
  REJECT_HEADER,
  REJECT_TRUNCATED,
} from '../native/layout.ts'
import type { CaptureStats, Rejected } from '../stats.ts'

/** Increased by flows and the engine; each says why something was not delivered or answered. */
export class EngineCounters {
  window = 0
  ack = 0
  timestamp = 0
  pathMtu = 0
  reset = 0
  syn = 0
  late = 0
  orphan = 0
  /** Peers whose process died: their kernel's FIN came. */
  staleFins = 0
}

/** The statistics of an engine: a view on its counters and those of its captures. */
export class EngineStats implements CaptureStats {
  readonly #counters: EngineCounters
  readonly #captures: readonly Capture[]

  constructor(counters: EngineCounters, captures: readonly Capture[]) {
    this.#counters = counters
    this.#captures = captures
  }

  get packets(): number {
    return this.#sum(COUNT_PACKETS)
  }
  get calls(): number {
    return this.#sum(COUNT_CALLS)
  }
  get kernelDrops(): number {
    return this.#captures.reduce((sum, capture) => sum + capture.kernelDrops, 0)
  }
  get receiveBufferBytes(): number {
    return this.#captures.reduce((sum, capture) => sum + capture.receiveBufferBytes, 0)
  }
  get rejected(): Rejected {
    const { window, ack, timestamp, pathMtu, reset, syn, late, orphan } = this.#counters
    return {
      truncated: this.#sum(REJECT_TRUNCATED),
      header: this.#sum(REJECT_HEADER),
      checksum: this.#sum(REJECT_CHECKSUM),
      fragment: this.#sum(REJECT_FRAGMENT),
      foreign: this.#sum(REJECT_FOREIGN),
      window,
      ack,
      timestamp,
      pathMtu,
      reset,
      syn,
      late,
      orphan,
    }
  }

  #sum(index: number): number {
    return this.#captures.reduce((sum, capture) => sum + capture.counters[index], 0)
  }
}
