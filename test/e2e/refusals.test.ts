// What cannot be had is refused with an error that says why, and leaves nothing behind: no socket, no timer, no slot, and the process can exit.
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { expectExit, expectNothingLeft, type Held, held } from './leftovers.ts'
import { Peer } from './peer.ts'

const PORT = 9191
/** Nobody answers here, not even ARP. */
const NOBODY = '10.77.0.99'

let hosts: Awaited<ReturnType<typeof twoHosts>>
let peer: Peer
let before: Held
beforeAll(async () => {
  hosts = await twoHosts()
})
afterAll(() => hosts.network.remove())
beforeEach(async () => {
  peer = await Peer.on(hosts.a)
  // The addon and the name resolver are loaded, the first timer has run.
  await peer.agent.run((ctx) => ctx.faketcp.dial('127.0.0.1:1').catch(() => {}))
  before = await held(peer)
})

afterEach(() => peer.agent.close())

async function expectClean(): Promise<void> {
  await expectNothingLeft(peer, before)
  await expectExit(peer)
}

it.each([
  ['IPv4', () => hosts.b.address4],
  ['IPv6', () => hosts.b.address6],
] as const)('dialling a closed port: ECONNREFUSED (%s)', async (_, address) => {
  const host = address()
  expect(await peer.dialError({ host, port: PORT })).toMatchObject({
    code: 'ECONNREFUSED',
    syscall: 'connect',
    address: host,
    port: PORT,
    errno: -111,
  })
  await expectClean()
})

it.each(['dial', 'listen'] as const)('%s without the capability: EPERM, and the hint names it', async (verb) => {
  await using unprivileged = await Peer.on(hosts.a, { capabilities: 'none' })
  const own = await held(unprivileged)
  const error =
    verb === 'dial'
      ? await unprivileged.dialError({ host: hosts.b.address4, port: PORT })
      : await unprivileged.listenError({ host: hosts.a.address4, port: PORT })
  expect(error).toMatchObject({ code: 'EPERM', errno: -1, syscall: expect.any(String), message: expect.stringContaining('CAP_NET_RAW') })
  await expectNothingLeft(unprivileged, own)
  await expectExit(unprivileged)
})

it('listening on a port in use: EADDRINUSE', async () => {
  await using other = await Peer.on(hosts.a)
  await other.listen({ host: hosts.a.address4, port: PORT })
  expect(await peer.listenError({ host: hosts.a.address4, port: PORT })).toMatchObject({
    code: 'EADDRINUSE',
    address: hosts.a.address4,
    port: PORT,
  })
  await expectClean()
})

it("listening on an address that is not the host's: EADDRNOTAVAIL", async () => {
  expect(await peer.listenError({ host: hosts.b.address4, port: PORT })).toMatchObject({ code: 'EADDRNOTAVAIL', address: hosts.b.address4 })
  await expectClean()
})

it('dialling from a port in use: EADDRINUSE', async () => {
  await using server = await Peer.on(hosts.b)
  await server.listen({ host: hosts.b.address4, port: PORT })
  const target = { host: hosts.b.address4, port: PORT, localPort: 42000 }
  await peer.dial(target)
  expect((await peer.dialError(target)).code).toMatch(/^(EADDRINUSE|EADDRNOTAVAIL)$/)
  await peer.close(0)
  await expectClean()
})

it.each([
  ['10.0.0.1', "got '10.0.0.1'"],
  ['10.0.0.1:70000', "got '10.0.0.1:70000'"],
  ['fd00::1:9191', 'an IPv6 address is written in brackets'],
  ['[nonsense]:9191', "'nonsense' is not an IPv6 address"],
  ['', "got ''"],
])('the address %j: ERR_FAKETCP_INVALID_ADDRESS, with what was expected and what came', async (address, says) => {
  for (const verb of ['dial', 'listen'] as const) {
    const failure = peer.agent.run(async (ctx, { verb, address }) => void (await ctx.faketcp[verb](address)), { verb, address })
    await expect(failure).rejects.toMatchObject({
      name: 'FakeTcpError',
      code: 'ERR_FAKETCP_INVALID_ADDRESS',
      message: expect.stringMatching(/^Expected an address such as '192\.0\.2\.1:9191'/),
    })
    await expect(failure).rejects.toThrow(says)
  }
  await expectClean()
})

it.each([
  [{ capture: 'pcap' }, 'Option \'capture\' must be one of "auto", "packet", "raw"; got "pcap"'],
  [{ idleTimeoutMs: -1 }, "Option 'idleTimeoutMs' must be an integer of at least 0; got -1"],
  [{ signal: 'now' }, 'Option \'signal\' must be an AbortSignal; got "now"'],
  [{ allowHalfOpen: 1 }, "Option 'allowHalfOpen' must be true or false; got 1"],
])('the options %j: ERR_FAKETCP_INVALID_OPTION, with what was expected and what came', async (options, message) => {
  for (const verb of ['dial', 'listen'] as const) {
    const failure = peer.agent.run(
      // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
      async (ctx, { verb, options }) => void (await ctx.faketcp[verb]({ host: '127.0.0.1', port: 9, ...(options as any) })),
      { verb, options },
    )
    await expect(failure).rejects.toMatchObject({ code: 'ERR_FAKETCP_INVALID_OPTION', message })
  }
  await expectClean()
})

it('an unknown host: the error of the name resolution', async () => {
  const error = await peer.dialError({ host: 'no-such-host.invalid', port: PORT })
  expect(error).toMatchObject({ syscall: 'getaddrinfo', code: expect.stringMatching(/^(ENOTFOUND|EAI_AGAIN)$/) })
  await expectClean()
})

it('a dial whose signal is already aborted: AbortError with the reason, and no SYN', async () => {
  const result = await peer.agent.run(async (ctx, host) => {
    const reason = new Error('changed my mind')
    const error = await ctx.faketcp.dial({ host, port: 9191, signal: AbortSignal.abort(reason) }).catch((error) => error)
    return { name: error.name, code: error.code, cause: error.cause === reason }
  }, hosts.b.address4)
  expect(result).toEqual({ name: 'AbortError', code: 'ABORT_ERR', cause: true })
  await expectClean()
})

it('a dial that is aborted while it waits: AbortError with the reason', async () => {
  const result = await peer.agent.run(async (ctx, host) => {
    const controller = new AbortController()
    const reason = new Error('changed my mind')
    const table = ctx.faketcp.createFlowTable()
    ctx.state.table = table
    const dialling = ctx.faketcp.dial({
      host,
      port: 9191,
      signal: controller.signal,
      table,
    })
    setImmediate(() => controller.abort(reason))
    const error = await dialling.catch((error) => error)
    return { name: error.name, code: error.code, cause: error.cause === reason }
  }, NOBODY)
  expect(result).toEqual({ name: 'AbortError', code: 'ABORT_ERR', cause: true })
  await expectClean()
})

it('an abort after the dial changes nothing', async () => {
  await using server = await Peer.on(hosts.b)
  await server.listen({ host: hosts.b.address4, port: PORT, echo: true })
  const echoed = await peer.agent.run(async (ctx, host) => {
    const controller = new AbortController()
    const conn = await ctx.faketcp.dial({ host, port: 9191, signal: controller.signal })
    controller.abort()
    const answer = new Promise((resolve) => conn.once('data', (message) => resolve(message.toString())))
    conn.write('still here')
    const text = await answer
    await conn.close()
    return text
  }, hosts.b.address4)
  expect(echoed).toBe('still here')
  await expectClean()
})

it('a listen whose signal is already aborted: AbortError', async () => {
  await expect(
    peer.agent.run(async (ctx) => void (await ctx.faketcp.listen({ port: 9191, signal: AbortSignal.abort() }))),
  ).rejects.toMatchObject({ name: 'AbortError', code: 'ABORT_ERR' })
  await expectClean()
})

/** Somebody who is there for ARP only: packets to this address vanish. */
async function vanish(address: string): Promise<void> {
  await hosts.a.exec('ip', ['neigh', 'replace', address, 'lladdr', '02:00:00:00:00:99', 'nud', 'permanent', 'dev', hosts.a.iface])
}

it('nobody answers within connectTimeoutMs: ETIMEDOUT', async () => {
  await vanish(NOBODY)
  const started = performance.now()
  expect(await peer.dialError({ host: NOBODY, port: PORT, connectTimeoutMs: 150 })).toMatchObject({
    code: 'ETIMEDOUT',
    syscall: 'connect',
    address: NOBODY,
    port: PORT,
  })
  // Well before the kernel itself gives up.
  expect(performance.now() - started).toBeLessThan(2500)
  await expectClean()
})

it('a dial whose first three SYNs are lost: connected by the fourth, after 7 s', async () => {
  await using server = await Peer.on(hosts.b)
  await server.listen({ host: hosts.b.address4, port: PORT, echo: true })
  await hosts.b.output(
    'nft',
    ['-f', '-'],
    `table inet lost {
       chain in {
         type filter hook input priority 0
         tcp dport ${PORT} tcp flags & (syn | ack) == syn limit rate 1/day burst 3 packets drop
       }
     }`,
  )
  try {
    const { id } = await peer.dial({ host: hosts.b.address4, port: PORT })
    await peer.write(id, 'at last')
    expect(await peer.next('message')).toEqual({ id, text: 'at last' })
    await peer.close(id)
  } finally {
    await hosts.b.output('nft', ['delete table inet lost'])
  }
  await expectClean()
})

it('a full table: the dial is refused, and the old flows live', async () => {
  await using server = await Peer.on(hosts.b)
  await server.listen({ host: hosts.b.address4, port: PORT, echo: true })
  const target = { host: hosts.b.address4, port: PORT, capacity: 2 }
  await peer.dial(target)
  await peer.dial(target)
  expect(await peer.dialError(target)).toMatchObject({ code: 'ERR_FAKETCP_TABLE_FULL', message: expect.stringContaining('all 2 slots') })
  for (const id of [0, 1]) {
    await peer.write(id, `flow ${id} lives`)
    expect(await peer.next('message')).toEqual({ id, text: `flow ${id} lives` })
  }
  await Promise.all([peer.close(0), peer.close(1)])
  await expectClean()
})

it('a full table: the listener refuses with a drop event, the peer is reset, and the old flows live', async () => {
  await using server = await Peer.on(hosts.b)
  const free = await held(server)
  await server.listen({ host: hosts.b.address4, port: PORT, echo: true, capacity: 1 })
  await peer.dial({ host: hosts.b.address4, port: PORT })
  await peer.dialRefused({ host: hosts.b.address4, port: PORT, localPort: 42001 })
  expect(await server.next('refused')).toMatchObject({ reason: 'table-full', remotePort: 42001 })
  await peer.write(0, 'the first lives')
  expect(await peer.next('message')).toEqual({ id: 0, text: 'the first lives' })
  await peer.close(0)
  await expectClean()
  await server.closeListener()
  await expectNothingLeft(server, free)
  await expectExit(server)
})

it('more than maxConnections: refused with a drop event, counted, and possible again when one has closed', async () => {
  await using server = await Peer.on(hosts.b)
  await server.listen({ host: hosts.b.address4, port: PORT, maxConnections: 1 })
  const first = await peer.dial({ host: hosts.b.address4, port: PORT })
  await server.next('connection')
  await peer.dialRefused({ host: hosts.b.address4, port: PORT, localPort: 42002 })
  expect(await server.next('refused')).toMatchObject({ reason: 'maxConnections', remotePort: 42002 })
  expect(await server.agent.run((ctx) => ctx.state.listener.stats.map(({ accepted, refused }: never) => [accepted, refused]))).toEqual([
    [1, 1],
  ])
  await peer.close(first.id)
  await server.next('closed')
  const third = await peer.dial({ host: hosts.b.address4, port: PORT })
  expect(await server.next('connection')).toMatchObject({ remotePort: third.localPort })
  await peer.close(third.id)
  await expectClean()
})

it('listeners where one address fails: its error, and the others are closed', async () => {
  const failure = peer.agent.run(
    async (ctx, targets) => void (await ctx.faketcp.listeners(targets)),
    [`${hosts.a.address4}:9191`, `[${hosts.a.address6}]:9191`, `${hosts.b.address4}:9191`],
  )
  await expect(failure).rejects.toMatchObject({ code: 'EADDRNOTAVAIL', address: hosts.b.address4 })
  await expectClean()
})
