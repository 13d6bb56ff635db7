// A flow is its whole 4-tuple: the same ports to another address are another flow, and the same 4-tuple again is a new one.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { capture } from '../support/capture.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191
/** A dead client's port stays taken for some seconds, so each test has its own. */
let clientPort = 41000
/** A SYN is repeated after 1 s; the rest is a slow machine's. */
const ONE_SYN_REPEAT_MS = 3500

let hosts: Awaited<ReturnType<typeof twoHosts>>
beforeAll(async () => {
  hosts = await twoHosts()
  await hosts.b.addAddress('10.77.0.3/24')
  await hosts.b.addAddress('fd00:77::3/64')
})
afterAll(() => hosts.network.remove())

it.each([
  ['IPv4', () => [hosts.b.address4, '10.77.0.3']],
  ['IPv6', () => [hosts.b.address6, 'fd00:77::3']],
] as const)('one source port to two of our addresses at once: two flows that do not mix (%s)', async (_, addresses) => {
  await using server = await Peer.on(hosts.b)
  await using client = await Peer.on(hosts.a)
  await server.listen({ host: '::', port: PORT })
  const [one, other] = addresses()
  const localPort = clientPort++
  const dialled = await Promise.all([
    client.dial({ host: one, port: PORT, localPort }),
    client.dial({ host: other, port: PORT, localPort }),
  ])
  const accepted = [await server.next('connection'), await server.next('connection')]

  expect(accepted.map(({ remotePort }) => remotePort)).toEqual([localPort, localPort])
  expect(new Set(accepted.map(({ localAddress }) => localAddress))).toEqual(new Set([one, other]))
  for (const { id, localAddress } of accepted) await server.write(id, `you reached ${localAddress}`)
  for (const { id, remoteAddress } of dialled) await client.write(id, `I dialled ${remoteAddress}`)
  for (let i = 0; i < 2; i++) {
    const toServer = await server.next('message')
    expect(toServer.text).toBe(`I dialled ${accepted.find(({ id }) => id === toServer.id)?.localAddress}`)
    const toClient = await client.next('message')
    expect(toClient.text).toBe(`you reached ${dialled.find(({ id }) => id === toClient.id)?.remoteAddress}`)
  }
})

/** Capture sockets of a process: packet sockets as ss lists them, but for the one that sends, which is bound to no protocol. */
async function captureSockets(host: Host, pid: number): Promise<string[]> {
  const text = await host.output('ss', ['-0', '-a', '-n', '-p', '-H'])
  return text.split('\n').filter((line) => line.includes(`pid=${pid},`) && !line.includes(' [0]:'))
}

it.each([
  { listening: '0.0.0.0', families: 1 },
  { listening: '::', families: 2 },
])('$listening: every address of the host by one capture socket for each family, and each flow knows its own', async (expected) => {
  await using server = await Peer.on(hosts.b)
  await using client = await Peer.on(hosts.a)
  await server.listen({ host: expected.listening, port: PORT, echo: true })
  const four = [hosts.b.address4, '10.77.0.3']
  const targets = expected.families === 1 ? four : [...four, hosts.b.address6, 'fd00:77::3']
  const dialled = await Promise.all(targets.map((host) => client.dial({ host, port: PORT })))
  const reached = []
  for (const _ of targets) reached.push(await server.next('connection'))

  expect(reached.map(({ localAddress }) => localAddress).sort()).toEqual([...targets].sort())
  expect(reached.map(({ family, localAddress }) => family === (localAddress.includes(':') ? 'IPv6' : 'IPv4'))).not.toContain(false)
  expect(await captureSockets(hosts.b, server.pid)).toHaveLength(expected.families)
  for (const { id, remoteAddress } of dialled) await client.write(id, remoteAddress)
  for (const _ of targets) {
    const { id, text } = await client.next('message')
    expect(text).toBe(dialled.find((conn) => conn.id === id)?.remoteAddress)
  }
})

it('::, ipv6Only: no IPv4', async () => {
  await using server = await Peer.on(hosts.b)
  await using client = await Peer.on(hosts.a)
  await server.listen({ host: '::', port: PORT, ipv6Only: true })
  expect(await client.dialError({ host: hosts.b.address4, port: PORT })).toMatchObject({ code: 'ECONNREFUSED' })
  await client.dial({ host: hosts.b.address6, port: PORT })
  expect(await server.next('connection')).toMatchObject({ localAddress: hosts.b.address6 })
  expect(await captureSockets(hosts.b, server.pid)).toHaveLength(1)
})

it('a killed client that starts again on the same port: a new flow within one SYN repeat', async () => {
  await using server = await Peer.on(hosts.b)
  await server.listen({ host: hosts.b.address4, port: PORT, echo: true })
  const localPort = clientPort++
  await using first = await Peer.on(hosts.a)
  await begin(first, localPort)
  await using second = await Peer.on(hosts.a)

  await first.agent.kill('SIGKILL')
  await reachable(second, localPort)
  expect(await server.next('closed')).toEqual({ id: 0, code: 'ECONNRESET' })
  await expectEcho(second, 'from the second life')
})

it('a client whose death went unnoticed and that starts again on the same port: a new flow, and the old one is reset', async () => {
  await using server = await Peer.on(hosts.b)
  await server.listen({ host: hosts.b.address4, port: PORT, echo: true })
  const localPort = clientPort++
  await using first = await Peer.on(hosts.a)
  await begin(first, localPort)
  await using second = await Peer.on(hosts.a)
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })

  await hosts.a.output(
    'nft',
    ['-f', '-'],
    `table inet lost {
       chain out {
         type filter hook output priority 0
         tcp flags & fin == fin drop
       }
     }`,
  )
  try {
    await first.agent.kill('SIGKILL')
    // The dead process's carrier holds the port until the kernel gives it up.
    await expect.poll(() => hosts.a.output('ss', ['-H', '-n', '-a', '-t']), { timeout: 8000 }).toBe('')
    await reachable(second, localPort)
    expect(await server.next('closed')).toEqual({ id: 0, code: 'ECONNRESET' })
    expect(await server.next('connection')).toMatchObject({ id: 0 })
    expect(await server.next('connection')).toMatchObject({ id: 1, remotePort: localPort })
    await expectEcho(second, 'from the second life')
  } finally {
    await hosts.a.output('nft', ['delete table inet lost'])
  }
  await recording.stop()
  const syns = (await recording.segments()).filter(({ flags }) => flags === 'S')
  expect(syns.length).toBeLessThanOrEqual(2)
})

/** The life of a client's process: connected from this port, and answered. */
async function begin(first: Peer, localPort: number): Promise<void> {
  await first.dial({ host: hosts.b.address4, port: PORT, localPort })
  await expectEcho(first, 'from the first life')
}

/** On a peer's first connection. */
async function expectEcho(peer: Peer, text: string): Promise<void> {
  await peer.write(0, text)
  expect(await peer.next('message')).toEqual({ id: 0, text })
}

/** Dials as soon as the dead predecessor's port is free, and wants to be connected within one SYN repeat from then. */
async function reachable(peer: Peer, localPort: number): Promise<void> {
  const options = { host: hosts.b.address4, port: PORT, localPort }
  let started = 0
  await expect
    .poll(
      async () => {
        started = performance.now()
        return await peer.dial(options).then(
          () => 'connected',
          ({ code }) => code,
        )
      },
      { timeout: 10_000, interval: 50 },
    )
    .toBe('connected')
  expect(performance.now() - started).toBeLessThan(ONE_SYN_REPEAT_MS)
}
