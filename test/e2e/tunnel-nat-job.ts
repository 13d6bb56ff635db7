// Bulk UDP through the tunnel over the NAT router: what arrived, and what the router's connection tracking thought of it.
import { createRouted, type Invalid, type RoutedOptions } from '../support/router.ts'
import { type EndOptions, TunnelPeer } from './tunnel-ends.ts'
import type { Received } from './udp-stream.ts'

/** A path may lose one. */
const GREETINGS = 20
const GREETING_MS = 500

const SERVER = 4000
const SERVICE = 7000
const USERS = 7001
const SIZE = 1400
const STREAM = new URL('udp-stream.ts', import.meta.url).href
type Module = typeof import('./udp-stream.ts')

export interface TunnelOutcome extends Received {
  readonly invalid: Invalid
  readonly reconnects: number
  /** Of both ends, those that there were. */
  readonly drops: Record<string, number>
  readonly lost: number
  /** The router's entries for the tunnel's port at the end. */
  readonly entries: number
  readonly mbitPerSecond: number
}

/** So many bytes from the client's side to the server's (up), or back. */
export async function throughTunnel(
  way: 'up' | 'down',
  bytes: number,
  { tunnel = {}, ...options }: RoutedOptions & { readonly tunnel?: Pick<EndOptions, 'key' | 'cipher' | 'flows'> } = {},
): Promise<TunnelOutcome> {
  await using routed = await createRouted(options)
  const { client, server } = routed
  const { flows, ...common } = tunnel
  const ends = [
    await TunnelPeer.server(server, { listen: `${server.address4}:${SERVER}`, to: `127.0.0.1:${SERVICE}`, ...common }),
    await TunnelPeer.client(client, { listen: `127.0.0.1:${USERS}`, to: `${server.address4}:${SERVER}`, ...tunnel }),
  ]
  const withTypeScript = { nodeArgs: ['--import', 'tsx'] }
  const [user, service] = [await client.agent(withTypeScript), await server.agent(withTypeScript)]
  for (const [agent, ports] of [
    [user, [0, USERS]],
    [service, [SERVICE]],
  ] as const) {
    await agent.run(
      async (ctx, { module, ports: [port, to] }) => {
        const { UdpStream } = await ctx.import<Module>(module)
        ctx.state.stream = new UdpStream(port, to)
      },
      { module: STREAM, ports: [...ports] },
    )
  }
  const [from, to] = way === 'up' ? [user, service] : [service, user]
  const datagrams = Math.ceil(bytes / SIZE)
  await to.run((ctx, datagrams) => ctx.state.stream.expect(datagrams), datagrams)
  // So that the service knows whom to send to.
  let greeted = false
  for (let i = 0; i < GREETINGS && !greeted; i++) {
    await user.run((ctx) => ctx.state.stream.greet())
    greeted = await service.run((ctx, ms) => {
      const late = new Promise<boolean>((resolve) => setTimeout(resolve, ms, false))
      return Promise.race([ctx.state.stream.greeted.then(() => true), late])
    }, GREETING_MS)
  }
  if (!greeted) throw new Error(`No greeting of ${GREETINGS} has come through`)
  const began = performance.now()
  await from.run((ctx, datagrams) => ctx.state.stream.send(datagrams), datagrams)
  const seconds = (performance.now() - began) / 1000
  const received = await to.run<Received>((ctx) => ctx.state.stream.received)
  const [far, near] = await Promise.all(ends.map((end) => end.stats()))
  const drops = Object.entries(near.drops).map(([reason, count]) => [reason, count + far.drops[reason as keyof typeof far.drops]])
  const mbitPerSecond = Math.round((received.intact * SIZE * 8) / seconds / 1e6)
  const entries = (await routed.entries(SERVER)).length
  return {
    ...received,
    lost: datagrams - received.intact,
    drops: Object.fromEntries(drops.filter(([, count]) => count !== 0)),
    invalid: await routed.invalid(),
    reconnects: near.reconnects,
    entries,
    mbitPerSecond,
  }
}
