// The figures of framing 'counted': kept by Framing, shown to the application as they are.
import type { DirectionStats, FramingStats } from '../stats.ts'
import type { Figures } from '../wire/frames.ts'
import type { FrameWindow } from './frame-window.ts'
import type { Framer } from './framer.ts'

/** RFC 6298, 2.3 */
const SMOOTHING = 1 / 8

export class FramingFigures implements FramingStats {
  rttMs: { last: number; min: number; smoothed: number } | undefined
  readonly ignored = { short: 0, unknownType: 0, report: 0, echo: 0, close: 0, overtaken: 0 }
  readonly #window: FrameWindow
  readonly #framer: Framer
  #reported: Figures = { expected: 0, received: 0, duplicated: 0, reordered: 0, late: 0 }

  constructor(window: FrameWindow, framer: Framer) {
    this.#window = window
    this.#framer = framer
  }

  get incoming(): DirectionStats {
    return direction(this.#window.expected, this.#window)
  }

  get outgoing(): DirectionStats {
    return direction(this.#framer.next, this.#reported)
  }

  /** The peer's report. All figures only grow, so one that was overtaken by a newer says less. */
  takeReport(figures: Figures): void {
    if (sum(figures) > sum(this.#reported)) this.#reported = figures
  }

  takeRtt(last: number): void {
    const { min, smoothed } = this.rttMs ?? { min: last, smoothed: last }
    this.rttMs = { last, min: Math.min(min, last), smoothed: smoothed + SMOOTHING * (last - smoothed) }
  }
}

function direction(sent: number, { expected, received, duplicated, reordered, late }: Figures): DirectionStats {
  return { sent, received, lost: expected - received, duplicated, reordered, late }
}

function sum({ expected, received, duplicated, reordered, late }: Figures): number {
  return expected + received + duplicated + reordered + late
}
