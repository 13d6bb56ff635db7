// The report as it is read in a terminal: ratios first, figures below.
import Table from 'cli-table3'
import type { Report } from './figures.ts'

const NONE = '–'
const times = (value: number | null) => (value === null ? NONE : `${value.toFixed(2)}x`)
const thousands = (value: number | null) => (value === null ? NONE : `${(value / 1000).toFixed(1)} k`)
const whole = (value: number | null) => (value === null ? NONE : value.toFixed(0))
const tenths = (value: number | null) => (value === null ? NONE : value.toFixed(1))
const percent = (value: number) => `${(value * 100).toFixed(1)} %`

export function render({ machine, settings, ratios, results }: Report): string {
  const style = { head: [], border: [], compact: true }
  const numbers = (from: number, to: number) =>
    Array.from({ length: to }, (_, i) => (i < from ? 'left' : 'right')) as Array<'left' | 'right'>

  const relative = new Table({
    head: ['bytes', 'faketcp to', 'msg/s, flat out', 'msg/s, <= 1 % loss', 'RTT p50', 'RTT p99'],
    style,
    colAligns: numbers(2, 6),
  })
  for (const one of ratios) {
    const { size, to, blastPerSecond, losslessPerSecond, rttP50Micros, rttP99Micros } = one
    relative.push([size, to, times(blastPerSecond), times(losslessPerSecond), times(rttP50Micros), times(rttP99Micros)])
  }

  const head = ['bytes', '', 'msg/s', 'Mbit/s', 'lost', 'msg/s <= 1 %', 'Mbit/s', 'RTT p50', 'p99 µs', 'CPU µs/msg out', 'in']
  const absolute = new Table({ head, style, colAligns: numbers(2, head.length) })
  for (const one of results) {
    absolute.push([
      one.size,
      one.contender,
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
  return [
    `Ratios within this run, medians of ${settings.rounds} rounds. More is better for msg/s, less for RTT.`,
    relative.toString(),
    '',
    `Delivered, as the receiver counted. Only the ratios can be compared with another run.`,
    absolute.toString(),
    `Linux ${machine.kernel}, Node ${machine.node}, ${machine.cpus} x ${machine.cpuModel}`,
  ].join('\n')
}
