// A connection as a Node stream, and a listener as an emitter and an iterator: the same over every transport.
import { describe, expect, it } from 'vitest'
import type { FakeTcpConn, FakeTcpListener } from '../../lib/index.ts'
import { expectExit, expectNothingLeft, held } from './leftovers.ts'
import type { Peer } from './peer.ts'
import { connect, type EndOptions, type TwoPeers, twoPeers } from './two-peers.ts'

const PORT = 9191

let hosts: TwoPeers['hosts']
let server: Peer
let client: Peer

/** Both ends of one connection. */
const connected = (options?: EndOptions) => connect({ hosts, server, client }, PORT, options)

/** What fits into 1500 bytes: less 20 + 32 of IP and TCP with timestamps, or 20 + 8 of IP and UDP. */
const TRANSPORTS = [
  { transport: 'faketcp', max: 1448 },
  { transport: 'udp', max: 1472 },
] as const

describe.each(TRANSPORTS)('over $transport', ({ transport, max }) => {
  twoPeers(
    (made) => {
      ;({ hosts, server, client } = made)
    },
    { agents: { transport } },
  )

  it('knows both addresses of both ends', async () => {
    await server.listen({ host: hosts.b.address6, port: 0 })
    const { port } = await server.agent.run((ctx) => ctx.state.listener.address())
    const dialled = await client.dial({ host: hosts.b.address6, port })
    const accepted = await server.next('connection')
    const localPort = dialled.localPort
    expect(dialled).toMatchObject({ family: 'IPv6', localAddress: hosts.a.address6, remoteAddress: hosts.b.address6, remotePort: port })
    expect(accepted).toMatchObject({ family: 'IPv6', localAddress: hosts.b.address6, localPort: port, remoteAddress: hosts.a.address6 })
    expect(accepted.remotePort).toBe(localPort)
  })

  it('dials from the address and port that are asked for', async () => {
    await hosts.a.addAddress('10.77.0.11/24')
    await server.listen({ host: hosts.b.address4, port: PORT })
    await client.dial({ host: hosts.b.address4, port: PORT, localAddress: '10.77.0.11', localPort: 43210 })
    expect(await server.next('connection')).toMatchObject({ remoteAddress: '10.77.0.11', remotePort: 43210 })
  })

  it('resolves names', async () => {
    await client.listen({ host: 'localhost', port: PORT, echo: true })
    const { id, remoteAddress } = await client.dial({ host: 'localhost', port: PORT })
    expect(remoteAddress).toMatch(/^(127\.0\.0\.1|::1)$/)
    const accepted = await client.next('connection')
    await client.write(id, 'hello')
    expect(await client.next('message')).toEqual({ id, text: 'hello' })
    expect(accepted.remoteAddress).toBe(remoteAddress)
  })

  it('delivers the messages of one tick in order', async () => {
    const ids = await connected()
    const texts = Array.from({ length: 300 }, (_, i) => `message ${i}`)
    await client.write(ids.client, ...texts)
    const received = []
    for (const _ of texts) received.push((await server.next('message')).text)
    expect(received).toEqual(texts)
  })

  it('iterates over connections and over messages', async () => {
    await server.agent.run(
      async (ctx, options) => {
        const listener = await ctx.faketcp.listen(options)
        const log: string[] = []
        ctx.state.done = (async () => {
          for await (const conn of listener) {
            for await (const message of conn) {
              log.push(message.toString())
              conn.write(`got ${message}`)
            }
            log.push('ended')
            if (log.filter((entry) => entry === 'ended').length === 2) break
          }
          await listener.close()
          return log
        })()
      },
      { host: hosts.b.address4, port: PORT },
    )
    for (const name of ['one', 'two']) {
      const { id } = await client.dial({ host: hosts.b.address4, port: PORT })
      await client.write(id, name)
      expect((await client.next('message')).text).toBe(`got ${name}`)
      await client.close(id)
    }
    expect(await server.agent.run((ctx) => ctx.state.done)).toEqual(['one', 'ended', 'two', 'ended'])
    await expectExit(server)
  })

  it('ends an iteration over a listener that is closed', async () => {
    await server.agent.run(
      async (ctx, options) => {
        const listener = await ctx.faketcp.listen(options)
        ctx.state.done = (async () => {
          let count = 0
          for await (const _ of listener) count++
          return count
        })()
        await listener.close()
      },
      { host: hosts.b.address4, port: PORT },
    )
    expect(await server.agent.run((ctx) => ctx.state.done)).toBe(0)
  })

  it('keeps messages of connections that wait for the first consumer', async () => {
    await server.agent.run(
      async (ctx, options) => {
        ctx.state.listener = await ctx.faketcp.listen(options)
      },
      { host: hosts.b.address4, port: PORT },
    )
    for (let i = 0; i < 3; i++) {
      const { id } = await client.dial({ host: hosts.b.address4, port: PORT })
      await client.write(id, `first of ${i}`, `second of ${i}`)
      // The acknowledged hello: the connection has been accepted.
      await expect.poll(async () => (await client.stats(id)).dialect).toBe('native')
    }
    const received = await server.agent.run(async (ctx) => {
      const listener: FakeTcpListener = ctx.state.listener
      const texts: string[] = []
      await new Promise<void>((resolve) =>
        listener.on('connection', (conn) =>
          conn
            .on('error', () => {})
            .on('data', (message) => {
              texts.push(message.toString())
              if (texts.length === 6) resolve()
            }),
        ),
      )
      return texts
    })
    expect(received.sort()).toEqual([0, 1, 2].flatMap((i) => [`first of ${i}`, `second of ${i}`]).sort())
  })

  it('refuses connections beyond the backlog', async () => {
    await server.agent.run(
      async (ctx, options) => {
        ctx.state.listener = await ctx.faketcp.listen(options)
        ctx.state.listener.on('drop', (refused: unknown) => ctx.emit('refused', refused))
      },
      { host: hosts.b.address4, port: PORT, backlog: 2 },
    )
    for (let i = 0; i < 2; i++) await client.dial({ host: hosts.b.address4, port: PORT })
    await client.dialRefused({ host: hosts.b.address4, port: PORT })
    expect(await server.next('refused')).toMatchObject({ reason: 'backlog' })
  })

  it('a message too long: refused by its callback and a drop event, and the stream lives on', async () => {
    const ids = await connected()
    const result = await client.agent.run(
      (ctx, id) =>
        new Promise((resolve) => {
          const conn: FakeTcpConn = ctx.state.conns[id]
          conn.write(Buffer.alloc(conn.maxMessageSize + 1), (error) =>
            resolve({ code: (error as NodeJS.ErrnoException)?.code, max: conn.maxMessageSize }),
          )
        }),
      ids.client,
    )
    expect(result).toEqual({ code: 'ERR_FAKETCP_MESSAGE_SIZE', max })
    expect(await client.next('drop')).toEqual({ id: ids.client, reason: 'message-size', size: max + 1, max })
    await client.write(ids.client, 'x'.repeat(max))
    expect((await server.next('message')).text).toHaveLength(max)
    expect(await client.stats(ids.client)).toMatchObject({ messagesOut: 1, droppedOut: 1 })
  })

  it('end(message) with one too long: dropped and told, and the connection still ends in good order', async () => {
    const ids = await connected()
    await client.agent.run((ctx, id) => {
      const conn: FakeTcpConn = ctx.state.conns[id]
      conn.write('the last that fits')
      conn.end(Buffer.alloc(5000))
    }, ids.client)
    expect((await server.next('message')).text).toBe('the last that fits')
    expect(await client.next('drop')).toMatchObject({ reason: 'message-size', size: 5000 })
    expect(await server.next('end')).toBe(ids.server)
    expect([await server.next('closed'), await client.next('closed')].map(({ code }) => code)).toEqual([undefined, undefined])
  })

  it("oversize: 'split' cuts what does not fit, in order", async () => {
    const ids = await connected({ client: { oversize: 'split' } })
    const bytes = Buffer.from(Array.from({ length: 4000 }, (_, i) => 97 + (i % 26)))
    await client.write(ids.client, bytes)
    const parts = [await server.next('message'), await server.next('message'), await server.next('message')].map(({ text }) => text)
    expect(parts.map(({ length }) => length)).toEqual([max, max, 4000 - 2 * max])
    expect(parts.join('')).toBe(bytes.toString())
  })

  it('setEncoding throws: it would merge messages', async () => {
    const ids = await connected()
    await expect(client.agent.run((ctx, id) => ctx.state.conns[id].setEncoding('utf8'), ids.client)).rejects.toMatchObject({
      code: 'ERR_FAKETCP_METHOD',
    })
  })

  it('destroy() resets: the other side gets ECONNRESET', async () => {
    const ids = await connected()
    await client.destroy(ids.client)
    expect(await server.next('closed')).toEqual({ id: ids.server, code: 'ECONNRESET' })
    expect(await client.next('closed')).toEqual({ id: ids.client, code: undefined })
  })

  it('a slow reader loses what does not fit into receiveQueueBytes, is told, and others lose nothing', async () => {
    const ids = await connected({ server: { receiveQueueBytes: 100_000, readableHighWaterMark: 1 } })
    const host = hosts.b.address4
    const other = await client.dial({ host, port: PORT })
    const otherAccepted = await server.next('connection')
    await server.agent.run((ctx, id) => void ctx.state.conns[id].pause(), ids.server)

    const sent = 1000
    await client.agent.run(
      (ctx, { id, sent }) => {
        const conn: FakeTcpConn = ctx.state.conns[id]
        for (let i = 0; i < sent; i++) conn.write(String(i).padEnd(1000))
      },
      { id: ids.client, sent },
    )
    await client.write(other.id, 'others are not affected')
    expect(await server.next('message')).toEqual({ id: otherAccepted.id, text: 'others are not affected' })
    await expect.poll(async () => (await server.stats(ids.server)).messagesIn).toBe(sent)

    const { droppedIn } = await server.stats(ids.server)
    // Each message counts 128 bytes more than it has: 88 in the queue, two at most in the stream's own buffer.
    expect(sent - droppedIn).toBeGreaterThanOrEqual(88)
    expect(sent - droppedIn).toBeLessThanOrEqual(90)
    for (let i = 0; i < droppedIn; i++)
      expect(await server.next('drop')).toMatchObject({ id: ids.server, reason: 'receive-queue', size: 1000 })
    await server.agent.run((ctx, id) => void ctx.state.conns[id].resume(), ids.server)
    for (let i = 0; i < sent - droppedIn; i++) expect((await server.next('message')).text.trim()).toBe(String(i))
    await client.write(ids.client, 'and on it goes')
    expect((await server.next('message')).text).toBe('and on it goes')
    expect((await server.stats(otherAccepted.id)).droppedIn).toBe(0)
  })

  it('allowHalfOpen: one side ends, the other still sends', async () => {
    const ids = await connected({ server: { allowHalfOpen: true }, client: { allowHalfOpen: true } })
    await client.agent.run((ctx, id) => void ctx.state.conns[id].end('that was all'), ids.client)
    expect((await server.next('message')).text).toBe('that was all')
    expect(await server.next('end')).toBe(ids.server)
    await server.write(ids.server, 'but not from me', 'yet')
    expect([(await client.next('message')).text, (await client.next('message')).text]).toEqual(['but not from me', 'yet'])
    await server.agent.run((ctx, id) => void ctx.state.conns[id].end(), ids.server)
    expect([await server.next('closed'), await client.next('closed')].map(({ code }) => code)).toEqual([undefined, undefined])
  })

  it('without allowHalfOpen the other side ends too', async () => {
    const ids = await connected()
    await client.agent.run((ctx, id) => void ctx.state.conns[id].end('that was all'), ids.client)
    expect((await server.next('message')).text).toBe('that was all')
    expect([await server.next('closed'), await client.next('closed')].map(({ code }) => code)).toEqual([undefined, undefined])
    await expect(server.agent.run((ctx, id) => ctx.state.conns[id].writableFinished, ids.server)).resolves.toBe(true)
  })

  it('idleTimeoutMs: a connection on which nothing is heard ends with ERR_FAKETCP_IDLE', async () => {
    const ids = await connected({ client: { idleTimeoutMs: 300 } })
    expect(await client.next('closed')).toEqual({ id: ids.client, code: 'ERR_FAKETCP_IDLE' })
    expect(await server.next('closed')).toEqual({ id: ids.server, code: 'ECONNRESET' })
  })

  it('close() resolves although the peer is gone without a word', async () => {
    const ids = await connected()
    await hosts.a.output('nft', ['-f', '-'], 'table inet gone { chain in { type filter hook input priority 0; policy drop; }; }')
    try {
      await server.close(ids.server)
      expect(await server.next('closed')).toEqual({ id: ids.server, code: undefined })
    } finally {
      await hosts.a.output('nft', ['delete table inet gone'])
    }
  })

  it('Symbol.asyncDispose closes in good order', async () => {
    const ids = await connected()
    await client.agent.run((ctx, id) => ctx.state.conns[id][Symbol.asyncDispose](), ids.client)
    expect([await server.next('closed'), await client.next('closed')].map(({ code }) => code)).toEqual([undefined, undefined])
    await server.agent.run((ctx) => ctx.state.listener[Symbol.asyncDispose]())
    expect(await server.agent.run((ctx) => [ctx.state.listener.listening, ctx.state.listener.address()])).toEqual([false, null])
  })

  it('a listener closed while flows are open: they live, and no new ones come', async () => {
    const before = await held(server)
    const ids = await connected()
    await server.closeListener()
    await client.write(ids.client, 'we live')
    expect((await server.next('message')).text).toBe('we live')
    expect(await client.dialError({ host: hosts.b.address4, port: PORT })).toMatchObject({ code: 'ECONNREFUSED' })
    await client.close(ids.client)
    await server.next('closed')
    await expectNothingLeft(server, before)
    await expectExit(server)
  })

  it('a listener closed with { connections: true }: they end in good order', async () => {
    const ids = await connected()
    await server.closeListener({ connections: true })
    expect(await server.next('closed')).toEqual({ id: ids.server, code: undefined })
    expect(await client.next('closed')).toEqual({ id: ids.client, code: undefined })
    await expectExit(server)
  })

  it('a process with nothing but an unref’d listener exits', async () => {
    await server.listen({ host: hosts.b.address4, port: PORT })
    await server.agent.run((ctx) => void ctx.state.listener.unref())
    await expectExit(server)
  })

  it('a process with nothing but an unref’d connection exits, and one with a ref’d again does not', async () => {
    const ids = await connected()
    await client.agent.run((ctx, id) => void ctx.state.conns[id].unref().ref(), ids.client)
    await client.letGo()
    // It still lives to answer: the connection keeps it.
    await client.write(ids.client, 'alive')
    expect((await server.next('message')).text).toBe('alive')
    await client.agent.run((ctx, id) => void ctx.state.conns[id].unref(), ids.client)
    expect(await client.agent.exit).toEqual({ code: 0, signal: null })
    expect(await server.next('closed')).toEqual({ id: ids.server, code: 'ECONNRESET' })
  })

  it('statistics equal what the test counts', async () => {
    // A port of its own: the kernels of scenes before may still repeat a FIN to theirs, which counts as an orphan there.
    const port = PORT + 1
    const ids = await connected({ server: { echo: true, port }, client: { port } })
    const texts = ['a', 'bb', 'ccc', 'x'.repeat(1000)]
    await client.write(ids.client, ...texts)
    for (const text of texts) expect((await client.next('message')).text).toBe(text)
    const counted = { messagesIn: 4, bytesIn: 1006, messagesOut: 4, bytesOut: 1006, droppedIn: 0, droppedOut: 0, dialect: 'native' }
    expect(await client.stats(ids.client)).toMatchObject(counted)
    expect(await server.stats(ids.server)).toMatchObject(counted)
    const [listening] = await server.agent.run((ctx) =>
      (ctx.state.listener as FakeTcpListener).stats.map(({ accepted, refused, orphans, packets, rejected }) => ({
        accepted,
        refused,
        orphans,
        packets,
        rejected: { ...rejected },
      })),
    )
    expect(listening).toMatchObject({ accepted: 1, refused: 0, orphans: 0, packets: expect.any(Number) })
    expect(Object.values(listening.rejected).every((count) => count === 0)).toBe(true)
    await client.close(ids.client)
    await client.next('closed')
    expect(await client.stats(ids.client)).toMatchObject(counted)
  })

  it('publishes on diagnostics channels', async () => {
    await client.agent.run(async (ctx) => {
      const { subscribe } = await ctx.import<typeof import('node:diagnostics_channel')>('node:diagnostics_channel')
      ctx.state.published = []
      for (const name of ['conn:open', 'conn:close', 'conn:drop', 'listener:open', 'listener:close', 'listener:drop']) {
        subscribe(`faketcp:${name}`, (message) => ctx.state.published.push([name, ...Object.keys(message as object)].join(' ')))
      }
    })
    const host = hosts.a.address4
    await client.listen({ host, port: PORT, maxConnections: 1 })
    const one = await client.dial({ host, port: PORT })
    await client.next('connection')
    await client.dialRefused({ host, port: PORT })
    await client.next('refused')
    await client.write(one.id, new Uint8Array(70_000))
    await client.next('drop')
    await client.close(one.id)
    await client.closeListener({ connections: true })
    const published = await client.agent.run((ctx) => ctx.state.published)
    expect(new Set(published)).toEqual(
      new Set([
        'listener:open listener',
        'conn:open conn',
        'listener:drop listener refused',
        'conn:drop conn drop',
        'conn:close conn error',
        'listener:close listener',
      ]),
    )
  })

  it('several addresses as one listener', async () => {
    await server.agent.run(
      async (ctx, targets) => {
        const listener = await ctx.faketcp.listeners(targets)
        ctx.state.listener = listener
        listener.on('connection', (conn) => {
          conn.on('error', () => {})
          conn.on('data', (message) => conn.write(`${conn.localAddress} ${conn.localPort}: ${message}`))
        })
      },
      [`${hosts.b.address4}:9191`, `[${hosts.b.address6}]:9191`, `${hosts.b.address4}:9192`],
    )
    for (const [host, port] of [
      [hosts.b.address4, 9191],
      [hosts.b.address6, 9191],
      [hosts.b.address4, 9192],
    ] as const) {
      const { id } = await client.dial({ host, port })
      await client.write(id, 'hello')
      expect((await client.next('message')).text).toBe(`${host} ${port}: hello`)
    }
    await server.agent.run((ctx) => ctx.state.listener.close({ connections: true }))
    expect(await server.agent.run((ctx) => ctx.state.listener.addresses())).toEqual([])
    await expectExit(server)
  })

  it.each(['callback', 'drain', 'data'] as const)(
    'an exception in a %s handler surfaces as uncaught and costs nobody else',
    async (where) => {
      const { code, stdout, stderr } = await hosts.b.exec(process.execPath, [
        '--input-type=module',
        '-e',
        `
    import { dial, listen } from ${JSON.stringify(new URL('../../dist/index.js', import.meta.url).href)}
    const where = ${JSON.stringify(where)}
    const uncaught = []
    process.on('uncaughtException', (error) => uncaught.push(error.message))
    const listener = await listen('127.0.0.1:0')
    const arrived = []
    const complete = new Promise((resolve) => {
      listener.on('connection', (conn) => conn.on('data', (message) => {
        if (arrived.push(String(message)) === 22) resolve()
        if (where === 'data' && String(message) === 'a0') throw new Error('mine')
      }))
    })
    const { port } = listener.address()
    const thrower = await dial({ host: '127.0.0.1', port, writableHighWaterMark: 1 })
    const other = await dial({ host: '127.0.0.1', port })
    if (where === 'drain') thrower.once('drain', () => { throw new Error('mine') })
    thrower.write('a0', () => { if (where === 'callback') throw new Error('mine') })
    for (let i = 1; i <= 10; i++) thrower.write('a' + i)
    for (let i = 0; i <= 10; i++) other.write('b' + i)
    await complete
    thrower.write('last')
    await Promise.all([thrower.close(), other.close(), listener.close()])
    console.log(JSON.stringify({ arrived: new Set(arrived).size, uncaught }))`,
      ])
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(JSON.parse(stdout)).toEqual({ arrived: 23, uncaught: ['mine'] })
    },
  )

  if (transport === 'udp') {
    it('an empty message is one like any other', async () => {
      const ids = await connected()
      await client.write(ids.client, '', 'next', '', '')
      const texts = []
      for (let i = 0; i < 4; i++) texts.push((await server.next('message')).text)
      expect(texts).toEqual(['', 'next', '', ''])
      expect(await server.stats(ids.server)).toMatchObject({ messagesIn: 4, bytesIn: 4 })
      expect(await client.stats(ids.client)).toMatchObject({ messagesOut: 4, bytesOut: 4 })
    })
  } else {
    it('an empty message: refused by its callback and a drop event, and the stream lives on', async () => {
      const ids = await connected()
      const code = await client.agent.run(
        (ctx, id) => new Promise((resolve) => ctx.state.conns[id].write('', (error: NodeJS.ErrnoException | null) => resolve(error?.code))),
        ids.client,
      )
      expect(code).toBe('ERR_FAKETCP_MESSAGE_EMPTY')
      expect(await client.next('drop')).toMatchObject({ reason: 'message-empty', size: 0 })
      await client.write(ids.client, 'next')
      expect((await server.next('message')).text).toBe('next')
    })
  }
})
