// iperf3 beside Node, where it is installed: what the kernel's UDP and TCP reach without JavaScript, and the load through tunnels for TCP.
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { Program } from '../test/interop/programs.ts'
import type { Host } from '../test/support/hosts.ts'
import type { Trial } from './ladder.ts'
import type { Endpoint } from './pair.ts'

export interface Iperf3Options {
  readonly protocol: 'udp' | 'tcp'
  readonly flows: number
  readonly size: number
  readonly seconds: number
  /** UDP: messages per second over all flows; as fast as it can unless told. */
  readonly rate?: number
  /** Where the client connects to, if not to the server's address. */
  readonly through?: Endpoint
}

const RELAY = fileURLToPath(new URL('tcp-relay-main.mjs', import.meta.url))

export const IPERF3_PORT = 5201
/** For the control connection, and for what still sits in buffers. */
const GRACE_SECONDS = 15

/**
 * What the server received, over the test's whole time, as the client was told at its end. `tcp` writes as iperf3 does by itself; its messages are bytes divided
 * by size.
 */
export async function iperf3(a: Host, b: Host, { protocol, flows, size, seconds, rate, through }: Iperf3Options): Promise<Trial> {
  const { address, port } = through ?? { address: b.address4, port: IPERF3_PORT }
  const serverArgs = ['--server', '--one-off', '--forceflush', '--port', String(IPERF3_PORT)]
  await using _ = await Program.start(b, 'iperf3 server', 'iperf3', serverArgs, /listening/)
  const bitsPerFlow = rate === undefined ? 0 : Math.ceil((rate * size * 8) / flows)
  const datagrams = ['--udp', '--bitrate', String(bitsPerFlow), '--window', '4M', '--length', String(size)]
  const clientArgs = ['--client', address, '--port', String(port), '--time', String(seconds), '--parallel', String(flows), '--json']
  const limit = ['--signal=KILL', String(Math.ceil(seconds) + GRACE_SECONDS), 'iperf3']
  const { stdout, stderr, code } = await a.exec('timeout', [...limit, ...clientArgs, ...(protocol === 'udp' ? datagrams : [])])
  const { end, error } = parsed(stdout, `iperf3 ended with ${code}: ${stderr}`)
  if (error !== undefined) throw new Error(`iperf3: ${error}`)
  const sum = end.sum_received ?? end.sum
  if (protocol === 'tcp') {
    const perSecond = sum.bits_per_second / 8 / size
    return { offeredPerSecond: perSecond, deliveredPerSecond: perSecond, loss: 0 }
  }
  return {
    offeredPerSecond: sum.packets / sum.seconds,
    deliveredPerSecond: (sum.packets - sum.lost_packets) / sum.seconds,
    loss: sum.lost_packets / sum.packets,
  }
}

/** What carries UDP only has no way for iperf3's control connection, which goes to the same address and port by TCP: it goes beside. It ends with the host. */
export function controlRelay(a: Host, from: Endpoint, to: Endpoint): Promise<Program> {
  return Program.start(
    a,
    'relay of the control connection',
    process.execPath,
    [RELAY, from.address, String(from.port), to.address, String(to.port)],
    /^relaying/,
  )
}

interface Sum {
  readonly seconds: number
  readonly bits_per_second: number
  readonly packets: number
  readonly lost_packets: number
}

function parsed(
  stdout: string,
  failure: string,
): { readonly end: { readonly sum: Sum; readonly sum_received?: Sum }; readonly error?: string } {
  try {
    return JSON.parse(stdout)
  } catch (cause) {
    throw new Error(failure, { cause })
  }
}
