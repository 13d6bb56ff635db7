// The command line of `npm run bench`.
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { INTERFACES, LINKS, LOADS, nameOf, type Spec } from './specs.ts'
import { readTool } from './tools.ts'
import { WIRES, type Wire } from './wires.ts'

export interface BenchOptions {
  readonly wires: readonly Wire[]
  readonly flows: readonly number[]
  readonly sizes: readonly number[]
  /** Who is measured, in the order of the tables. */
  readonly specs: readonly Spec[]
  readonly rounds: number
  readonly warmUpMs: number
  readonly blastMs: number
  readonly pingPongMs: number
  /** The most trials of a search for the lossless rate. */
  readonly trials: number
  readonly trialMs: number
  readonly iperf3Ms: number
  /** Where the figures go instead of bench/results/latest.json. */
  readonly json: string | undefined
  /** Where the chart goes; no chart unless told. */
  readonly svg: string | undefined
  readonly profiles: string | undefined
}

export const USAGE = `npm run bench -- [--quick | --full] [selection] [output]

  (no preset)        the default wire, 1 flow, all sizes and contenders, 3 rounds: under five minutes
  --quick            64 and 1400 bytes, no iperf3 tcp, one short round: under a minute
  --full             every wire but nat, 1 and 100 flows: about half an hour (--matrix is the same)

selection, each a list with commas:
  --wires LIST       default, tso-off, gro, nat (README.md says what they are)
  --flows LIST       connections at the same time, 1 to 100
  --sizes LIST       payload bytes of a message, 16 to 1400
  --contenders LIST  faketcp, udp (the library's own UDP transport), dgram, net, iperf3-udp, iperf3-tcp
  --links LIST       links of faketcp: raw, packet, auto
  --interfaces LIST  interfaces of faketcp and udp: stream, batch
  --tool NAME|FILE   a foreign tunnel beside the others, if it is on the PATH: a description of bench/tools, or a file; may be repeated
  --loads LIST       what goes through tools that carry UDP: dgram (the default), iperf3, udp (the library's, in trains)
  --rounds N         rounds over all contenders; medians are taken over them

output:
  --json FILE        writes the figures there instead of bench/results/latest.json
  --svg FILE         draws a chart of the lossless rates
  --cpu-prof DIR     CPU profiles of each Node contender's last round, for Chrome's DevTools`

const CONTENDERS = ['faketcp', 'udp', 'dgram', 'net', 'iperf3-udp', 'iperf3-tcp'] as const
type ContenderName = (typeof CONTENDERS)[number]

const LONG = { warmUpMs: 400, blastMs: 800, pingPongMs: 300, trials: 10, trialMs: 300, iperf3Ms: 1000 }
const SHORT = { warmUpMs: 200, blastMs: 250, pingPongMs: 150, trials: 5, trialMs: 150, iperf3Ms: 1000 }

const DEFAULT = { wires: 'default', flows: '1', sizes: '64,512,1400', contenders: CONTENDERS.join(), rounds: '3', times: LONG }
const PRESETS = {
  default: DEFAULT,
  quick: { ...DEFAULT, sizes: '64,1400', contenders: 'faketcp,dgram,net,iperf3-udp', rounds: '1', times: SHORT },
  full: { ...DEFAULT, wires: 'default,tso-off,gro', flows: '1,100' },
}

/**
 * @returns undefined when only help is asked for
 * @throws TypeError, with the usage in its message
 */
export function parseOptions(args: readonly string[]): BenchOptions | undefined {
  try {
    const list = { type: 'string' } as const
    const { values } = parseArgs({
      args: [...args],
      options: {
        quick: { type: 'boolean', default: false },
        full: { type: 'boolean', default: false },
        matrix: { type: 'boolean', default: false },
        wires: list,
        flows: list,
        sizes: list,
        contenders: list,
        links: { type: 'string', default: 'packet,raw' },
        interfaces: { type: 'string', default: INTERFACES.join() },
        tool: { type: 'string', multiple: true, default: [] },
        loads: { type: 'string', default: 'dgram' },
        rounds: list,
        json: { type: 'string' },
        svg: { type: 'string' },
        'cpu-prof': { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    })
    if (values.help) return undefined
    const full = values.full || values.matrix
    if (values.quick && full) throw new TypeError('--quick and --full exclude each other')
    const { times, ...preset } = PRESETS[values.quick ? 'quick' : full ? 'full' : 'default']
    const contenders = oneOrMore('--contenders', values.contenders ?? preset.contenders, CONTENDERS)
    const links = oneOrMore('--links', values.links, LINKS)
    const interfaces = oneOrMore('--interfaces', values.interfaces, INTERFACES)
    const loads = oneOrMore('--loads', values.loads, LOADS)
    const specs: Spec[] = [
      ...contenders.flatMap((name) => specsOf(name, links, interfaces)),
      ...values.tool.map(readTool).flatMap((tool) => {
        if (tool.carries === 'tcp') return [{ is: 'tool', tool, load: 'iperf3' } as const]
        return loads.map((load) => ({ is: 'tool', tool, load }) as const)
      }),
    ]
    const names = specs.map(nameOf)
    const twice = names.find((name, i) => names.indexOf(name) !== i)
    if (twice !== undefined) throw new TypeError(`--tool: '${twice}' is the name of two contenders`)
    if (values.svg !== undefined && !contenders.some((name) => name === 'iperf3-udp' || name === 'dgram')) {
      throw new TypeError('--svg needs iperf3-udp or dgram among the contenders: the chart shows ratios to it')
    }
    return {
      ...times,
      wires: oneOrMore('--wires', values.wires ?? preset.wires, WIRES),
      flows: integers('--flows', values.flows ?? preset.flows, 1, 100),
      sizes: integers('--sizes', values.sizes ?? preset.sizes, 16, 1400),
      specs,
      rounds: integer('--rounds', values.rounds ?? preset.rounds, 1, 100),
      json: values.json,
      svg: values.svg,
      profiles: values['cpu-prof'] === undefined ? undefined : resolve(values['cpu-prof']),
    }
  } catch (error) {
    throw new TypeError(`${error instanceof Error ? error.message : error}\n\n${USAGE}`)
  }
}

function specsOf(
  name: ContenderName,
  links: readonly (typeof LINKS)[number][],
  interfaces: readonly (typeof INTERFACES)[number][],
): Spec[] {
  switch (name) {
    case 'faketcp':
      return links.flatMap((link) => interfaces.map((side) => ({ is: 'faketcp', link, interface: side }) as const))
    case 'udp':
      return interfaces.map((side) => ({ is: 'udp', interface: side }) as const)
    case 'iperf3-udp':
      return [{ is: 'iperf3', protocol: 'udp' }]
    case 'iperf3-tcp':
      return [{ is: 'iperf3', protocol: 'tcp' }]
    default:
      return [{ is: name }]
  }
}

function oneOrMore<T extends string>(name: string, text: string, allowed: readonly T[]): T[] {
  return distinct(name, text).map((word) => {
    const found = allowed.find((one) => one === word)
    if (found === undefined) throw new TypeError(`${name} takes ${allowed.join(', ')}; got '${word}'`)
    return found
  })
}

function integers(name: string, text: string, min: number, max: number): number[] {
  return distinct(name, text).map((word) => integer(name, word, min, max))
}

function integer(name: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < min || value > max)
    throw new TypeError(`${name} takes integers from ${min} to ${max}; got '${text}'`)
  return value
}

function distinct(name: string, text: string): string[] {
  const words = text.split(',')
  if (new Set(words).size < words.length) throw new TypeError(`${name} names something twice: '${text}'`)
  return words
}
