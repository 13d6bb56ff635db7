// --metrics: a tunnel's statistics for Prometheus, read when they are asked for. Counters are the tunnel's sums, which outlive its flows.
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { HostPort } from '../lib/address.ts'
import type { TunnelStats } from '../lib/tunnel/index.ts'
import { medianRtt } from './status/meter.ts'

type Labelled = readonly (readonly [labels: Record<string, string>, value: number])[]

const PREFIX = 'faketcp_tunnel_'
const STATES = ['connecting', 'open', 'closing'] as const

/** @param read a snapshot, once for each scrape */
export function tunnelRegistry(read: () => TunnelStats, version: string): Registry {
  const registry = new Registry()
  let latest: TunnelStats | undefined
  /** All metrics of a scrape are collected in one turn of the event loop. */
  const snapshot = (): TunnelStats => {
    if (latest === undefined)
      setImmediate(() => {
        latest = undefined
      })
    latest ??= read()
    return latest
  }
  const counter = (name: string, help: string, labelNames: string[], values: (stats: TunnelStats) => Labelled) =>
    new Counter({
      name: `${PREFIX}${name}`,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset()
        for (const [labels, value] of values(snapshot())) this.inc(labels, value)
      },
    })
  const gauge = (name: string, help: string, labelNames: string[], values: (stats: TunnelStats) => Labelled) =>
    new Gauge({
      name: `${PREFIX}${name}`,
      help,
      labelNames,
      registers: [registry],
      collect() {
        this.reset()
        const known = values(snapshot())
        // One without labels is 0 after a reset, which an unknown value is not.
        if (known.length === 0) this.remove()
        for (const [labels, value] of known) this.set(labels, value)
      },
    })
  const both = (incoming: number, outgoing: number): Labelled => [
    [{ direction: 'in' }, incoming],
    [{ direction: 'out' }, outgoing],
  ]
  const one = (value: number): Labelled => [[{}, value]]

  counter('datagrams_total', "Datagrams carried. in: from the tunnel's other end.", ['direction'], (stats) =>
    both(stats.in.datagrams, stats.out.datagrams),
  )
  counter('bytes_total', 'Payload bytes of the datagrams carried.', ['direction'], (stats) => both(stats.in.bytes, stats.out.bytes))
  counter('lost_messages_total', 'Messages that the network between the ends is known to have lost.', ['direction'], (stats) =>
    both(stats.lostIn, stats.lostOut),
  )
  counter('dropped_datagrams_total', 'Datagrams (kernel-capture: packets) dropped at this end, by reason.', ['reason'], ({ drops }) =>
    Object.entries(drops).map(([reason, count]) => [{ reason }, count] as const),
  )
  counter('reconnects_total', 'Flows that were dialled again.', [], ({ reconnects }) => one(reconnects))
  counter('opened_flows_total', 'Flows opened.', [], ({ flowsTotal }) => one(flowsTotal))
  counter('opened_conversations_total', 'UDP conversations begun.', [], ({ peersTotal }) => one(peersTotal))
  gauge('conversations', 'UDP conversations now.', [], ({ peers }) => one(peers))
  gauge('flows', 'Flows now, by state.', ['state'], ({ flows }) =>
    STATES.map((state) => [{ state }, flows.filter((flow) => flow.state === state).length] as const),
  )
  gauge('rtt_median_seconds', "Median of the flows' smoothed round-trip times between the ends; absent while unknown.", [], ({ flows }) => {
    const median = medianRtt(flows)
    return median === undefined ? [] : one(median / 1000)
  })
  gauge('start_time_seconds', 'When the tunnel started, in seconds since 1970.', [], ({ since }) => one(since / 1000))
  gauge('info', 'Always 1.', ['role', 'encryption', 'version'], ({ role, encrypted }) => [
    [{ role, encryption: encrypted ?? 'unknown', version }, 1],
  ])
  collectDefaultMetrics({ register: registry })
  return registry
}

/** Serves /metrics; everything else is not found. */
export async function serveMetrics(registry: Registry, { host, port }: HostPort): Promise<Server> {
  const server = createServer((request, response) => {
    if (request.method !== 'GET' || request.url?.split('?')[0] !== '/metrics') {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('See /metrics\n')
      return
    }
    registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      (error: unknown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${error}\n`),
    )
  })
  server.listen(port, host === '' ? undefined : host)
  await once(server, 'listening')
  return server
}
