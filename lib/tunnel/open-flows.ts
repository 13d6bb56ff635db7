// The open flows of one tunnel: announced when they open and end, and what they have counted is kept.
import type { FlowChange, Shared } from './shared.ts'
import { FlowCounters, type TunnelFlowStats } from './stats.ts'
import type { TunnelFlow } from './tunnel-flow.ts'

export class OpenFlows {
  readonly #shared: Shared
  readonly #flows = new Set<TunnelFlow>()

  constructor(shared: Shared) {
    this.#shared = shared
  }

  [Symbol.iterator](): Iterator<TunnelFlow> {
    return this.#flows.values()
  }

  get size(): number {
    return this.#flows.size
  }

  add(flow: TunnelFlow): void {
    this.#flows.add(flow)
    this.#shared.flowsTotal++
    this.#shared.tellFlow(changeOf(flow, 'open'))
  }

  remove(flow: TunnelFlow, reason: string): void {
    if (!this.#flows.delete(flow)) return
    this.#shared.ended.add(flow.counters)
    this.#shared.tellFlow({ ...changeOf(flow, 'closed'), reason })
  }

  /** Of all flows so far. */
  get sum(): FlowCounters {
    const sum = new FlowCounters()
    sum.add(this.#shared.ended)
    for (const { counters } of this.#flows) sum.add(counters)
    return sum
  }

  tick(): void {
    for (const flow of this.#flows) flow.tick()
  }

  /** Ends all in good order, those that are not gone in time abruptly. */
  async close(): Promise<void> {
    await Promise.all([...this.#flows].map((flow) => flow.close()))
  }

  destroy(reason: string): void {
    for (const flow of this.#flows) flow.end(reason)
  }
}

export function statsOf(flow: TunnelFlow, peers: number): TunnelFlowStats {
  const { conn, counters } = flow
  return {
    id: flow.id,
    state: flow.state,
    localAddress: conn.localAddress,
    localPort: conn.localPort,
    remoteAddress: conn.remoteAddress,
    remotePort: conn.remotePort,
    link: conn.stats.link,
    peers,
    in: { datagrams: counters.datagramsIn, bytes: counters.bytesIn },
    out: { datagrams: counters.datagramsOut, bytes: counters.bytesOut },
    lossIn: flow.lossIn,
    lossOut: flow.lossOut,
    rttMs: flow.rttMs,
  }
}

function changeOf({ conn }: TunnelFlow, state: FlowChange['state']): FlowChange {
  const { localAddress, localPort, remoteAddress, remotePort } = conn
  return { state, localAddress, localPort, remoteAddress, remotePort }
}
