// From single measurements to medians and ratios, and the shape of the JSON file.
import { cpus, release } from 'node:os'

/** What one contender reached with one size in one round. A figure that it has not is null. */
export interface Sample {
  readonly contender: string
  readonly size: number
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

export const METRICS = ['blastPerSecond', 'losslessPerSecond', 'rttP50Micros', 'rttP99Micros'] as const
export type Metric = (typeof METRICS)[number]

/** Medians over the rounds. */
export interface Result extends Omit<Sample, 'round'> {
  readonly blastMegabits: number
  readonly losslessMegabits: number | null
}

/** faketcp's figure divided by another's: the median of the ratios within each round, as those share the machine's mood. */
export type Ratio = { readonly size: number; readonly to: string } & { readonly [M in Metric]: number | null }

export interface Report {
  readonly schema: 1
  readonly startedAt: string
  readonly machine: {
    readonly kernel: string
    readonly node: string
    readonly arch: string
    readonly cpus: number
    readonly cpuModel: string
  }
  readonly settings: Record<string, unknown>
  /** What each contender's receiver said of itself. */
  readonly facts: Record<string, Record<string, string | number>>
  readonly ratios: readonly Ratio[]
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
    const name = `${sample.size} ${sample.contender}`
    groups.set(name, [...(groups.get(name) ?? []), sample])
  }
  return [...groups.values()].map((group) => {
    const [{ contender, size }] = group
    const over = (pick: (sample: Sample) => number | null) => median(group.map(pick).filter((value) => value !== null))
    const blastPerSecond = over((one) => one.blastPerSecond) ?? 0
    // A round in which no rate was lossless counts as a rate of 0, not as no round.
    const losslessPerSecond = median(group.map((one) => one.losslessPerSecond ?? 0)) || null
    return {
      contender,
      size,
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

export function ratiosOf(samples: readonly Sample[], of: string): Ratio[] {
  const ours = samples.filter((sample) => sample.contender === of)
  const others = [...new Set(samples.map((sample) => sample.contender))].filter((name) => name !== of)
  const sizes = [...new Set(ours.map((sample) => sample.size))]
  return sizes.flatMap((size) =>
    others.map((to) => {
      const ratio = (metric: Metric) => {
        const ratios: number[] = []
        for (const one of ours) {
          const other = samples.find((sample) => sample.contender === to && sample.size === size && sample.round === one.round)
          const a = one[metric] ?? (metric === 'losslessPerSecond' ? 0 : null)
          const b = other?.[metric] ?? null
          if (one.size === size && a !== null && b !== null && b > 0) ratios.push(a / b)
        }
        return median(ratios)
      }
      return {
        size,
        to,
        blastPerSecond: ratio('blastPerSecond'),
        losslessPerSecond: ratio('losslessPerSecond'),
        rttP50Micros: ratio('rttP50Micros'),
        rttP99Micros: ratio('rttP99Micros'),
      }
    }),
  )
}

function megabits(messagesPerSecond: number, size: number): number {
  return (messagesPerSecond * size * 8) / 1e6
}
