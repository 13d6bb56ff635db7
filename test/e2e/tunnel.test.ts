// The tunnel between two hosts: UDP datagrams of any application go through fake TCP and come back, and what cannot be carried is dropped, counted and told.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { descriptors } from '../support/leaks.ts'
import { echoed, KEY, SERVER, SERVICE, TunnelPeer, tunnelled, USERS } from './tunnel-ends.ts'

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

it('1 000 peers at once are told apart, and when they fall silent everything of theirs is freed on both ends', async () => {
  await using hosts = await twoHosts()
  const tunnel = await tunnelled(hosts, { key: KEY, idleTimeoutMs: 6000 }, { key: KEY, idleTimeoutMs: 6000 })
  const { users, client, server } = tunnel
  const before = [await descriptors(client.agent.pid), await descriptors(server.agent.pid)]
  const wrong = await users.agent.run(
    async (ctx, { port, peers }) => {
      const wrong: string[] = []
      const unanswered = new Set<number>()
      await new Promise<void>((resolve, reject) => {
        const ask = async (): Promise<void> => {
          for (let i = 0; i < peers; i++) {
            const { id } = await ctx.state.open({ port: 0, echo: false })
            unanswered.add(id)
            ctx.state.sockets[id].on('message', (message: Buffer) => {
              if (message.toString() !== `of ${id}`) wrong.push(`${id} got ${message}`)
              else if (unanswered.delete(id) && unanswered.size === 0) resolve()
            })
          }
          // As applications do: again, until there is an answer.
          for (let round = 0; round < 20 && unanswered.size > 0; round++) {
            for (const id of unanswered) ctx.state.sockets[id].send(`of ${id}`, port, '127.0.0.1')
            await new Promise((next) => setTimeout(next, 1000))
          }
          if (unanswered.size > 0) throw new Error(`${unanswered.size} peers got no answer`)
        }
        ask().catch(reject)
      })
      return wrong
    },
    { port: USERS, peers: 1000 },
  )
  expect(wrong).toEqual([])
  expect(await client.stats()).toMatchObject({ peersTotal: 1000, flowsTotal: 1000, reconnects: 0 })
  expect(await server.stats()).toMatchObject({ peersTotal: 1000, flowsTotal: 1000 })

  for (const end of [client, server]) {
    await expect.poll(async () => (await end.stats()).peers, { timeout: 15_000 }).toBe(0)
    await expect.poll(async () => (await end.stats()).flows.length, { timeout: 5000 }).toBe(0)
  }
  await expect
    .poll(async () => [await descriptors(client.agent.pid), await descriptors(server.agent.pid)], { timeout: 10_000 })
    .toEqual(before)
}, 90_000)

it.each([
  { name: 'another key', client: { key: 'another secret of sixteen bytes' }, server: { key: KEY } },
  { name: 'no key, the server has one', client: {}, server: { key: KEY } },
  { name: 'a key, the server has none', client: { key: KEY }, server: {} },
])(
  'a client with $name gets no answer, and both ends say so once',
  async (options) => {
    await using hosts = await twoHosts()
    const { client, server, users } = await tunnelled(hosts, { ...options.client, connectTimeoutMs: 1000 }, options.server)
    const { id } = await users.open()
    await users.send(id, USERS, 'anybody there?')
    expect(await client.next('warning')).toMatchObject({ code: 'no-answer', message: expect.stringContaining('wrong key'), count: 1 })
    expect(await server.next('warning')).toMatchObject({ code: 'wrong-key', message: expect.stringContaining(hosts.a.address4), count: 1 })
    await expect.poll(async () => (await server.stats()).drops.auth, { timeout: 15_000 }).toBeGreaterThan(2)
    await expect(client.next('warning', { timeoutMs: 100 })).rejects.toThrow()
    await expect(server.next('warning', { timeoutMs: 100 })).rejects.toThrow()
    expect(await server.stats()).toMatchObject({
      flows: [],
      flowsTotal: 0,
      peersTotal: 0,
      encrypted: options.server.key === undefined ? undefined : undefined,
    })
  },
  60_000,
)

it.each([
  { key: undefined, longest: 1445 },
  { key: KEY, longest: 1423 },
])('what is too long for the path is dropped, and the warning names the MTU for WireGuard (key $key)', async ({ key, longest }) => {
  await using hosts = await twoHosts()
  const common = key === undefined ? {} : { key }
  const tunnel = await tunnelled(hosts, common, common)
  const { users, client } = tunnel
  const { id } = await users.open()
  await echoed(tunnel, id, 'x'.repeat(longest))
  await users.send(id, USERS, 'x'.repeat(longest + 1))
  expect(await client.next('warning')).toEqual({
    code: 'message-size',
    message: `A datagram of ${longest + 1} bytes is too long for the path, which takes ${longest}: dropped. For WireGuard set MTU = ${longest - 32} or less on both ends`,
    count: 1,
  })
  expect((await client.stats()).drops).toMatchObject({ 'message-size': 1 })
})

it('the flow may be IPv6, and a peer is answered from the address that it asked', async () => {
  await using hosts = await twoHosts()
  const { client, users } = await tunnelled(hosts, { listen: `:${USERS}`, to: `[${hosts.b.address6}]:${SERVER}` }, { listen: `:${SERVER}` })
  const answer = await users.agent.run(async (ctx, port) => {
    const { createSocket } = await ctx.import<typeof import('node:dgram')>('node:dgram')
    const socket = createSocket('udp4')
    // A connected socket hears nobody else.
    await new Promise<void>((resolve) => socket.connect(port, '127.0.0.2', resolve))
    const answer = new Promise<string>((resolve) => socket.once('message', (message) => resolve(String(message))))
    socket.send('from anywhere')
    return answer
  }, USERS)
  expect(answer).toBe('from anywhere')
  expect((await client.stats()).flows).toMatchObject([{ remoteAddress: hosts.b.address6, state: 'open', link: 'packet' }])
})

it('a service that is not there is told, and served once it is', async () => {
  await using hosts = await twoHosts()
  const tunnel = await tunnelled(hosts, {}, { to: `127.0.0.1:${SERVICE + 1}` })
  const { id } = await tunnel.users.open()
  await tunnel.users.send(id, USERS, 'too early')
  expect(await tunnel.server.next('warning')).toMatchObject({ code: 'udp', message: expect.stringContaining('ECONNREFUSED') })
  await tunnel.service.echo(SERVICE + 1)
  await echoed(tunnel, id, 'now')
})

it('beyond maxPeers datagrams of new peers are dropped and counted, old ones go on', async () => {
  await using hosts = await twoHosts()
  const tunnel = await tunnelled(hosts, { maxPeers: 1, flows: 1 })
  const [first, second] = [await tunnel.users.open(), await tunnel.users.open()]
  await echoed(tunnel, first.id, 'first')
  await tunnel.users.send(second.id, USERS, 'second')
  expect(await tunnel.client.next('warning')).toMatchObject({ code: 'peer-limit', count: 1 })
  await echoed(tunnel, first.id, 'first again')
  expect(await tunnel.client.stats()).toMatchObject({ peers: 1, peersTotal: 1, drops: { 'peer-limit': 1 } })
})

it('close passes on what has been received, ends the flows with a FIN and leaves nothing behind', async () => {
  await using hosts = await twoHosts()
  const tunnel = await tunnelled(hosts, { key: KEY, flows: 2 }, { key: KEY })
  const { id } = await tunnel.users.open()
  await echoed(tunnel, id, 'hello')
  expect(await tunnel.server.next('flow')).toMatchObject({ state: 'open' })
  expect(await tunnel.server.next('flow')).toMatchObject({ state: 'open' })
  await tunnel.client.close()
  for (let i = 0; i < 2; i++)
    expect(await tunnel.server.next('flow')).toMatchObject({ state: 'closed', reason: 'the other end has closed it' })
  expect(await tunnel.server.stats()).toMatchObject({ flows: [], peers: 0 })
  await tunnel.server.close()
  for (const { agent } of [tunnel.client, tunnel.server]) {
    await agent.run(() => {
      setImmediate(() => process.channel?.unref())
    })
    expect(await agent.exit).toEqual({ code: 0, signal: null })
  }
})

it('what cannot be is refused at once, by the name of the option', async () => {
  await using hosts = await twoHosts()
  const peer = await TunnelPeer.on(hosts.a)
  const [listen, to] = ['127.0.0.1:0', '127.0.0.1:4000']
  const invalid = { code: 'ERR_FAKETCP_INVALID_OPTION' }
  expect(await peer.openError('tunnelClient', { listen, to, key: 'short' })).toMatchObject({
    ...invalid,
    message: expect.stringContaining("'key'"),
  })
  expect(await peer.openError('tunnelClient', { listen, to, flows: 257 })).toMatchObject({
    ...invalid,
    message: expect.stringContaining("'flows'"),
  })
  expect(await peer.openError('tunnelClient', { listen, to, dscp: 64 })).toMatchObject({
    ...invalid,
    message: expect.stringContaining("'dscp'"),
  })
  expect(await peer.openError('tunnelServer', { listen, to: '127.0.0.1:0' })).toMatchObject({
    ...invalid,
    message: expect.stringContaining("'to'"),
  })
  expect(await peer.openError('tunnelServer', { listen, to, cipher: 'aes-256-gcm' })).toMatchObject({
    ...invalid,
    message: expect.stringContaining("'cipher'"),
  })
  expect(await peer.openError('tunnelClient', { listen: '192.0.2.1:5', to })).toMatchObject({ code: 'EADDRNOTAVAIL' })
  expect(await peer.openError('tunnelServer', { listen: 'nonsense', to })).toMatchObject({ code: 'ERR_FAKETCP_INVALID_ADDRESS' })
})
