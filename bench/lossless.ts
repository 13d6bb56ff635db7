// Searches the highest rate at which a paced sender loses next to nothing.
import type { Flow, Pair } from './pair.ts'

/** As the other tools of this field are compared: at most 1 % lost. */
export const TOLERATED_LOSS = 0.01

export interface SearchOptions {
  readonly trials: number
  readonly ms: number
}

/** Part of what was sent that did not arrive; never negative, as a stream may have bytes of the warm-up to count. */
export function lossOf({ sent, received }: Flow): number {
  return sent.messages === 0 ? 0 : Math.max(0, 1 - received.messages / sent.messages)
}

/**
 * Bisects between the best rate known to be good and the lowest known to lose; the blast is the first rate known.
 *
 * @returns what the receiver counted at the best rate; undefined when every trial lost too much
 */
export async function searchLossless(pair: Pair, size: number, blast: Flow, { trials, ms }: SearchOptions): Promise<Flow | undefined> {
  if (lossOf(blast) <= TOLERATED_LOSS) return blast
  let best: Flow | undefined
  let good = 0
  let bad = blast.sent.messages / blast.sent.seconds
  let rate = Math.min(bad, blast.received.messagesPerSecond) * 0.9
  for (let trial = 0; trial < trials; trial++) {
    const flow = await pair.pace(size, ms, rate)
    if (lossOf(flow) <= TOLERATED_LOSS) {
      good = rate
      if (best === undefined || flow.received.messagesPerSecond > best.received.messagesPerSecond) best = flow
    } else bad = rate
    rate = good > 0 ? (good + bad) / 2 : bad * 0.6
  }
  return best
}
