// Bulk transfers through the NAT router: what arrived, and what the router's connection tracking thought of it.
import type { ImpairmentOptions } from '../support/impairment.ts'
import { createRouted, type Invalid, type Routed, type RoutedOptions } from '../support/router.ts'
import { type BulkJob, type BulkResult, bulk } from './bulk-job.ts'
import { Peer, type PeerDialOptions } from './peer.ts'

export const PORT = 9191

/** A window is 64 KiB at most where no scaling is agreed on (RFC 7323, 2.2). */
export const SMALL_WINDOWS = { 'net.ipv4.tcp_window_scaling': '0' }

/** Of an impaired link, each way: so the round trip takes 10 ms. */
export const FAR: ImpairmentOptions = { aToB: { delayMs: 5 }, bToA: { delayMs: 5 } }
const ROUGH_WAY = { delayMs: 5, loss: 0.02, reorder: 0.02, reorderMs: 2 }
export const ROUGH: ImpairmentOptions = { aToB: ROUGH_WAY, bToA: ROUGH_WAY }

/** Of any of the connections here: nothing is lost, nothing is invalid. */
export const ALL_VALID = { rule: 0, tracker: 0 }

export type Direction = 'up' | 'down' | 'both'

export interface ThroughOptions extends RoutedOptions, Pick<PeerDialOptions, 'link' | 'keepAliveMs'> {
  /** 4 unless told. */
  readonly family?: 4 | 6
  /** Of both hosts. */
  readonly sysctls?: Readonly<Record<string, string>>
}

/** One connection through the router. */
export interface Through extends AsyncDisposable {
  readonly routed: Routed
  readonly client: Peer
  readonly server: Peer
  /** The connection's numbers at its ends. */
  readonly ids: { readonly client: number; readonly server: number }
}

export async function through({ family = 4, sysctls = {}, link, keepAliveMs, ...options }: ThroughOptions): Promise<Through> {
  const routed = await createRouted(options)
  try {
    const settings = Object.entries(sysctls).map(([name, value]) => `${name}=${value}`)
    for (const host of settings.length > 0 ? [routed.client, routed.server] : []) await host.output('sysctl', ['-q', '-w', ...settings])
    const [server, client] = [await Peer.on(routed.server), await Peer.on(routed.client)]
    const host = family === 4 ? routed.server.address4 : routed.server.address6
    await server.listen({ host, port: PORT, link, keepAliveMs })
    const { id } = await client.dial({ host, port: PORT, link, keepAliveMs })
    const accepted = await server.next('connection')
    const seen = family === 4 ? routed.outside.address4 : routed.outside.address6
    if (accepted.remoteAddress !== seen) throw new Error(`The server met ${accepted.remoteAddress}, not the router's ${seen}`)
    return { routed, client, server, ids: { client: id, server: accepted.id }, [Symbol.asyncDispose]: () => routed[Symbol.asyncDispose]() }
  } catch (error) {
    await routed[Symbol.asyncDispose]()
    throw error
  }
}

/** What a transfer gave, both directions together. */
export interface Outcome extends BulkResult {
  readonly invalid: Invalid
  readonly setBacks: number
  /** Of payload that arrived. */
  readonly mbitPerSecond: number
}

/** Messages one way or, as many in each direction, both ways at once. */
export async function transfer({ routed, client, server, ids }: Through, direction: Direction, job: BulkJob): Promise<Outcome> {
  const ends = { up: [client, ids.client, server, ids.server], down: [server, ids.server, client, ids.client] } as const
  const ways = direction === 'both' ? (['up', 'down'] as const) : [direction]
  const before = await setBacks(client, server, ids)
  const results = await Promise.all(
    ways.map((way) => {
      const [from, id, to, at] = ends[way]
      return bulk({ from, id }, { to, id: at }, job)
    }),
  )
  const seconds = await Promise.all(ways.map((way) => ends[way][2].agent.run((ctx) => ctx.state.bulkSeconds as number)))
  const sum = (key: keyof BulkResult) => results.reduce((total, result) => total + result[key], 0)
  const arrived = { intact: sum('intact'), corrupt: sum('corrupt'), doubled: sum('doubled'), lost: sum('lost') }
  const mbitPerSecond = Math.round((arrived.intact * job.size * 8) / Math.max(...seconds) / 1e6)
  return { ...arrived, invalid: await routed.invalid(), setBacks: (await setBacks(client, server, ids)) - before, mbitPerSecond }
}

async function setBacks(client: Peer, server: Peer, ids: Through['ids']): Promise<number> {
  const stats = await Promise.all([client.stats(ids.client), server.stats(ids.server)])
  return stats.reduce((sum, one) => sum + one.setBacks, 0)
}
