// iperf3 beside Node, where it is installed: what the kernel's UDP and TCP reach without JavaScript.
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import type { Host } from '../test/support/hosts.ts'

export interface Iperf3Figures {
  readonly messagesPerSecond: number
  readonly loss: number
}

const PORT = 5201

export function hasIperf3(): boolean {
  return spawnSync('iperf3', ['--version'], { stdio: 'ignore' }).status === 0
}

/** Received by the server, over the test's whole time. `tcp` writes as iperf3 does by itself; its messages are bytes divided by size. */
export async function iperf3(protocol: 'udp' | 'tcp', a: Host, b: Host, size: number, seconds: number): Promise<Iperf3Figures> {
  const server = b.spawn('iperf3', ['--server', '--one-off', '--forceflush', '--port', String(PORT)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const ended = once(server, 'close')
  if (server.stdout === null) throw new Error('no output to wait for')
  await once(server.stdout, 'data') // 'Server listening'
  server.stdout.resume()
  const datagrams = ['--udp', '--bitrate', '0', '--window', '4M', '--length', String(size)]
  const args = [
    '--client',
    b.address4,
    '--port',
    String(PORT),
    '--time',
    String(seconds),
    '--json',
    ...(protocol === 'udp' ? datagrams : []),
  ]
  const { end, error } = JSON.parse((await a.exec('iperf3', args)).stdout)
  if (error !== undefined) {
    server.kill('SIGKILL')
    throw new Error(`iperf3: ${error}`)
  }
  await ended
  const sum = end.sum_received ?? end.sum
  if (protocol === 'tcp') return { messagesPerSecond: sum.bits_per_second / 8 / size, loss: 0 }
  return { messagesPerSecond: (sum.packets - sum.lost_packets) / sum.seconds, loss: sum.lost_packets / sum.packets }
}
