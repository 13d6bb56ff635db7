// The search for the highest rate that loses at most 1 %, on transports whose limit is known.
import { expect, it } from 'vitest'
import { climb, TOLERATED_LOSS, type Trial } from '../../bench/ladder.ts'

/** Delivers up to `capacity` per second, loses the rest; under a load beyond `collapse` it delivers half. The sender offers at most `senderLimit`. */
function transport({ capacity = 0, senderLimit = 1_000_000, collapse = Number.POSITIVE_INFINITY }) {
  const rates: number[] = []
  const at = (rate: number): Trial => {
    const offeredPerSecond = Math.min(rate, senderLimit)
    const deliveredPerSecond = Math.min(offeredPerSecond, offeredPerSecond > collapse ? capacity / 2 : capacity)
    return { offeredPerSecond, deliveredPerSecond, loss: 1 - deliveredPerSecond / offeredPerSecond }
  }
  const run = async (rate: number) => {
    rates.push(rate)
    return at(rate)
  }
  return { blast: at(Number.POSITIVE_INFINITY), run, rates }
}

it('takes a blast that loses next to nothing for the answer', async () => {
  const { blast, run, rates } = transport({ capacity: 2_000_000 })
  expect(await climb(blast, run, 10)).toBe(blast)
  expect(rates).toEqual([])
})

it.each([100_000, 333_333, 500_000, 777_777, 950_000])('comes within a fine step of %d messages a second', async (capacity) => {
  const { blast, run } = transport({ capacity })
  const best = await climb(blast, run, 20)
  expect(best?.loss).toBeLessThanOrEqual(TOLERATED_LOSS)
  expect(best?.deliveredPerSecond).toBeGreaterThan(capacity / 1.06)
  expect(best?.deliveredPerSecond).toBeLessThanOrEqual(capacity)
})

it('climbs above what a blast delivers to a receiver that overload ruins', async () => {
  const { blast, run } = transport({ capacity: 400_000, collapse: 420_000 })
  expect(blast.deliveredPerSecond).toBe(200_000)
  expect((await climb(blast, run, 20))?.deliveredPerSecond).toBeGreaterThan(400_000 / 1.06)
})

it('gives a rung that fails by a little a second chance, and no third', async () => {
  const { blast, run, rates } = transport({ capacity: 500_000 })
  let hiccups = 0
  const unlucky = async (rate: number) => {
    const trial = await run(rate)
    return hiccups++ === 0 ? { ...trial, loss: 0.02 } : trial
  }
  expect((await climb(blast, unlucky, 20))?.deliveredPerSecond).toBe(500_000)
  expect(rates.slice(0, 2)).toEqual([500_000, 500_000])

  const always = transport({ capacity: 500_000 })
  const bad = async (rate: number) => ({ ...(await always.run(rate)), loss: 0.02 })
  expect(await climb(always.blast, bad, 9)).toBeUndefined()
  for (const rate of always.rates) expect(always.rates.filter((one) => one === rate).length).toBeLessThanOrEqual(2)
})

it('does not ask a sender at its own limit for more', async () => {
  const { blast, run, rates } = transport({ capacity: 300_000, collapse: 310_000, senderLimit: 320_000 })
  const slow = async (rate: number) => ({ ...(await run(Math.min(rate, 200_000))), loss: 0 })
  await climb(blast, slow, 20)
  expect(rates.filter((rate) => rate === 200_000)).toHaveLength(1)
})

it('ends after the trials it is given, with nothing when none was good', async () => {
  const rates: number[] = []
  const lossy = async (rate: number) => {
    rates.push(rate)
    return { offeredPerSecond: rate, deliveredPerSecond: rate / 2, loss: 0.5 }
  }
  const blast = { offeredPerSecond: 1000, deliveredPerSecond: 500, loss: 0.5 }
  expect(await climb(blast, lossy, 7)).toBeUndefined()
  expect(rates).toHaveLength(7)
  expect(rates).toEqual([...rates].sort((a, b) => b - a))
})
