// Searches the highest rate at which next to nothing is lost. Pure: what a trial is, its caller knows.

/** As the other tools of this field are compared: at most 1 % lost. */
export const TOLERATED_LOSS = 0.01

/** What came of sending at one rate for a while. */
export interface Trial {
  /** What the sender got rid of, which is less than what it was asked for when it can no more. */
  readonly offeredPerSecond: number
  readonly deliveredPerSecond: number
  /** 0 to 1. */
  readonly loss: number
}

/** Rungs of the first pass; the second climbs from the last good one in quarters of such a step. */
const COARSE = 1.25
const FINE = COARSE ** 0.25
/** A rung that fails by less is tried once more: one hiccup of the machine shall not decide. */
const CLEAR_LOSS = 5 * TOLERATED_LOSS
/** A sender that reaches no more than this part of what it was asked for is at its own limit. */
const AT_LIMIT = 0.95

/**
 * A blast (sending without a pace) that loses next to nothing is the answer. Else: from the rate that the blast delivered down in coarse steps to the first
 * good rung, or up to the first bad one; then up in fine steps to the first bad one.
 *
 * @returns the good trial that delivered most; undefined when `maxTrials` found no good one
 */
export async function climb(blast: Trial, run: (rate: number) => Promise<Trial>, maxTrials: number): Promise<Trial | undefined> {
  if (isGood(blast)) return blast
  let trials = 0
  let best: Trial | undefined
  let atLimit = false
  const holds = async (rate: number): Promise<boolean> => {
    for (let attempt = 0; attempt < 2 && trials < maxTrials; attempt++) {
      trials++
      const trial = await run(rate)
      if (isGood(trial)) {
        atLimit = trial.offeredPerSecond < AT_LIMIT * rate
        if (best === undefined || trial.deliveredPerSecond > best.deliveredPerSecond) best = trial
        return true
      }
      if (trial.loss > CLEAR_LOSS) break
    }
    return false
  }

  let good = 0
  let bad = blast.offeredPerSecond
  let rate = Math.min(bad, blast.deliveredPerSecond)
  if (await holds(rate)) {
    good = rate
    for (rate *= COARSE; rate < bad && !atLimit && trials < maxTrials; rate *= COARSE) {
      if (await holds(rate)) good = rate
      else bad = rate
    }
  } else {
    while (good === 0 && trials < maxTrials) {
      bad = rate
      rate /= COARSE
      if (await holds(rate)) good = rate
    }
  }
  // The last quarter of a step is the bad rung itself.
  for (rate = good * FINE; good > 0 && rate < bad / FINE ** 0.5 && !atLimit && trials < maxTrials; rate *= FINE) {
    if (!(await holds(rate))) break
  }
  return best
}

function isGood({ loss }: Trial): boolean {
  return loss <= TOLERATED_LOSS
}
