// One end of one contender, in a process of its own inside a host: it generates load or counts what arrives. The bench calls its methods
// from outside (pair.ts); figures are taken here, where the clock and the messages are.
import { writeFile } from 'node:fs/promises'
import { Session } from 'node:inspector/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Contender, Listening, Peer } from './contenders/contender.ts'

export type ContenderName = 'faketcp' | 'dgram' | 'net'

/** What a sender did. */
export interface Sent {
  readonly messages: number
  readonly seconds: number
  /** Seconds of CPU, user and system, of all threads. */
  readonly cpuSeconds: number
}

/** What a receiver saw of it. */
export interface Received {
  readonly messages: number
  /** Over the time from the first to the last message. */
  readonly messagesPerSecond: number
  readonly cpuSeconds: number
}

/** Round trips in microseconds, ascending. */
export interface RoundTrips {
  readonly microseconds: number[]
  readonly lost: number
}

/** Messages owed by a paced sender leave in bursts of at most this many. */
const PACED_BURST = 64
/** Nothing for so long: all that will come has come. */
const QUIET_MS = 60
const QUIET_LIMIT_MS = 3000
/** Reading the clock for each message would be a cost of its own. */
const CLOCK_EVERY = 16
/** A round trip that takes longer is lost. */
const LOST_MS = 100

let contender: Contender
let listening: Listening | undefined
let peer: Peer

async function load(name: ContenderName): Promise<Contender> {
  switch (name) {
    case 'faketcp':
      return (await import('./contenders/faketcp.ts')).faketcp
    case 'dgram':
      return (await import('./contenders/dgram.ts')).dgram
    case 'net':
      return (await import('./contenders/net.ts')).net
  }
}

/** @returns the port */
export async function listen({ name, address }: { name: ContenderName; address: string }): Promise<number> {
  contender = await load(name)
  listening = await contender.listen(address)
  return listening.port
}

export async function connect({ name, address, port }: { name: ContenderName; address: string; port: number }): Promise<void> {
  contender = await load(name)
  peer = await contender.connect(address, port)
}

export async function accepted(): Promise<void> {
  if (listening === undefined) throw new Error('nothing listens here')
  peer = await listening.peer
}

export function facts(): Record<string, string | number> {
  return peer.facts()
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
  await peer.close()
  await listening?.close()
}

// ---- sending

/** As fast as the transport takes messages. */
export function blast({ size, ms }: { size: number; ms: number }): Promise<Sent> {
  return run(size, ms, () => Number.MAX_SAFE_INTEGER)
}

/** At a steady rate; slower where the transport takes no more. The event loop spins: a timer would send in bursts of a millisecond's worth. */
export function pace({ size, ms, rate }: { size: number; ms: number; rate: number }): Promise<Sent> {
  return run(size, ms, (sent, elapsedMs) => Math.min(PACED_BURST, Math.floor((elapsedMs * rate) / 1000) - sent))
}

function run(size: number, ms: number, owed: (sent: number, elapsedMs: number) => number): Promise<Sent> {
  const message = Buffer.alloc(size, 'x')
  const cpu = process.cpuUsage()
  const start = performance.now()
  let messages = 0
  return new Promise((resolve) => {
    const step = (sent: number): void => {
      messages += sent
      const elapsedMs = performance.now() - start
      if (elapsedMs >= ms) {
        resolve({ messages, seconds: elapsedMs / 1000, cpuSeconds: cpuSeconds(cpu) })
        return
      }
      const count = owed(messages, elapsedMs)
      if (count > 0) peer.burst(message, count, step)
      else setImmediate(step, 0)
    }
    step(0)
  })
}

function cpuSeconds(since: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since)
  return (user + system) / 1e6
}

// ---- counting

let events = 0
let bytes = 0
let wrongSize = 0
let firstMs = 0
let lastMs = 0
let lastBytes = 0
let counted = 0
let cpuBefore: NodeJS.CpuUsage

/** Counts from now on. */
export function startCounting({ size }: { size: number }): void {
  events = bytes = wrongSize = firstMs = lastMs = lastBytes = 0
  counted = size
  cpuBefore = process.cpuUsage()
  const { stream } = contender
  peer.receive((message) => {
    if (events++ === 0) firstMs = performance.now()
    bytes += message.length
    if (!stream && message.length !== size) wrongSize++
    if (stream || events % CLOCK_EVERY === 0) {
      lastMs = performance.now()
      lastBytes = bytes
    }
  })
}

/** Waits until nothing more arrives and tells what did. */
export async function stopCounting(): Promise<Received> {
  const limit = performance.now() + QUIET_LIMIT_MS
  for (let seen = -1, quietSince = 0; performance.now() < limit; await delay(10)) {
    if (seen !== events) {
      seen = events
      quietSince = performance.now()
    } else if (performance.now() - quietSince >= QUIET_MS) break
  }
  const cpu = cpuSeconds(cpuBefore)
  peer.receive(() => {})
  if (wrongSize > 0) throw new Error(`${wrongSize} of ${events} messages did not have ${counted} bytes`)
  const seconds = (lastMs - firstMs) / 1000
  return {
    messages: Math.floor(bytes / counted),
    messagesPerSecond: seconds > 0 ? lastBytes / counted / seconds : 0,
    cpuSeconds: cpu,
  }
}

// ---- ping-pong

/** Sends back what arrives. */
export function echo(): void {
  const ignore = () => {}
  peer.receive((message) => peer.burst(message, 1, ignore))
}

/** One message under way at a time. */
export function pingPong({ size, ms }: { size: number; ms: number }): Promise<RoundTrips> {
  const message = Buffer.alloc(size, 'x')
  const ignore = () => {}
  const microseconds: number[] = []
  const end = performance.now() + ms
  let lost = 0
  let sentAt = 0
  let missing = 0
  return new Promise((resolve) => {
    const ping = () => {
      missing = size
      sentAt = performance.now()
      peer.burst(message, 1, ignore)
    }
    const watch = setInterval(() => {
      if (performance.now() - sentAt < LOST_MS) return
      lost++
      ping()
    }, LOST_MS)
    peer.receive((answer) => {
      missing -= answer.length
      if (missing > 0) return
      const now = performance.now()
      microseconds.push((now - sentAt) * 1000)
      if (now < end) {
        ping()
        return
      }
      clearInterval(watch)
      peer.receive(ignore)
      resolve({ microseconds: microseconds.sort((a, b) => a - b), lost })
    })
    ping()
  })
}
