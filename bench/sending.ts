// The load: one burst after the other into each flow, flat out or at a steady rate over all of them.
import type { Peer } from './contenders/contender.ts'

/** What a sender did, over all flows. */
export interface Sent {
  readonly messages: number
  readonly seconds: number
  /** Seconds of CPU, user and system, of all threads. */
  readonly cpuSeconds: number
}

/** Messages owed by a paced sender leave in bursts of at most this many. */
const PACED_BURST = 64

/** As fast as the transport takes messages. */
export function blast(peers: readonly Peer[], size: number, ms: number): Promise<Sent> {
  return run(peers, size, ms, Number.MAX_SAFE_INTEGER, () => Number.POSITIVE_INFINITY)
}

/**
 * At a steady rate, the flows taking turns; slower where the transport takes no more. The event loop spins: a timer would send in bursts of a
 * millisecond's worth.
 */
export function pace(peers: readonly Peer[], size: number, ms: number, rate: number): Promise<Sent> {
  return run(peers, size, ms, PACED_BURST, (elapsedMs) => Math.floor((elapsedMs * rate) / 1000))
}

/** `due`: messages that should have left by then. */
function run(peers: readonly Peer[], size: number, ms: number, burst: number, due: (elapsedMs: number) => number): Promise<Sent> {
  const message = Buffer.alloc(size, 'x')
  const idle = [...peers]
  const cpu = process.cpuUsage()
  const start = performance.now()
  let messages = 0
  let busy = 0
  let promised = 0
  let spinning = false
  return new Promise((resolve) => {
    const step = (): void => {
      const elapsedMs = performance.now() - start
      if (elapsedMs >= ms) {
        if (busy === 0) resolve({ messages, seconds: elapsedMs / 1000, cpuSeconds: cpuSeconds(cpu) })
        return
      }
      for (let owed = due(elapsedMs) - messages - promised; owed > 0; owed = due(elapsedMs) - messages - promised) {
        const peer = idle.shift()
        if (peer === undefined) break
        const count = Math.min(burst, owed)
        busy++
        promised += count
        peer.burst(message, count, (sent) => {
          busy--
          promised -= count
          messages += sent
          idle.push(peer)
          step()
        })
      }
      if (idle.length === 0 || spinning) return
      spinning = true
      setImmediate(() => {
        spinning = false
        step()
      })
    }
    step()
  })
}

export function cpuSeconds(since: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since)
  return (user + system) / 1e6
}
