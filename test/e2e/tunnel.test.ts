// The tunnel between two hosts: UDP datagrams of any application go through fake TCP and come back, whatever happens to the flows in between.
import { expect, it } from 'vitest'
import { type Host, twoHosts } from '../support/hosts.ts'
import { type EndOptions, TunnelPeer, UdpPeer } from './tunnel-ends.ts'

const SERVICE = 7000
const USERS = 7001
const SERVER = 4000
const KEY = 'a secret of sixteen bytes or more'

interface Tunnelled {
  readonly server: TunnelPeer
  readonly client: TunnelPeer
  readonly users: UdpPeer
  readonly service: UdpPeer
}

/** An echo service on host b, users on host a, the tunnel between them. */
async function tunnelled(
  { a, b }: { a: Host; b: Host },
  client: Partial<EndOptions> = {},
  server: Partial<EndOptions> = {},
): Promise<Tunnelled> {
  const service = await UdpPeer.on(b)
  await service.echo(SERVICE)
  return {
    service,
    server: await TunnelPeer.server(b, { listen: `${b.address4}:${SERVER}`, to: `127.0.0.1:${SERVICE}`, ...server }),
    client: await TunnelPeer.client(a, { listen: `127.0.0.1:${USERS}`, to: `${b.address4}:${SERVER}`, ...client }),
    users: await UdpPeer.on(a),
  }
}

/** Sends one datagram of a socket and waits for its echo. */
async function echoed({ users }: Tunnelled, id: number, text: string): Promise<void> {
  await users.send(id, USERS, text)
  expect(await users.next()).toEqual({ socket: id, text, port: USERS })
}

const cases = [
  { name: 'plain, a flow for each peer', key: undefined, flows: 0 },
  { name: 'plain, two flows for all', key: undefined, flows: 2 },
  { name: 'with a key, a flow for each peer', key: KEY, flows: 0 },
  { name: 'with a key, two flows for all', key: KEY, flows: 2 },
]

it.each(cases)('datagrams of several peers go there and back, empty ones too ($name)', async ({ key, flows }) => {
  await using hosts = await twoHosts()
  const common = key === undefined ? {} : { key }
  const tunnel = await tunnelled(hosts, { ...common, flows }, common)
  const { users, client, server } = tunnel
  const ids = [await users.open(), await users.open(), await users.open()].map(({ id }) => id)
  for (const id of ids) await echoed(tunnel, id, `first of ${id}`)
  for (const id of ids) {
    const texts = ['one', '', 'x'.repeat(1300), '', '', 'y'.repeat(700)]
    await users.send(id, USERS, ...texts)
    const got = []
    for (const _ of texts) got.push((await users.next()).text)
    expect(got.sort()).toEqual([...texts].sort())
  }
  const expected = flows === 0 ? 3 : flows
  const traffic = { datagrams: 21, bytes: 3 * (2003 + 'first of 0'.length) }
  const encrypted = key === undefined ? 'none' : expect.stringMatching(/aes|chacha/)
  for (const end of [client, server]) {
    const stats = await end.stats()
    expect(stats).toMatchObject({
      peers: 3,
      peersTotal: 3,
      flowsTotal: expected,
      in: traffic,
      out: traffic,
      encrypted,
      reconnects: 0,
      lostIn: 0,
    })
    expect(stats.flows.map(({ state }) => state)).toEqual(Array(expected).fill('open'))
    expect(stats.flows.reduce((sum, { peers }) => sum + peers, 0)).toBe(3)
    expect(Object.values(stats.drops).every((count) => count === 0)).toBe(true)
  }
})
