// Medians and ratios of given samples: by the round, in each cell of its own.
import { expect, it } from 'vitest'
import { cellsOf, ratio, ratiosOf, resultsOf, type Sample, scalingOf } from '../../bench/figures.ts'

const none = { blastLoss: 0, senderCpuMicros: null, receiverCpuMicros: null, rttP50Micros: null, rttP99Micros: null }
const sample = (contender: string, round: number, perSecond: number | null, cell: Partial<Sample> = {}): Sample => ({
  ...{ wire: 'default', flows: 1, size: 64, contender, round, ...none },
  ...{ blastPerSecond: perSecond ?? 5, losslessPerSecond: perSecond },
  ...cell,
})
const CELL = { wire: 'default', flows: 1, size: 64 } as const

it('takes the median of the ratios within each round, not the ratio of medians', () => {
  const samples = [sample('a', 1, 10), sample('b', 1, 1), sample('a', 2, 20), sample('b', 2, 20), sample('a', 3, 30), sample('b', 3, 10)]
  expect(ratio(samples, CELL, 'a', 'b', 'losslessPerSecond')).toBe(3)
})

it('counts a round without a lossless rate as 0 above the line and leaves it out below', () => {
  const samples = [sample('a', 1, null), sample('b', 1, 10), sample('a', 2, 10), sample('b', 2, null)]
  expect(ratio(samples, CELL, 'a', 'b', 'losslessPerSecond')).toBe(0)
  expect(ratio(samples, CELL, 'b', 'a', 'losslessPerSecond')).toBe(0)
  expect(resultsOf(samples).map((one) => one.losslessPerSecond)).toEqual([5, 5])
})

it('has no ratio of what was not measured', () => {
  const samples = [sample('a', 1, 10), sample('b', 1, 10)]
  expect(ratio(samples, CELL, 'a', 'b', 'rttP50Micros')).toBeNull()
  expect(ratio(samples, CELL, 'a', 'c', 'losslessPerSecond')).toBeNull()
  expect(ratio(samples, { ...CELL, flows: 100 }, 'a', 'b', 'losslessPerSecond')).toBeNull()
})

it('keeps wires, numbers of flows and sizes apart', () => {
  const gro = { wire: 'gro' } as const
  const samples = [
    sample('a', 1, 10),
    sample('b', 1, 5),
    sample('a', 1, 30, gro),
    sample('b', 1, 10, gro),
    sample('a', 1, 7, { size: 512 }),
  ]
  expect(cellsOf(samples)).toEqual([CELL, { ...CELL, wire: 'gro' }, { ...CELL, size: 512 }])
  expect(resultsOf(samples)).toHaveLength(5)
  const ratios = ratiosOf(samples, (name) => name === 'a')
  expect(ratios.map(({ wire, of, to, losslessPerSecond }) => [wire, of, to, losslessPerSecond])).toEqual([
    ['default', 'a', 'b', 2],
    ['gro', 'a', 'b', 3],
  ])
})

it('sets many flows against the fewest, by the round', () => {
  const many = { flows: 100 }
  const samples = [sample('a', 1, 10), sample('a', 1, 8, many), sample('a', 2, 100), sample('a', 2, 90, many), sample('b', 1, 10)]
  expect(scalingOf(samples)).toEqual([{ ...CELL, flows: 100, contender: 'a', toFlows: 1, losslessPerSecond: expect.closeTo(0.85) }])
  expect(scalingOf(samples.filter(({ flows }) => flows === 1))).toEqual([])
})
