// The report as it is read in a terminal: ratios first, figures below.
import Table from 'cli-table3'
import { type Cell, cellsOf, type Report } from './figures.ts'
import { isOurs } from './specs.ts'

const NONE = '–'
const times = (value: number | null | undefined) =>
  value === null || value === undefined ? NONE : `${value.toFixed(value < 0.1 ? 3 : 2)}x`
const thousands = (value: number | null) => (value === null ? NONE : `${(value / 1000).toFixed(1)} k`)
const whole = (value: number | null) => (value === null ? NONE : value.toFixed(0))
const tenths = (value: number | null) => (value === null ? NONE : value.toFixed(1))
const percent = (value: number) => `${(value * 100).toFixed(1)} %`

/** Round trips are compared with these alone: what else has some is a tunnel around one of them. */
const ROUND_TRIPS_TO = ['dgram', 'net']

export function render(report: Report): string {
  const { machine, settings, ratios, scaling, leftOut, samples } = report
  const scenes = [...new Map(cellsOf(samples).map((cell) => [sceneName(cell), cell])).values()]
  const lines = []
  if (ratios.length > 0) {
    lines.push(
      `Ratios within this run, medians of ${settings.rounds} round${settings.rounds === 1 ? '' : 's'}: messages per second with at most 1 % lost (more is better), RTT p50 (less is better).`,
      ...scenes.flatMap((scene) => [sceneName(scene), ratioTable(report, scene), '']),
    )
  }
  if (scaling.length > 0) lines.push('All flows together, to the least number of flows in this run', scalingTable(report), '')
  lines.push(
    'Delivered, as the receiver counted. Only the ratios can be compared with another run.',
    ...scenes.flatMap((scene) => [sceneName(scene), figureTable(report, scene)]),
    ...leftOut.map(
      ({ contender, reason, where }) => `Left out: ${contender}${where.length > 0 ? ` (${where.join('; ')})` : ''}: ${reason}`,
    ),
    `Linux ${machine.kernel}, Node ${machine.node}, ${machine.cpus} x ${machine.cpuModel}`,
  )
  return lines.join('\n')
}

function ratioTable({ ratios }: Report, scene: Cell): string {
  const here = ratios.filter((one) => sceneName(one) === sceneName(scene))
  const others = [...new Set(here.map(({ to }) => to))]
  const roundTripsTo = ROUND_TRIPS_TO.filter((name) => here.some(({ to, rttP50Micros }) => to === name && rttP50Micros !== null))
  const table = tableOf(['bytes', 'msg/s of', ...others.map((name) => `to ${name}`), ...roundTripsTo.map((name) => `RTT to ${name}`)], 2)
  const rows = new Map(here.map(({ size, of }) => [`${size} ${of}`, { size, of }]))
  for (const { size, of } of rows.values()) {
    const to = (name: string) => here.find((one) => one.size === size && one.of === of && one.to === name)
    table.push([
      size,
      of,
      ...others.map((name) => times(to(name)?.losslessPerSecond)),
      ...roundTripsTo.map((name) => times(to(name)?.rttP50Micros)),
    ])
  }
  return table.toString()
}

function scalingTable({ scaling }: Report): string {
  const table = tableOf(['wire', 'bytes', '', 'flows', 'msg/s', 'to flows'], 3)
  for (const { wire, size, contender, flows, losslessPerSecond, toFlows } of scaling) {
    table.push([wire, size, contender, flows, times(losslessPerSecond), toFlows])
  }
  return table.toString()
}

function figureTable({ results }: Report, scene: Cell): string {
  const head = ['bytes', '', 'flat out msg/s', 'Mbit/s', 'lost', '<= 1 % lost msg/s', 'Mbit/s', 'RTT p50', 'p99 µs', 'CPU µs/msg out', 'in']
  const table = tableOf(head, 2)
  for (const one of results.filter((result) => sceneName(result) === sceneName(scene))) {
    table.push([
      one.size,
      // Ours stand out in a long table.
      isOurs(one.contender) ? `* ${one.contender}` : `  ${one.contender}`,
      thousands(one.blastPerSecond),
      whole(one.blastMegabits),
      percent(one.blastLoss),
      thousands(one.losslessPerSecond),
      whole(one.losslessMegabits),
      tenths(one.rttP50Micros),
      tenths(one.rttP99Micros),
      tenths(one.senderCpuMicros),
      tenths(one.receiverCpuMicros),
    ])
  }
  return table.toString()
}

/** The first `words` columns are text, the others numbers. */
function tableOf(head: string[], words: number) {
  const colAligns = head.map((_, i) => (i < words ? 'left' : 'right')) as Array<'left' | 'right'>
  return new Table({ head, style: { head: [], border: [], compact: true }, colAligns })
}

function sceneName({ wire, flows }: Cell): string {
  return `wire ${wire}, ${flows} flow${flows === 1 ? '' : 's'}`
}
