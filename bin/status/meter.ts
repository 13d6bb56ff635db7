// Rates out of snapshots: what a tunnel did between two looks at its statistics, and the last minute's history.
import type { TunnelDropReason, TunnelFlowStats, TunnelStats } from '../../lib/tunnel/index.ts'

export interface Rate {
  readonly bitsPerSecond: number
  readonly datagramsPerSecond: number
  /** Share of the messages that the network lost, 0 to 1; undefined without traffic. */
  readonly loss: number | undefined
}

export interface Reading {
  readonly stats: TunnelStats
  readonly in: Rate
  readonly out: Rate
  /** Bits per second and direction of each flow, by its id. */
  readonly flows: ReadonlyMap<number, { readonly in: number; readonly out: number }>
  /** Datagrams per second, those reasons only that had some. */
  readonly drops: ReadonlyMap<TunnelDropReason, number>
  /** Bits per second of the last readings, the newest last. */
  readonly history: { readonly in: readonly number[]; readonly out: readonly number[] }
}

/** A minute, at one reading a second. */
const HISTORY = 60

export class Meter {
  #last: { stats: TunnelStats; atMs: number }
  #history: { in: number[]; out: number[] } = { in: [], out: [] }

  /** @param atMs of any clock that only rises */
  constructor(stats: TunnelStats, atMs: number) {
    this.#last = { stats, atMs }
  }

  read(stats: TunnelStats, atMs: number): Reading {
    const before = this.#last.stats
    const seconds = Math.max(0.001, (atMs - this.#last.atMs) / 1000)
    this.#last = { stats, atMs }
    const rate = (direction: 'in' | 'out', lost: number): Rate => {
      const datagrams = stats[direction].datagrams - before[direction].datagrams
      const bitsPerSecond = ((stats[direction].bytes - before[direction].bytes) * 8) / seconds
      this.#history[direction] = [...this.#history[direction], bitsPerSecond].slice(-HISTORY)
      // What has arrived of what was sent: for `in` the datagrams are the ones that arrived, for `out` those that were sent.
      const sent = direction === 'in' ? datagrams + lost : datagrams
      return { bitsPerSecond, datagramsPerSecond: datagrams / seconds, loss: sent > 0 ? Math.min(1, lost / sent) : undefined }
    }
    const flowsBefore = new Map(before.flows.map((flow) => [flow.id, flow]))
    const flows = stats.flows.map((flow) => {
      const bits = (direction: 'in' | 'out') => ((flow[direction].bytes - (flowsBefore.get(flow.id)?.[direction].bytes ?? 0)) * 8) / seconds
      return [flow.id, { in: bits('in'), out: bits('out') }] as const
    })
    const drops = (Object.keys(stats.drops) as TunnelDropReason[])
      .map((reason) => [reason, (stats.drops[reason] - before.drops[reason]) / seconds] as const)
      .filter(([, perSecond]) => perSecond > 0)
    return {
      stats,
      in: rate('in', stats.lostIn - before.lostIn),
      out: rate('out', stats.lostOut - before.lostOut),
      flows: new Map(flows),
      drops: new Map(drops),
      history: { in: [...this.#history.in], out: [...this.#history.out] },
    }
  }
}

/** Of the flows that know theirs. */
export function medianRtt(flows: readonly TunnelFlowStats[]): number | undefined {
  const known = flows.flatMap(({ rttMs }) => rttMs ?? []).sort((a, b) => a - b)
  return known[known.length >> 1]
}
