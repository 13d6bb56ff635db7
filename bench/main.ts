// `npm run bench`: faketcp beside Node's own UDP and TCP, between two hosts on one machine. Rounds take turns, A B C A B C, so that whatever
// else the machine does meets all alike; ratios are taken within a round. README.md says how to read the output.
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { type Host, twoHosts } from '../test/support/hosts.ts'
import { machine, percentile, type Report, ratiosOf, resultsOf, type Sample } from './figures.ts'
import { hasIperf3, iperf3 } from './iperf3.ts'
import { lossOf, searchLossless } from './lossless.ts'
import { type BenchOptions, parseOptions, USAGE } from './options.ts'
import { ensureRoot } from './own-namespace.ts'
import { type Flow, Pair } from './pair.ts'
import type { ContenderName } from './role.ts'
import { render } from './table.ts'

const OURS = 'faketcp'
const CONTENDERS: readonly ContenderName[] = [OURS, 'dgram', 'net']
/** TCP loses nothing, so there is no rate to search. */
const LOSSY: ReadonlySet<string> = new Set([OURS, 'dgram'])
const LATEST = fileURLToPath(new URL('results/latest.json', import.meta.url))

interface Column {
  /** Measures one size; called once for each size in each round. */
  measure(size: number): Promise<Omit<Sample, 'contender' | 'size' | 'round'>>
  close(): Promise<void>
}

async function main(options: BenchOptions): Promise<Report> {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const startedAt = new Date().toISOString()
  const samples: Sample[] = []
  const facts: Report['facts'] = {}
  const others = options.iperf3 && hasIperf3() ? (['udp', 'tcp'] as const) : []
  for (let round = 1; round <= options.rounds; round++) {
    const columns = new Map<string, Column>()
    for (const name of CONTENDERS) columns.set(name, await nodeColumn(name, a, b, options, facts))
    for (const protocol of others) columns.set(`iperf3 ${protocol}`, iperf3Column(protocol, a, b, options))
    for (const size of options.sizes) {
      for (const [contender, column] of columns) {
        progress(`round ${round} of ${options.rounds}: ${size} bytes, ${contender}`)
        samples.push({ contender, size, round, ...(await column.measure(size)) })
      }
    }
    for (const column of columns.values()) await column.close()
  }
  progress('')
  const { json: _, profiles: __, iperf3: ___, ...settings } = options
  return {
    schema: 1,
    startedAt,
    machine: machine(),
    settings,
    facts,
    ratios: ratiosOf(samples, OURS),
    results: resultsOf(samples),
    samples,
  }
}

/** Fresh processes for each round: what the compiler made of one run must not decide them all. */
async function nodeColumn(name: ContenderName, a: Host, b: Host, options: BenchOptions, facts: Report['facts']): Promise<Column> {
  const { blastMs, pingPongMs, trials, trialMs, profiles, warmUpMs, sizes } = options
  const pair = await Pair.open(name, a, b, { profiles, warmUpMs, warmUpSizes: sizes.slice(0, 1) })
  return {
    async measure(size) {
      const blast = await pair.blast(size, blastMs)
      const lossless = LOSSY.has(name) ? await searchLossless(pair, size, blast, { trials, ms: trialMs }) : blast
      const { microseconds } = await pair.pingPong(size, pingPongMs)
      return {
        blastPerSecond: blast.received.messagesPerSecond,
        blastLoss: lossOf(blast),
        ...cpuOf(blast),
        losslessPerSecond: lossless?.received.messagesPerSecond ?? null,
        rttP50Micros: percentile(microseconds, 50),
        rttP99Micros: percentile(microseconds, 99),
      }
    },
    async close() {
      facts[name] = await pair.facts()
      await pair.close()
    },
  }
}

function cpuOf({ sent, received }: Flow): Pick<Sample, 'senderCpuMicros' | 'receiverCpuMicros'> {
  const each = (seconds: number) => (received.messages === 0 ? null : (seconds * 1e6) / received.messages)
  return { senderCpuMicros: each(sent.cpuSeconds), receiverCpuMicros: each(received.cpuSeconds) }
}

function iperf3Column(protocol: 'udp' | 'tcp', a: Host, b: Host, { iperf3Seconds }: BenchOptions): Column {
  return {
    async measure(size) {
      const { messagesPerSecond, loss } = await iperf3(protocol, a, b, size, iperf3Seconds)
      return {
        blastPerSecond: messagesPerSecond,
        blastLoss: loss,
        senderCpuMicros: null,
        receiverCpuMicros: null,
        losslessPerSecond: loss <= 0.01 ? messagesPerSecond : null,
        rttP50Micros: null,
        rttP99Micros: null,
      }
    },
    close: async () => {},
  }
}

/** One line that is overwritten; nothing where nobody looks on. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`)
}

function optionsOrExit(): BenchOptions {
  try {
    const options = parseOptions(process.argv.slice(2))
    if (options !== undefined) return options
    console.log(USAGE)
    process.exit(0)
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exit(2)
  }
}

const options = optionsOrExit()
ensureRoot()
if (options.profiles !== undefined) mkdirSync(options.profiles, { recursive: true })
const report = await main(options)
const file = options.json ?? LATEST
mkdirSync(dirname(file), { recursive: true })
writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`)
console.log(render(report))
