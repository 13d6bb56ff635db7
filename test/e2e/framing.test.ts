// Framing 'counted' between two hosts: how it is agreed on, what happens where it is not, and what both ends know of each other then.
import { describe, expect, it } from 'vitest'
import { capture } from '../support/capture.ts'
import { expectNothingLeft, held } from './leftovers.ts'
import type { Peer } from './peer.ts'
import { connect, type EndOptions, type TwoPeers, twoPeers } from './two-peers.ts'

const PORT = 9191
const counted = { framing: 'counted' } as const

let hosts: TwoPeers['hosts']
let server: Peer
let client: Peer
twoPeers((made) => {
  ;({ hosts, server, client } = made)
})

/** Both ends of one framed connection. */
const connected = (options: EndOptions = {}) =>
  connect({ hosts, server, client }, PORT, { server: { ...counted, ...options.server }, client: { ...counted, ...options.client } })

/** Figures of a listener that has refused everything. */
function refusedBy(peer: Peer) {
  return peer.agent.run((ctx) => {
    const [{ accepted, refused }] = (ctx.state.listener as import('../../lib/index.ts').FakeTcpListener).stats
    return { accepted, refused }
  })
}

describe.each([
  [4, 'packet', 'auto'],
  [6, 'packet', 'auto'],
  [4, 'packet', 'raw'],
  [6, 'raw', 'raw'],
] as const)('IPv%s, captured by %s, link %s', (family, mode, link) => {
  it('carries messages both ways, in trains and alone, and empty ones', async () => {
    const host = family === 4 ? hosts.b.address4 : hosts.b.address6
    const options = { host, port: PORT, capture: mode, link, ...counted }
    await server.listen(options)
    const { id, maxMessageSize } = await client.dial(options)
    const accepted = await server.next('connection')
    // MTU, IP, TCP, timestamps, frame
    expect(maxMessageSize).toBe(1500 - (family === 4 ? 20 : 40) - 20 - 12 - 5)
    const texts = ['', ...Array.from({ length: 100 }, (_, i) => String(i).padEnd(700)), 'short', '', '', 'x'.repeat(maxMessageSize)]
    await client.write(id, ...texts)
    await server.write(accepted.id, ...texts)
    for (const peer of [server, client]) {
      const received = []
      for (const _ of texts) received.push((await peer.next('message')).text)
      expect(received).toEqual(texts)
    }
    const bytes = texts.reduce((sum, { length }) => sum + length, 0)
    const figures = { messagesIn: texts.length, bytesIn: bytes, messagesOut: texts.length, bytesOut: bytes, dialect: 'native' }
    const direction = { sent: texts.length, received: texts.length, lost: 0, duplicated: 0, reordered: 0, late: 0 }
    for (const [peer, which] of [
      [client, id],
      [server, accepted.id],
    ] as const) {
      await expect.poll(async () => (await peer.stats(which)).framing?.outgoing, { timeout: 5000 }).toEqual(direction)
      const { framing, ...stats } = await peer.stats(which)
      expect(stats).toMatchObject(figures)
      expect(framing?.incoming).toEqual(direction)
      expect(framing?.rttMs?.min).toBeGreaterThan(0)
      expect(Object.values(framing?.ignored ?? { none: 1 })).toEqual([0, 0, 0, 0, 0, 0])
    }
    await client.close(id)
    expect(await server.next('closed')).toEqual({ id: accepted.id, code: undefined })
  })
})

it('equal messages still cross as trains', async () => {
  const ids = await connected()
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  const texts = Array.from({ length: 200 }, (_, i) => String(i).padEnd(700))
  await client.write(ids.client, ...texts)
  for (const text of texts) expect((await server.next('message')).text).toBe(text)
  await recording.stop()
  const data = await recording.segments({ display: `tcp.dstport == ${PORT} && tcp.len >= 705` })
  const trains = data.map(({ len }) => len / 705)
  // Some are cut shorter, where the peer's window is still growing.
  expect(trains.reduce((sum, count) => sum + count, 0)).toBe(texts.length)
  expect(trains.length).toBeLessThan(10)
})

it("'train' tells messages without their frames", async () => {
  const ids = await connected()
  await server.agent.run((ctx, id) => {
    ctx.state.conns[id].removeAllListeners('data')
    ctx.state.conns[id].on('train', ({ buffer, segmentSize, count }: import('../../lib/index.ts').Train) =>
      ctx.emit('train', { text: buffer.toString(), segmentSize, count }),
    )
  }, ids.server)
  await client.agent.run((ctx, id) => {
    ctx.state.conns[id].sendTrain(Buffer.from('aaaabbbbccccdd'), 4)
  }, ids.client)
  expect(await server.agent.next('train')).toEqual({ text: 'aaaabbbbccccdd', segmentSize: 4, count: 4 })
})

describe('where the two ends differ', () => {
  const host = () => ({ host: hosts.b.address4, port: PORT })

  it('an unframed client of a framed listener ends with ERR_FAKETCP_FRAMING, and the listener refuses it', async () => {
    await server.listen({ ...host(), ...counted })
    const { id } = await client.dial(host())
    expect(await client.next('closed')).toEqual({ id, code: 'ERR_FAKETCP_FRAMING' })
    expect(await server.next('refused')).toMatchObject({ reason: 'framing' })
    expect(await refusedBy(server)).toEqual({ accepted: 0, refused: 1 })
  })

  it('a framed dial to an unframed listener rejects with ERR_FAKETCP_FRAMING, and so ends the connection there', async () => {
    await server.listen(host())
    const error = await client.dialError({ ...host(), ...counted })
    expect([error.code, error.message]).toEqual([
      'ERR_FAKETCP_FRAMING',
      `Framing 'counted' was expected of ${hosts.b.address4}:${PORT}, but its hello says 'none'`,
    ])
    const { id } = await server.next('connection')
    expect(await server.next('closed')).toEqual({ id, code: 'ERR_FAKETCP_FRAMING' })
  })

  it('a framed listener refuses a peer without a hello at its first message', async () => {
    await server.listen({ ...host(), ...counted })
    const { id } = await client.dial({ ...host(), dialect: 'tcpraw' })
    await client.write(id, 'hello')
    expect(await client.next('closed')).toEqual({ id, code: 'ECONNRESET' })
    expect(await server.next('refused')).toMatchObject({ reason: 'framing' })
  })

  it('a framed listener refuses a client that leaves without a word', async () => {
    await server.listen({ ...host(), ...counted })
    const { id } = await client.dial({ ...host(), dialect: 'tcpraw' })
    await client.close(id)
    expect(await server.next('refused')).toMatchObject({ reason: 'framing' })
    expect(await refusedBy(server)).toEqual({ accepted: 0, refused: 1 })
  })

  it('a framed dial to a TCP server that knows no hello rejects with ERR_FAKETCP_FRAMING when time is up', async () => {
    await server.agent.run(async (ctx, options) => {
      const { createServer } = await ctx.import<typeof import('node:net')>('node:net')
      ctx.state.plain = createServer((socket) => void socket.on('error', () => {}))
      await new Promise<void>((resolve) => ctx.state.plain.listen(options, resolve))
    }, host())
    const error = await client.dialError({ ...host(), ...counted, connectTimeoutMs: 400 })
    expect([error.code, error.message]).toEqual([
      'ERR_FAKETCP_FRAMING',
      `Framing 'counted' was expected of ${hosts.b.address4}:${PORT}, but no hello came`,
    ])
    await expect.poll(() => client.flows(), { timeout: 5000 }).toBe(0)
    await server.agent.run((ctx) => void ctx.state.plain.close())
  })

  it('a listener that closes while a client has not yet spoken leaves nothing behind', async () => {
    const before = await held(server)
    await server.listen({ ...host(), ...counted })
    const { id } = await client.dial({ ...host(), dialect: 'tcpraw' })
    await expect.poll(() => server.flows()).toBe(1)
    await server.closeListener()
    expect(await client.next('closed')).toEqual({ id, code: 'ECONNRESET' })
    await expectNothingLeft(server, before)
  })

  it('connections that are framed count for maxConnections once they are agreed on', async () => {
    await server.listen({ ...host(), ...counted, maxConnections: 1 })
    await client.dial({ ...host(), ...counted })
    await server.next('connection')
    expect((await client.dialError({ ...host(), ...counted })).code).toBe('ECONNRESET')
    expect(await server.next('refused')).toMatchObject({ reason: 'maxConnections' })
  })
})

describe('close reasons', () => {
  /** What a peer knows of the reason when the other side ends. */
  const toldAtEnd = (peer: Peer, id: number) =>
    peer.agent.run((ctx, id) => {
      ctx.state.conns[id].once('end', () => ctx.emit('reason', ctx.state.conns[id].closeReason))
    }, id)

  it.each(['client', 'server'] as const)('the %s tells the other why it closes, before the end', async (who) => {
    const ids = await connected()
    const [closing, other] = who === 'client' ? [client, server] : [server, client]
    const otherId = who === 'client' ? ids.server : ids.client
    await toldAtEnd(other, otherId)
    await closing.write(ids[who], 'last words')
    await closing.close(ids[who], { code: 4001, reason: 'Feierabend ☕' })
    expect((await other.next('message')).text).toBe('last words')
    expect(await other.agent.next('reason')).toEqual({ code: 4001, reason: 'Feierabend ☕' })
    expect(await other.next('closed')).toEqual({ id: otherId, code: undefined })
    expect(await closing.closeReason(ids[who])).toBeUndefined()
    // The last word of the figures too.
    expect((await closing.stats(ids[who])).framing?.outgoing).toMatchObject({ sent: 1, received: 1, lost: 0 })
  })

  it('without one the connection just ends', async () => {
    const ids = await connected()
    await toldAtEnd(server, ids.server)
    await client.close(ids.client)
    expect(await server.agent.next('reason')).toBeUndefined()
  })

  it('goes in the segment of the FIN', async () => {
    // A port of its own: kernels may still repeat the FINs of processes that ended.
    const port = PORT + 1
    const ids = await connected({ server: { port }, client: { port } })
    await using recording = await capture(hosts.b, { filter: `tcp port ${port}` })
    await client.close(ids.client, { reason: 'enough' })
    await server.next('closed')
    await recording.stop()
    const fins = await recording.segments({ display: `tcp.dstport == ${port} && tcp.flags.fin == 1` })
    expect(fins.map(({ len, flags }) => [len, flags])).toEqual([[5 + 4 + 6, 'FPA']])
    const end = (fins[0].seq + fins[0].len + 1) >>> 0
    expect((await recording.segments({ display: `tcp.srcport == ${port}` })).map(({ ack }) => ack)).toContain(end)
  })

  it.each([
    ['counted', { reason: 'x'.repeat(257) }, 'at most 256 bytes'],
    ['counted', { code: -1 }, 'from 0 to 4294967295'],
    ['none', { reason: 'bye' }, "unless framing is 'counted'"],
  ] as const)('with framing %s, %j is refused and the connection lives on', async (framing, why, text) => {
    const ids = await connected({ server: { framing }, client: { framing } })
    await expect(client.close(ids.client, why)).rejects.toMatchObject({
      code: 'ERR_FAKETCP_INVALID_OPTION',
      message: expect.stringContaining(text),
    })
    await client.write(ids.client, 'alive')
    expect((await server.next('message')).text).toBe('alive')
  })
})
