// The chart of a report, as an SVG that can be read on light and on dark pages: for each wire and number of flows a row, for each size a panel of bars.
import { BarChart, type BarSeriesOption } from 'echarts/charts'
import { GridComponent, type GridComponentOption, MarkLineComponent, TitleComponent, type TitleComponentOption } from 'echarts/components'
import { type ComposeOption, init, use } from 'echarts/core'
import { SVGRenderer } from 'echarts/renderers'
import { type Cell, cellsOf, contendersOf, type Report, ratio } from './figures.ts'
import { isOurs } from './specs.ts'
import type { Wire } from './wires.ts'

use([BarChart, GridComponent, MarkLineComponent, TitleComponent, SVGRenderer])

type Option = ComposeOption<BarSeriesOption | GridComponentOption | TitleComponentOption>

/** What bars are compared with: the first of them that was measured. */
const REFERENCES = ['iperf3 udp', 'dgram']

/** Colours on a light page and on a dark one. An image on a page sees the reader's preference, not the page's, so it brings its own background. */
const COLOURS = {
  background: ['#ffffff', '#0d1117'],
  text: ['#1f2328', '#f0f6fc'],
  muted: ['#59636e', '#9198a1'],
  line: ['#d1d9e0', '#30363d'],
  reference: ['#818b98', '#656c76'],
  ours: ['#0969da', '#4493f8'],
  datagrams: ['#9aa4af', '#7d8590'],
  stream: ['#d0d7de', '#3d444d'],
} as const
type Colour = keyof typeof COLOURS
const light = (colour: Colour) => COLOURS[colour][0]

const FONT = "-apple-system, BlinkMacSystemFont, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
const WIDTH = 960
const MARGIN = 24
const LABELS = 148
const GAP = 28
const HEADER = 84
const FOOTER = 32
const ROW_HEAD = 62
const ROW_GAP = 18
const BAR = 22

const WIRES: Record<Wire, string> = {
  default: 'veth as it comes: trains cross whole',
  'tso-off': 'sender without TSO, receiver without GRO: every packet alone',
  gro: 'sender without TSO, receiver with GRO',
  nat: 'a NAT router in between',
}

/** @throws RangeError when nothing was measured that the others can be compared with */
export function chart(report: Report): string {
  const { samples, machine, settings } = report
  const contenders = contendersOf(samples)
  const reference = REFERENCES.find((name) => contenders.includes(name))
  if (reference === undefined) throw new RangeError(`The chart shows ratios to ${REFERENCES.join(' or ')}; neither was measured`)

  const cells = cellsOf(samples)
  const sizes = [...new Set(cells.map(({ size }) => size))]
  const scenes = [...new Map(cells.map((cell) => [`${cell.wire} ${cell.flows}`, cell])).values()]
  const boundaries = new Set(report.contenders.filter((one) => one.boundaries).map(({ name }) => name))
  const ratioOf = (cell: Cell, name: string) => ratio(samples, cell, name, reference, 'losslessPerSecond')
  // Streams can be a hundredfold of it with small messages; the axis is for those that carry messages.
  const highest = Math.max(
    1,
    ...cells.flatMap((cell) => contenders.filter((name) => boundaries.has(name)).map((name) => ratioOf(cell, name) ?? 0)),
  )
  const axisMax = niceAbove(highest * 1.12)

  const streams = contenders.some((name) => !boundaries.has(name))

  const panelWidth = (WIDTH - 2 * MARGIN - LABELS - GAP * (sizes.length - 1)) / sizes.length
  const panelHeight = contenders.length * BAR
  const rowHeight = ROW_HEAD + panelHeight + ROW_GAP
  const height = HEADER + scenes.length * rowHeight + FOOTER

  const heading = `Messages per second with at most 1 % loss, relative to ${nice(reference)}`
  const titles: TitleComponentOption[] = [
    titleOf(heading, MARGIN, 20, 18, 'text', 600),
    titleOf(
      `${settings.rounds === 1 ? 'One round' : `Medians of ${settings.rounds} rounds`} in one run, two hosts (network namespaces) on one machine. Only ratios within a run compare.`,
      MARGIN,
      48,
      12,
      'muted',
    ),
    titleOf(
      `${streams ? 'Pale bars are byte streams, which keep no message boundaries: their messages are bytes divided by size. ' : ''}Linux ${machine.kernel.replace(/-.*/, '')}, Node ${machine.node.slice(1)}, ${machine.cpus} CPUs`,
      MARGIN,
      height - 28,
      11,
      'muted',
    ),
  ]
  const option = { grid: [], xAxis: [], yAxis: [], series: [] } as {
    grid: GridComponentOption[]
    xAxis: NonNullable<Option['xAxis']> & unknown[]
    yAxis: NonNullable<Option['yAxis']> & unknown[]
    series: BarSeriesOption[]
  }

  for (const [row, { wire, flows }] of scenes.entries()) {
    const top = HEADER + row * rowHeight
    titles.push(titleOf(`${flows} flow${flows === 1 ? '' : 's'}, ${WIRES[wire]}`, MARGIN, top, 13, 'text', 600))
    for (const [column, size] of sizes.entries()) {
      const cell = { wire, flows, size }
      const left = MARGIN + LABELS + column * (panelWidth + GAP)
      const index = option.grid.length
      const base = report.results.find(
        (one) => one.wire === wire && one.flows === flows && one.size === size && one.contender === reference,
      )
      const unit = base?.losslessPerSecond ? `   1× = ${(base.losslessPerSecond / 1000).toFixed(0)} k/s` : ''
      titles.push(titleOf(`${size} bytes${unit}`, left, top + 28, 12, 'muted'))
      option.grid.push({ left, top: top + ROW_HEAD - 12, width: panelWidth, height: panelHeight })
      option.xAxis.push({
        gridIndex: index,
        type: 'value',
        min: 0,
        max: axisMax,
        axisLabel: { show: false },
        splitLine: { show: false },
      })
      option.yAxis.push({
        gridIndex: index,
        type: 'category',
        inverse: true,
        data: contenders.map(nice),
        axisLine: { lineStyle: { color: light('line') }, onZero: true },
        axisTick: { show: false },
        axisLabel: {
          show: column === 0,
          margin: 10,
          fontSize: 12,
          interval: 0,
          color: (label) => light(isOurs(String(label)) ? 'text' : 'muted'),
        },
      })
      option.series.push(barsOf(index, contenders, axisMax, (name) => ratioOf(cell, name), boundaries))
    }
  }
  return drawn({ ...option, title: titles, animation: false, textStyle: { fontFamily: FONT } } as Option, heading, height)
}

function barsOf(
  index: number,
  contenders: readonly string[],
  axisMax: number,
  ratioOf: (name: string) => number | null,
  boundaries: ReadonlySet<string>,
): BarSeriesOption {
  return {
    type: 'bar',
    xAxisIndex: index,
    yAxisIndex: index,
    barWidth: 13,
    data: contenders.map((name) => {
      const value = ratioOf(name)
      const beyond = value !== null && value > axisMax
      const colour: Colour = isOurs(name) ? 'ours' : boundaries.has(name) ? 'datagrams' : 'stream'
      const text = value === null ? 'not measured' : `${value >= 10 ? value.toFixed(0) : value.toFixed(1)}×${beyond ? ' ▸' : ''}`
      return {
        value: Math.min(value ?? 0, axisMax),
        itemStyle: { color: light(colour), borderRadius: beyond ? 0 : [0, 2, 2, 0] },
        label: {
          show: true,
          position: beyond ? 'insideRight' : 'right',
          formatter: () => text,
          fontSize: 11,
          fontWeight: isOurs(name) ? 600 : 400,
          color: light(isOurs(name) || beyond ? 'text' : 'muted'),
          // A halo, where the line of the reference passes behind.
          textBorderColor: light('background'),
          textBorderWidth: beyond ? 0 : 3,
        },
      }
    }),
    markLine: {
      silent: true,
      z: 1,
      symbol: 'none',
      label: { show: false },
      lineStyle: { color: light('reference'), type: [3, 3], width: 1 },
      data: [{ xAxis: 1 }],
    },
  }
}

/** As a reader writes it. */
function nice(name: string): string {
  return name.replace(/^iperf3 (udp|tcp)$/, (_, protocol: string) => `iperf3 ${protocol.toUpperCase()}`)
}

function titleOf(text: string, left: number, top: number, fontSize: number, colour: Colour, fontWeight = 400): TitleComponentOption {
  return { text, left, top, padding: 0, textStyle: { fontSize, fontWeight, color: light(colour), fontFamily: FONT } }
}

/** The next of 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12, ... */
function niceAbove(value: number): number {
  const magnitude = 10 ** Math.floor(Math.log10(value))
  const step = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].find((one) => one * magnitude >= value) ?? 10
  return step * magnitude
}

function drawn(option: Option, title: string, height: number): string {
  const instance = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height })
  instance.setOption({ ...option, backgroundColor: light('background') })
  const svg = instance.renderToSVGString()
  instance.dispose()
  // Colours are attributes; a style sheet overrides those.
  const rules = Object.values(COLOURS).flatMap(([day, night]) =>
    (['fill', 'stroke'] as const).map((attribute) => `[${attribute}="${day}"]{${attribute}:${night}}`),
  )
  const style = `<style>@media (prefers-color-scheme: dark){${rules.join('')}}</style>`
  const at = svg.indexOf('>')
  return `${svg.slice(0, at)} role="img"><title>${title}</title>${style}${svg.slice(at + 1)}\n`
}
