// Hosts that rewrite addresses or ports of their own connections: AF_PACKET sees the packets as they are on the wire, the carrier as the host has
// rewritten them, so such a flow captures by raw socket, behind the rewriting.
import { expect, it } from 'vitest'
import { type Host, twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const DIALLED = 7000

async function nat(host: Host, family: 4 | 6, ...rule: string[]): Promise<void> {
  await host.output(family === 4 ? 'iptables' : 'ip6tables', ['-w', '-t', 'nat', '-A', ...rule])
}

it.each([4, 6] as const)('REDIRECT on the server: messages flow both ways (IPv%s)', async (family) => {
  await using hosts = await twoHosts()
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await nat(hosts.b, family, 'PREROUTING', '-p', 'tcp', '--dport', String(DIALLED), '-j', 'REDIRECT', '--to-ports', String(PORT))
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host, port: PORT, echo: true })
  const { id } = await client.dial({ host, port: DIALLED })
  const accepted = await server.next('connection')

  expect(await echo(client, { id, messages: 1000, seed: 4 })).toMatchObject({ intact: 1000, lost: 0 })
  expect(await server.stats(accepted.id)).toMatchObject({ capture: 'raw', messagesIn: 1000, messagesOut: 1000 })
  expect(await client.stats(id)).toMatchObject({ capture: 'packet' })
  await client.close(id)
  expect(await server.next('closed')).toEqual({ id: 0, code: undefined })
})

it('REDIRECT on the server: a hello that was sent before the raw capture was open never reaches the application', async () => {
  await using hosts = await twoHosts()
  await nat(hosts.b, 4, 'PREROUTING', '-p', 'tcp', '--dport', String(DIALLED), '-j', 'REDIRECT', '--to-ports', String(PORT))
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: PORT })
  const { id } = await client.dial({ host: hosts.b.address4, port: DIALLED })
  await server.next('connection')
  // Before the hello's first repeat, 200 ms after the dial, unless this machine is very slow.
  await client.write(id, 'before the hello')
  expect((await server.next('message')).text).toBe('before the hello')
  await expect.poll(async () => (await client.stats(id)).dialect, { timeout: 5000 }).toBe('native')
  await client.write(id, 'after it')
  expect((await server.next('message')).text).toBe('after it')
  expect(await server.stats(0)).toMatchObject({ dialect: 'native', messagesIn: 2 })
})

it('REDIRECT on the server: other flows of the same listener go on by AF_PACKET', async () => {
  await using hosts = await twoHosts()
  const host = hosts.b.address4
  await nat(hosts.b, 4, 'PREROUTING', '-p', 'tcp', '--dport', String(DIALLED), '-j', 'REDIRECT', '--to-ports', String(PORT))
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host, port: PORT, echo: true })
  const direct = await client.dial({ host, port: PORT })
  const redirected = await client.dial({ host, port: DIALLED })
  const [first, second] = [await server.next('connection'), await server.next('connection')]
  const results = [
    await echo(client, { id: direct.id, messages: 500, seed: 5 }),
    await echo(client, { id: redirected.id, messages: 500, seed: 6 }),
  ]
  expect(results).toMatchObject([
    { intact: 500, foreign: 0 },
    { intact: 500, foreign: 0 },
  ])
  expect((await server.stats(first.id)).capture).toBe('packet')
  expect((await server.stats(second.id)).capture).toBe('raw')
})

it.each([4, 6] as const)('DNAT on the client: messages flow both ways (IPv%s)', async (family) => {
  await using hosts = await twoHosts()
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  const dialled = family === 4 ? '10.77.0.50' : 'fd00:77::50'
  const to = family === 4 ? `${host}:${PORT}` : `[${host}]:${PORT}`
  await nat(hosts.a, family, 'OUTPUT', '-p', 'tcp', '-d', dialled, '--dport', String(DIALLED), '-j', 'DNAT', '--to-destination', to)
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host, port: PORT, echo: true })
  const { id } = await client.dial({ host: dialled, port: DIALLED })

  expect(await client.stats(id)).toMatchObject({ capture: 'raw' })
  expect(await echo(client, { id, messages: 1000, seed: 7 })).toMatchObject({ intact: 1000, lost: 0 })
  await client.close(id)
  await expect.poll(async () => (await server.flows()) + (await client.flows()), { timeout: 10_000 }).toBe(0)
})

it('DNAT on the client, captured by order by AF_PACKET: the error says what is wrong', async () => {
  await using hosts = await twoHosts()
  const to = `${hosts.b.address4}:${PORT}`
  await nat(hosts.a, 4, 'OUTPUT', '-p', 'tcp', '-d', '10.77.0.50', '--dport', String(DIALLED), '-j', 'DNAT', '--to-destination', to)
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: PORT })
  expect(await client.dialError({ host: '10.77.0.50', port: DIALLED, capture: 'packet' })).toMatchObject({
    code: 'ERR_FAKETCP_HANDSHAKE_UNSEEN',
    message: expect.stringContaining('rewrites'),
  })
})
