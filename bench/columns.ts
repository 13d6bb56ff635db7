// How each kind of contender is measured: opened once for a wire, a number of flows and a round, then asked for one size after the other.
import type { Host } from '../test/support/hosts.ts'
import { type Measured, percentile } from './figures.ts'
import { controlRelay, IPERF3_PORT, iperf3 } from './iperf3.ts'
import { climb } from './ladder.ts'
import type { BenchOptions } from './options.ts'
import { type Load, Pair, trialOf, Unavailable } from './pair.ts'
import type { NodeSpec, Spec, ToolSpec } from './specs.ts'
import { Tunnel } from './tools.ts'
import { openWire, type Wire } from './wires.ts'

export interface Column {
  /** @throws Unavailable where it cannot carry such messages */
  measure(size: number): Promise<Measured>
  facts(): Promise<Record<string, string | number>>
  close(): Promise<void>
}

export interface Scene {
  readonly wire: Wire
  readonly flows: number
  readonly a: Host
  readonly b: Host
}

/** @throws Unavailable where this machine lacks what is asked for */
export function openColumn(spec: Spec, scene: Scene, options: BenchOptions): Promise<Column> {
  switch (spec.is) {
    case 'iperf3':
      return Promise.resolve(iperf3Column(spec.protocol, scene, options))
    case 'tool':
      return toolColumn(spec, scene, options)
    default:
      return nodeColumn(spec, scene, options)
  }
}

/** Fresh processes each time: what the compiler made of one run must not decide them all. */
async function nodeColumn(
  spec: NodeSpec,
  { flows, a, b }: Scene,
  options: BenchOptions,
  tunnel?: (target: { address: string; port: number }) => Promise<{ address: string; port: number }>,
): Promise<Column> {
  const { blastMs, pingPongMs, trials, trialMs, profiles, warmUpMs, sizes } = options
  const pair = await Pair.open(spec, a, b, { flows, profiles, warmUpMs, warmUpSizes: sizes.slice(0, 1), tunnel })
  return {
    async measure(size) {
      const load = await pair.blast(size, blastMs)
      const blast = trialOf(load)
      const lossless = await climb(blast, async (rate) => trialOf(await pair.pace(size, trialMs, rate)), trials)
      // One flow's round trips are those of any number of idle ones.
      const microseconds = flows === 1 ? (await pair.pingPong(size, pingPongMs)).microseconds : []
      await pair.checkLink()
      return {
        blastPerSecond: blast.deliveredPerSecond,
        blastLoss: blast.loss,
        ...cpuOf(load),
        losslessPerSecond: lossless?.deliveredPerSecond ?? null,
        rttP50Micros: percentile(microseconds, 50),
        rttP99Micros: percentile(microseconds, 99),
      }
    },
    facts: () => pair.facts(),
    close: () => pair.close(),
  }
}

function cpuOf({ sent, received }: Load): Pick<Measured, 'senderCpuMicros' | 'receiverCpuMicros'> {
  const each = (seconds: number) => (received.messages === 0 ? null : (seconds * 1e6) / received.messages)
  return { senderCpuMicros: each(sent.cpuSeconds), receiverCpuMicros: each(received.cpuSeconds) }
}

function iperf3Column(protocol: 'udp' | 'tcp', { flows, a, b }: Scene, options: BenchOptions, tunnel?: Tunnel): Column {
  const { iperf3Ms, trials } = options
  const run = (size: number, rate?: number) =>
    iperf3(a, b, { protocol, flows, size, seconds: iperf3Ms / 1000, rate, through: tunnel?.entrance })
  return {
    async measure(size) {
      const blast = await run(size)
      const lossless = await climb(blast, (rate) => run(size, rate), trials)
      return {
        blastPerSecond: blast.deliveredPerSecond,
        blastLoss: blast.loss,
        senderCpuMicros: null,
        receiverCpuMicros: null,
        losslessPerSecond: lossless?.deliveredPerSecond ?? null,
        rttP50Micros: null,
        rttP99Micros: null,
      }
    },
    facts: async () => ({}),
    close: async () => {},
  }
}

/**
 * Hosts of its own on the same kind of wire: tools add firewall rules, and with them every packet of a host goes through conntrack, which would slow everyone
 * else down too.
 */
async function toolColumn({ tool, load }: ToolSpec, { wire, flows }: Scene, options: BenchOptions): Promise<Column> {
  if (flows > tool.maxFlows) throw new Unavailable(`it carries at most ${tool.maxFlows} flow${tool.maxFlows === 1 ? '' : 's'}`)
  const hosts = await openWire(wire)
  let tunnel: Tunnel | undefined
  const explained = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (error) {
      const said = tunnel?.outputs.trim()
      throw new Unavailable(`${error instanceof Error ? error.message : error}${said ? `\n${said}` : ''}`, { cause: error })
    }
  }
  try {
    const scene = { wire, flows, a: hosts.a, b: hosts.b }
    const open = async (target: { address: string; port: number }) => {
      tunnel = await Tunnel.open(tool, hosts.a, hosts.b, target)
      return tunnel.entrance
    }
    const column = await explained(async () => {
      if (load === 'dgram') return await nodeColumn({ is: load }, scene, options, open)
      if (load === 'udp') return await nodeColumn({ is: load, interface: 'batch' }, scene, options, open)
      const entrance = await open({ address: '127.0.0.1', port: IPERF3_PORT })
      if (tool.carries === 'udp') await controlRelay(hosts.a, entrance, { address: hosts.b.address4, port: IPERF3_PORT })
      return iperf3Column(tool.carries, scene, options, tunnel)
    })
    return {
      measure(size) {
        if (size > tool.maxMessageSize) throw new Unavailable(`its messages have at most ${tool.maxMessageSize} bytes`)
        return explained(() => column.measure(size))
      },
      facts: () => column.facts(),
      async close() {
        await column.close()
        await tunnel?.[Symbol.asyncDispose]()
        await hosts.network.remove()
      },
    }
  } catch (error) {
    await tunnel?.[Symbol.asyncDispose]()
    // What else its processes have to complain of follows from this error.
    await hosts.network.remove().catch(() => {})
    throw error
  }
}
