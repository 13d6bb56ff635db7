// One end of one contender, in a process of its own inside a host: it generates load or counts what arrives. The bench calls its methods
// from outside (pair.ts); figures are taken here, where the clock and the messages are.
import { writeFile } from 'node:fs/promises'
import { Session } from 'node:inspector/promises'
import type { Contender, Listening, Peer } from './contenders/contender.ts'
import { Counter, type Received } from './counting.ts'
import * as pings from './ping-pong.ts'
import * as sending from './sending.ts'
import type { NodeSpec } from './specs.ts'

let contender: Contender
let listening: Listening | undefined
let peers: readonly Peer[]
let counter: Counter | undefined

async function load(spec: NodeSpec): Promise<Contender> {
  switch (spec.is) {
    case 'faketcp':
      return (await import('./contenders/faketcp.ts')).faketcp(spec)
    case 'udp':
      return (await import('./contenders/faketcp.ts')).udp(spec)
    case 'dgram':
      return (await import('./contenders/dgram.ts')).dgram
    case 'net':
      return (await import('./contenders/net.ts')).net
  }
}

/** @returns the port */
export async function listen({ spec, address, flows }: { spec: NodeSpec; address: string; flows: number }): Promise<number> {
  contender = await load(spec)
  listening = await contender.listen(address, flows)
  return listening.port
}

export interface ConnectOptions {
  readonly spec: NodeSpec
  readonly address: string
  readonly port: number
  readonly flows: number
}

export async function connect({ spec, address, port, flows }: ConnectOptions): Promise<void> {
  contender = await load(spec)
  peers = await Promise.all(Array.from({ length: flows }, () => contender.connect(address, port)))
}

export async function accepted(): Promise<void> {
  if (listening === undefined) throw new Error('nothing listens here')
  peers = await listening.accepted
}

export function facts(): Record<string, string | number> {
  return peers[0].facts()
}

/** By which link each flow sends now; of faketcp only. */
export function links(): (string | number)[] {
  return peers.map((peer) => peer.facts().link)
}

let profiler: Session | undefined

/** Profiles this thread until `writeProfile`. Not `node --cpu-prof`: that one begins with the loader, and its thread would write to the same file. */
export async function startProfile(): Promise<void> {
  profiler = new Session()
  profiler.connect()
  await profiler.post('Profiler.enable')
  await profiler.post('Profiler.start')
}

export async function writeProfile({ file }: { file: string }): Promise<void> {
  if (profiler === undefined) throw new Error('no profile was started')
  const { profile } = await profiler.post('Profiler.stop')
  profiler.disconnect()
  await writeFile(file, JSON.stringify(profile))
}

export async function close(): Promise<void> {
  await Promise.all(peers.map((peer) => peer.close()))
  await listening?.close()
}

export function blast({ size, ms }: { size: number; ms: number }): Promise<sending.Sent> {
  return sending.blast(peers, size, ms)
}

export function pace({ size, ms, rate }: { size: number; ms: number; rate: number }): Promise<sending.Sent> {
  return sending.pace(peers, size, ms, rate)
}

export function startCounting({ size }: { size: number }): void {
  counter = new Counter(peers, size, contender.delivers)
}

export function stopCounting(): Promise<Received> {
  if (counter === undefined) throw new Error('nothing is counted')
  return counter.stop()
}

export function echo(): void {
  pings.echo(peers[0])
}

export function pingPong({ size, ms }: { size: number; ms: number }): Promise<pings.RoundTrips> {
  return pings.pingPong(peers[0], size, ms)
}
