// From single measurements to medians and ratios, and the shape of the JSON file.
import { cpus, release } from 'node:os'
import type { OffloadFacts, Wire } from './wires.ts'

/** One cell of the matrix, whoever is measured in it. */
export interface Cell {
  readonly wire: Wire
  /** Connections that carry the load at the same time. */
  readonly flows: number
  /** Payload bytes of a message. */
  readonly size: number
}

/** What one contender reached in one cell in one round; rates are sums over the flows. A figure that it has not is null. */
export interface Sample extends Cell {
  readonly contender: string
  readonly round: number
  /** Delivered when the sender sends as fast as the transport takes messages. */
  readonly blastPerSecond: number
  readonly blastLoss: number
  /** CPU microseconds for each delivered message. */
  readonly senderCpuMicros: number | null
  readonly receiverCpuMicros: number | null
  /** Delivered at the highest rate that loses at most 1 %; null when none was found. */
  readonly losslessPerSecond: number | null
  readonly rttP50Micros: number | null
  readonly rttP99Micros: number | null
}

/** What is measured of a contender in a cell. */
export type Measured = Omit<Sample, 'contender' | 'round' | keyof Cell>

export const METRICS = ['blastPerSecond', 'losslessPerSecond', 'rttP50Micros', 'rttP99Micros'] as const
export type Metric = (typeof METRICS)[number]

/** Medians over the rounds. */
export interface Result extends Omit<Sample, 'round'> {
  readonly blastMegabits: number
  readonly losslessMegabits: number | null
}

/** One's figure divided by another's: the median of the ratios within each round, as those share the machine's mood. */
export type Ratio = Cell & { readonly of: string; readonly to: string } & { readonly [M in Metric]: number | null }

/** What all flows together carry, divided by what the run's least number of flows carries, at most 1 % lost. */
export interface Scaling extends Cell {
  readonly contender: string
  readonly toFlows: number
  readonly losslessPerSecond: number | null
}

/** Why somebody is not among the results, or not in all of them. */
export interface LeftOut {
  readonly contender: string
  readonly reason: string
  /** Wire, flows and perhaps size; everywhere when empty. */
  readonly where: readonly string[]
}

export interface Report {
  readonly schema: 2
  readonly startedAt: string
  readonly machine: {
    readonly kernel: string
    readonly node: string
    readonly arch: string
    readonly cpus: number
    readonly cpuModel: string
  }
  readonly settings: Record<string, unknown>
  /** `boundaries`: it keeps those of messages. Else a message is `size` bytes of a stream. */
  readonly contenders: readonly { readonly name: string; readonly boundaries: boolean }[]
  /** What the devices of each wire say of themselves. */
  readonly wires: Partial<Record<Wire, OffloadFacts>>
  /** What each contender's receiver said of itself in the last round. */
  readonly facts: readonly (Omit<Cell, 'size'> & { readonly contender: string; readonly says: Record<string, string | number> })[]
  readonly leftOut: readonly LeftOut[]
  /** Of faketcp's contenders to all others. */
  readonly ratios: readonly Ratio[]
  readonly scaling: readonly Scaling[]
  readonly results: readonly Result[]
  readonly samples: readonly Sample[]
}

export function machine(): Report['machine'] {
  const all = cpus()
  return { kernel: release(), node: process.version, arch: process.arch, cpus: all.length, cpuModel: all[0]?.model ?? 'unknown' }
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** The nearest-rank percentile of ascending values. */
export function percentile(ascending: readonly number[], percent: number): number | null {
  if (ascending.length === 0) return null
  return ascending[Math.max(0, Math.ceil((percent / 100) * ascending.length) - 1)]
}

export function resultsOf(samples: readonly Sample[]): Result[] {
  const groups = new Map<string, Sample[]>()
  for (const sample of samples) {
    const name = `${cellName(sample)} ${sample.contender}`
    groups.set(name, [...(groups.get(name) ?? []), sample])
  }
  return [...groups.values()].map((group) => {
    const [{ wire, flows, size, contender }] = group
    const over = (pick: (sample: Sample) => number | null) => median(group.map(pick).filter((value) => value !== null))
    const blastPerSecond = over((one) => one.blastPerSecond) ?? 0
    // A round in which no rate was lossless counts as a rate of 0, not as no round.
    const losslessPerSecond = median(group.map((one) => one.losslessPerSecond ?? 0)) || null
    return {
      wire,
      flows,
      size,
      contender,
      blastPerSecond,
      blastMegabits: megabits(blastPerSecond, size),
      blastLoss: over((one) => one.blastLoss) ?? 0,
      losslessPerSecond,
      losslessMegabits: losslessPerSecond === null ? null : megabits(losslessPerSecond, size),
      rttP50Micros: over((one) => one.rttP50Micros),
      rttP99Micros: over((one) => one.rttP99Micros),
      senderCpuMicros: over((one) => one.senderCpuMicros),
      receiverCpuMicros: over((one) => one.receiverCpuMicros),
    }
  })
}

/** Each cell once, in the order in which they were measured. */
export function cellsOf(samples: readonly Sample[]): Cell[] {
  return [...new Map(samples.map(({ wire, flows, size }) => [cellName({ wire, flows, size }), { wire, flows, size }])).values()]
}

export function contendersOf(samples: readonly Sample[]): string[] {
  return [...new Set(samples.map((sample) => sample.contender))]
}

/** The median over the rounds of `of`'s figure divided by `to`'s in the same round; null when no round has both. */
export function ratio(samples: readonly Sample[], cell: Cell, of: string, to: string, metric: Metric): number | null {
  const ratios: number[] = []
  const inCell = samples.filter((sample) => cellName(sample) === cellName(cell))
  for (const one of inCell.filter((sample) => sample.contender === of)) {
    const other = inCell.find((sample) => sample.contender === to && sample.round === one.round)
    if (other !== undefined) pushQuotient(ratios, one, other, metric)
  }
  return median(ratios)
}

export function ratiosOf(samples: readonly Sample[], isOurs: (contender: string) => boolean): Ratio[] {
  const names = contendersOf(samples)
  const others = names.filter((name) => !isOurs(name))
  const pairs = names.filter(isOurs).flatMap((of) => others.map((to) => ({ of, to })))
  return cellsOf(samples).flatMap((cell) =>
    pairs
      .filter(({ of, to }) => [of, to].every((name) => samples.some((one) => one.contender === name && cellName(one) === cellName(cell))))
      .map(({ of, to }) => {
        const [blastPerSecond, losslessPerSecond, rttP50Micros, rttP99Micros] = METRICS.map((metric) =>
          ratio(samples, cell, of, to, metric),
        )
        return { ...cell, of, to, blastPerSecond, losslessPerSecond, rttP50Micros, rttP99Micros }
      }),
  )
}

export function scalingOf(samples: readonly Sample[]): Scaling[] {
  const toFlows = Math.min(...samples.map((sample) => sample.flows))
  return cellsOf(samples)
    .filter(({ flows }) => flows > toFlows)
    .flatMap((cell) =>
      contendersOf(samples).flatMap((contender) => {
        const ratios: number[] = []
        const mine = samples.filter((one) => one.contender === contender && one.wire === cell.wire && one.size === cell.size)
        for (const one of mine.filter(({ flows }) => flows === cell.flows)) {
          const base = mine.find(({ flows, round }) => flows === toFlows && round === one.round)
          if (base !== undefined) pushQuotient(ratios, one, base, 'losslessPerSecond')
        }
        return ratios.length === 0 ? [] : [{ ...cell, contender, toFlows, losslessPerSecond: median(ratios) }]
      }),
    )
}

/** No lossless rate above the line is a rate of 0; below it, nothing can be divided by it. */
function pushQuotient(ratios: number[], above: Sample, below: Sample, metric: Metric): void {
  const a = above[metric] ?? (metric === 'losslessPerSecond' ? 0 : null)
  const b = below[metric]
  if (a !== null && b !== null && b > 0) ratios.push(a / b)
}

function cellName({ wire, flows, size }: Cell): string {
  return `${wire} ${flows} ${size}`
}

function megabits(messagesPerSecond: number, size: number): number {
  return (messagesPerSecond * size * 8) / 1e6
}
