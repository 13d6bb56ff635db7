// What --status shows, as text made from a reading: a page for a terminal, one line for everything else. Pure.
import Table from 'cli-table3'
import { formatHostPort } from '../../lib/address.ts'
import type { TunnelDropReason, TunnelFlowStats } from '../../lib/tunnel/index.ts'
import { medianRtt, type Rate, type Reading } from './meter.ts'

export interface Page {
  readonly reading: Reading
  /** What the tunnel does, in one line. */
  readonly title: string
  readonly nowMs: number
  /** The newest last. */
  readonly warnings: readonly string[]
}

const BARS = '▁▂▃▄▅▆▇█'
const NONE = '–'
const SPARK = 30
/** Lines of a page that are not flows: title, rates, totals, drops, heading, space, the line that counts the rest. */
const FIXED_LINES = 10

/** @param width columns, and @param height rows of the terminal */
export function renderPage({ reading, title, nowMs, warnings }: Page, width: number, height: number): string {
  const { stats } = reading
  const lines = [
    `${title}   ${encryption(stats.encrypted)}   up ${duration(nowMs - stats.since)}`,
    '',
    directionLine('in', reading.in, reading.history.in, stats.in.bytes),
    directionLine('out', reading.out, reading.history.out, stats.out.bytes),
    `conversations ${stats.peers} now, ${stats.peersTotal} so far   flows ${stats.flows.length} now, ${stats.flowsTotal} so far   reconnects ${stats.reconnects}`,
    `dropped ${dropsText(reading)}`,
    '',
    ...flowLines(reading, Math.max(3, height - FIXED_LINES - warnings.length)),
    ...(warnings.length > 0 ? ['', ...warnings] : []),
  ]
  return lines.map((line) => [...line.trimEnd()].slice(0, width).join('')).join('\n')
}

/** What a log can take: everything that matters on one line. */
export function renderLine({ stats, in: incoming, out: outgoing }: Reading): string {
  const direction = (name: string, { bitsPerSecond, datagramsPerSecond, loss }: Rate) =>
    `${name} ${bits(bitsPerSecond)} ${Math.round(datagramsPerSecond)}/s loss ${percent(loss)}`
  const dropped = Object.values(stats.drops).reduce((sum, count) => sum + count, 0)
  return [
    direction('in', incoming),
    direction('out', outgoing),
    `rtt ${milliseconds(medianRtt(stats.flows))}`,
    `conversations ${stats.peers}`,
    `flows ${stats.flows.length}`,
    `dropped ${dropped}`,
    `reconnects ${stats.reconnects}`,
  ].join(', ')
}

/** One bar for each value, the highest as high as it gets. */
export function sparkline(values: readonly number[]): string {
  const top = Math.max(...values)
  return values.map((value) => BARS[top > 0 ? Math.ceil((value / top) * (BARS.length - 1)) : 0]).join('')
}

function directionLine(name: string, { bitsPerSecond, datagramsPerSecond, loss }: Rate, history: readonly number[], bytes: number): string {
  const spark = sparkline(history.slice(-SPARK)).padStart(SPARK)
  const rate = `${bits(bitsPerSecond).padStart(12)} ${String(Math.round(datagramsPerSecond)).padStart(9)}/s`
  return `${name.padEnd(4)}${rate}  ${spark}  loss ${percent(loss).padStart(7)}   total ${scaled(bytes, 'B')}`
}

function flowLines({ stats, flows }: Reading, room: number): string[] {
  if (stats.flows.length === 0) return ['no flow']
  const busy = (flow: TunnelFlowStats) => {
    const rates = flows.get(flow.id)
    return (rates?.in ?? 0) + (rates?.out ?? 0)
  }
  const shown = [...stats.flows].sort((a, b) => busy(b) - busy(a) || a.id - b.id).slice(0, room)
  const table = new Table({
    head: ['flow', 'state', 'from', 'to', 'link', 'conv.', 'in', 'out', 'loss in', 'loss out', 'rtt'],
    colAligns: ['right', 'left', 'left', 'left', 'left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
    chars: Object.fromEntries(BORDERS.map((name) => [name, ''])),
  })
  for (const flow of shown) {
    const end = (address: string, port: number) => (address === '' ? NONE : formatHostPort(address, port))
    table.push([
      flow.id,
      flow.state,
      end(flow.localAddress, flow.localPort),
      end(flow.remoteAddress, flow.remotePort),
      flow.link ?? NONE,
      flow.peers,
      bits(flows.get(flow.id)?.in ?? 0),
      bits(flows.get(flow.id)?.out ?? 0),
      percent(flow.lossIn),
      percent(flow.lossOut),
      milliseconds(flow.rttMs),
    ])
  }
  const left = stats.flows.length - shown.length
  return [...table.toString().split('\n'), ...(left > 0 ? [`and ${left} more`] : [])]
}

const BORDERS = ['top', 'bottom', 'left', 'right']
  .flatMap((side) => [side, `${side}-mid`, `${side}-left`, `${side}-right`])
  .concat('mid', 'mid-mid', 'middle')

function dropsText({ stats, drops }: Reading): string {
  const counted = (Object.keys(stats.drops) as TunnelDropReason[]).filter((reason) => stats.drops[reason] > 0)
  if (counted.length === 0) return 'nothing'
  return counted
    .map((reason) => {
      const now = drops.get(reason)
      return `${reason} ${stats.drops[reason]}${now === undefined ? '' : ` (${now < 10 ? now.toFixed(1) : Math.round(now)}/s)`}`
    })
    .join(', ')
}

function encryption(cipher: string | undefined): string {
  return cipher === 'none' ? 'NOT ENCRYPTED' : (cipher ?? 'encrypted, no flow yet')
}

const PREFIXES = ['', 'k', 'M', 'G', 'T', 'P']

/** Three digits and a decimal prefix. */
function scaled(value: number, unit: string): string {
  let prefix = 0
  while (value >= 999.5 && prefix < PREFIXES.length - 1) {
    value /= 1000
    prefix++
  }
  const digits = prefix === 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2
  return `${value.toFixed(digits)} ${PREFIXES[prefix]}${unit}`
}

const bits = (perSecond: number) => scaled(perSecond, 'bit/s')
const percent = (share: number | undefined) => (share === undefined ? NONE : `${(share * 100).toFixed(2)} %`)
const milliseconds = (value: number | undefined) => (value === undefined ? NONE : `${value.toFixed(value < 10 ? 2 : 0)} ms`)

function duration(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60]
  const two = (value: number) => String(value).padStart(2, '0')
  return `${hours}:${two(minutes)}:${two(seconds % 60)}`
}
