// The batch interface: runs of equal messages out by `sendTrain`, in by 'train', beside `write` and 'data'.
import { expect, it } from 'vitest'
import type { FakeTcpConn } from '../../lib/index.ts'
import { capture } from '../support/capture.ts'
import type { Peer } from './peer.ts'
import { connect, type EndOptions, type TwoPeers, twoPeers } from './two-peers.ts'

const PORT = 9191

let hosts: TwoPeers['hosts']
let server: Peer
let client: Peer
twoPeers((made) => {
  ;({ hosts, server, client } = made)
})

interface Seen {
  readonly text: string
  readonly segmentSize: number
  readonly count: number
}

/** Both ends of one connection, of which the dialler knows that trains may be sent. */
async function connected(options?: EndOptions) {
  const ids = await connect({ hosts, server, client }, PORT, options)
  await expect.poll(async () => (await client.stats(ids.client)).dialect).toBe('native')
  return ids
}

/** From now on trains of this connection are told as 'train'. */
function listenToTrains(peer: Peer, id: number): Promise<void> {
  return peer.agent.run((ctx, id) => {
    const conn: FakeTcpConn = ctx.state.conns[id]
    ctx.state.onTrain = ({ buffer, segmentSize, count }: { buffer: Buffer; segmentSize: number; count: number }) =>
      ctx.emit('train', { text: buffer.toString('latin1'), segmentSize, count })
    conn.on('train', ctx.state.onTrain)
  }, id)
}

const nextTrain = (peer: Peer) => peer.agent.next<Seen>('train')

/** Messages of trains until there are so many. */
async function messagesOf(peer: Peer, count: number): Promise<string[]> {
  const messages: string[] = []
  while (messages.length < count) {
    const { text, segmentSize, count: own } = await nextTrain(peer)
    expect(own).toBe(Math.ceil(text.length / segmentSize))
    for (let at = 0; at < text.length; at += segmentSize) messages.push(text.slice(at, at + segmentSize))
  }
  return messages
}

function sendTrain(peer: Peer, id: number, text: string, segmentSize: number): Promise<boolean> {
  return peer.agent.run((ctx, { id, text, segmentSize }) => ctx.state.conns[id].sendTrain(Buffer.from(text, 'latin1'), segmentSize), {
    id,
    text,
    segmentSize,
  })
}

/** `count` messages of `size` bytes, no two alike. */
const numbered = (count: number, size: number) => Array.from({ length: count }, (_, i) => String(i).padEnd(size))

it.each(['client', 'server'] as const)('what sendTrain takes arrives as the same messages, in few pieces (from the %s)', async (from) => {
  const ids = await connected()
  const [source, sink] = from === 'client' ? [client, server] : [server, client]
  const [out, into] = from === 'client' ? [ids.client, ids.server] : [ids.server, ids.client]
  await listenToTrains(sink, into)
  const messages = numbered(100, 500)
  expect(await sendTrain(source, out, messages.join(''), 500)).toBe(true)
  const trains = [await nextTrain(sink), await nextTrain(sink)]
  expect(trains.map(({ segmentSize, count }) => [segmentSize, count])).toEqual([
    [500, 64],
    [500, 36],
  ])
  expect(trains.map(({ text }) => text).join('')).toBe(messages.join(''))
  expect(await source.stats(out)).toMatchObject({ messagesOut: 100, bytesOut: 50_000 })
  expect(await sink.stats(into)).toMatchObject({ messagesIn: 100, bytesIn: 50_000 })
})

it('runs, messages, and their order: sendTrain and write mixed, read by data', async () => {
  const ids = await connected()
  await client.agent.run((ctx, id) => {
    const conn: FakeTcpConn = ctx.state.conns[id]
    conn.write('first')
    conn.sendTrain(Buffer.from('aaaabbbbcc'), 4)
    conn.write('middle')
    conn.sendTrain(Buffer.from('ddddeeee'), 4)
    conn.sendTrain(Buffer.from('f'), 4)
    conn.write('last')
  }, ids.client)
  const texts = []
  for (let i = 0; i < 9; i++) texts.push((await server.next('message')).text)
  expect(texts).toEqual(['first', 'aaaa', 'bbbb', 'cc', 'middle', 'dddd', 'eeee', 'f', 'last'])
})

it('the same, read by train', async () => {
  const ids = await connected()
  await listenToTrains(server, ids.server)
  await client.agent.run((ctx, id) => {
    const conn: FakeTcpConn = ctx.state.conns[id]
    conn.write('first')
    conn.sendTrain(Buffer.from('aaaabbbbcc'), 4)
    for (let i = 0; i < 10; i++) conn.write(`written ${i}`)
  }, ids.client)
  expect(await messagesOf(server, 14)).toEqual(['first', 'aaaa', 'bbbb', 'cc', ...Array.from({ length: 10 }, (_, i) => `written ${i}`)])
})

it('the last message of a run may be shorter, and a run may be one message', async () => {
  const ids = await connected()
  await listenToTrains(server, ids.server)
  await sendTrain(client, ids.client, ['x'.repeat(1000), 'y'.repeat(1000), 'z'].join(''), 1000)
  expect(await messagesOf(server, 3)).toEqual(['x'.repeat(1000), 'y'.repeat(1000), 'z'])
  await sendTrain(client, ids.client, 'alone', 5)
  expect(await nextTrain(server)).toEqual({ text: 'alone', segmentSize: 5, count: 1 })
  // The segment size may be more than there is, and more than would fit.
  await sendTrain(client, ids.client, 'shorter', 100_000)
  expect(await nextTrain(server)).toEqual({ text: 'shorter', segmentSize: 7, count: 1 })
})

it('a run far longer than a packet is cut between messages', async () => {
  const ids = await connected()
  const size = 1000
  const count = 1 << 10
  await server.agent.run((ctx, id) => {
    ctx.state.trains = []
    const conn: FakeTcpConn = ctx.state.conns[id]
    conn.on('train', ({ buffer, segmentSize }) => {
      for (let at = 0; at < buffer.length; at += segmentSize)
        ctx.state.trains.push([buffer.readUInt32LE(at), Math.min(segmentSize, buffer.length - at)])
    })
  }, ids.server)
  await client.agent.run(
    (ctx, { id, size, count }) =>
      new Promise<void>((resolve, reject) => {
        const bytes = Buffer.alloc(size * count + 10)
        for (let i = 0; i <= count; i++) bytes.writeUInt32LE(i, i * size)
        ctx.state.conns[id].sendTrain(bytes, size, (error: Error | null | undefined) => (error ? reject(error) : resolve()))
      }),
    { id: ids.client, size, count },
  )
  await expect.poll(() => server.agent.run((ctx) => ctx.state.trains.length)).toBe(count + 1)
  expect(await server.agent.run((ctx) => ctx.state.trains)).toEqual([...Array.from({ length: count }, (_, i) => [i, size]), [count, 10]])
  expect(await client.stats(ids.client)).toMatchObject({ messagesOut: count + 1, bytesOut: size * count + 10 })
})

it('the callback comes when the kernel has taken the run, drain when there is room again', async () => {
  const ids = await connected({ client: { writableHighWaterMark: 100_000 } })
  const log = await client.agent.run(
    (ctx, id) =>
      new Promise<string[]>((resolve) => {
        const conn: FakeTcpConn = ctx.state.conns[id]
        const log: string[] = []
        const sent = (name: string) => (error: Error | null | undefined) => log.push(error ? `${name}: ${error.message}` : name)
        conn.once('drain', () => {
          log.push('drain')
          setImmediate(resolve, log)
        })
        log.push(String(conn.sendTrain(Buffer.alloc(50_000), 1000, sent('first'))))
        log.push(String(conn.sendTrain(Buffer.alloc(50_000), 1000, sent('second'))))
      }),
    ids.client,
  )
  // Node emits 'drain' first and then calls back.
  expect(log).toEqual(['true', 'false', 'drain', 'first', 'second'])
})

it.each([
  {
    is: 'segments that are too long',
    bytes: 4000,
    segmentSize: 1449,
    code: 'ERR_FAKETCP_MESSAGE_SIZE',
    drop: { reason: 'message-size', size: 1449, count: 3 },
  },
  {
    is: 'one message that is too long',
    bytes: 1449,
    segmentSize: 9000,
    code: 'ERR_FAKETCP_MESSAGE_SIZE',
    drop: { reason: 'message-size', size: 1449 },
  },
  { is: 'nothing', bytes: 0, segmentSize: 100, code: 'ERR_FAKETCP_MESSAGE_EMPTY', drop: { reason: 'message-empty', size: 0 } },
])('refuses $is by the callback and a drop event, and lives on', async ({ bytes, segmentSize, code, drop }) => {
  const ids = await connected()
  const refused = await client.agent.run(
    (ctx, { id, bytes, segmentSize }) =>
      new Promise((resolve) =>
        ctx.state.conns[id].sendTrain(Buffer.alloc(bytes), segmentSize, (error: NodeJS.ErrnoException | null) => resolve(error?.code)),
      ),
    { id: ids.client, bytes, segmentSize },
  )
  expect(refused).toBe(code)
  expect(await client.next('drop')).toMatchObject({ id: ids.client, ...drop })
  await sendTrain(client, ids.client, 'nextlast', 4)
  expect([(await server.next('message')).text, (await server.next('message')).text]).toEqual(['next', 'last'])
  expect(await client.stats(ids.client)).toMatchObject({ messagesOut: 2, droppedOut: Math.ceil(bytes / segmentSize) || 1 })
})

it('refuses arguments that are none', async () => {
  const ids = await connected()
  const codes = await client.agent.run((ctx, id) => {
    const tries: unknown[][] = [
      ['text', 4],
      [[1, 2, 3], 4],
      [new DataView(new ArrayBuffer(4)), 4],
      [Buffer.alloc(4)],
      [Buffer.alloc(4), 0],
      [Buffer.alloc(4), -1],
      [Buffer.alloc(4), 1.5],
      [Buffer.alloc(4), '4'],
      [Buffer.alloc(4), Number.NaN],
    ]
    return tries.map((args) => {
      try {
        ctx.state.conns[id].sendTrain(...args)
        return 'taken'
      } catch (error) {
        return (error as NodeJS.ErrnoException).code
      }
    })
  }, ids.client)
  expect(codes).toEqual(Array(9).fill('ERR_FAKETCP_INVALID_OPTION'))
  expect(await client.stats(ids.client)).toMatchObject({ messagesOut: 0, droppedOut: 0 })
})

it('to a peer that splits no trains every message of a run goes alone and with PSH', async () => {
  const ids = await connected({ server: { capture: 'raw' } })
  await using recording = await capture(hosts.b, { filter: `tcp dst port ${PORT}` })
  const messages = numbered(70, 600)
  await sendTrain(client, ids.client, messages.join(''), 600)
  for (const text of messages) expect((await server.next('message')).text).toBe(text)
  expect((await client.stats(ids.client)).link).toBe('packet')
  await recording.stop()
  const data = (await recording.segments()).filter(({ len }) => len > 255)
  expect(data.map(({ len, flags }) => [len, flags])).toEqual(Array(70).fill([600, 'PA']))
})

it('by raw socket a run arrives just the same', async () => {
  const ids = await connected({ client: { link: 'raw' } })
  await listenToTrains(server, ids.server)
  const messages = numbered(100, 500)
  await sendTrain(client, ids.client, messages.join(''), 500)
  expect(await messagesOf(server, 100)).toEqual(messages)
})

it('messages from before the train listener come as trains of one, in order, and then the rest', async () => {
  const host = hosts.b.address4
  await server.agent.run(
    async (ctx, options) => {
      ctx.state.listener = await ctx.faketcp.listen(options)
      ctx.state.listener.on('connection', (conn: FakeTcpConn) => {
        ctx.state.conns.push(conn.on('error', () => {}))
        ctx.emit('connection')
      })
    },
    { host, port: PORT },
  )
  const { id } = await client.dial({ host, port: PORT })
  await server.agent.next('connection')
  await client.write(id, 'early', 'earlier still')
  await expect.poll(async () => (await server.stats(0)).messagesIn).toBe(2)
  await listenToTrains(server, 0)
  await client.write(id, 'late')
  expect(await messagesOf(server, 3)).toEqual(['early', 'earlier still', 'late'])
})

it('what a paused stream had taken in already comes by train too, once the data listener has gone', async () => {
  const ids = await connected()
  await server.agent.run((ctx, id) => {
    const conn: FakeTcpConn = ctx.state.conns[id]
    conn.pause()
    conn.removeAllListeners('data')
  }, ids.server)
  // More than the readable side buffers itself (64), so that some wait there and some in front of it.
  const messages = numbered(100, 20)
  await client.write(ids.client, ...messages)
  await expect.poll(async () => (await server.stats(ids.server)).messagesIn).toBe(100)
  await listenToTrains(server, ids.server)
  await client.write(ids.client, 'the next one')
  expect(await messagesOf(server, 101)).toEqual([...messages, 'the next one'])
})

it("end comes to a connection that is read by train, and 'data' does not", async () => {
  const ids = await connected()
  await listenToTrains(server, ids.server)
  await sendTrain(client, ids.client, 'aabb', 2)
  expect(await messagesOf(server, 2)).toEqual(['aa', 'bb'])
  await client.close(ids.client)
  expect(await server.next('end')).toBe(ids.server)
  expect(await server.next('closed')).toEqual({ id: ids.server, code: undefined })
  await expect(server.agent.next('message', { timeoutMs: 50 })).rejects.toThrow(/emitted no/)
})

it("when the last listener to 'train' goes, messages come by 'data' again", async () => {
  const ids = await connected()
  await listenToTrains(server, ids.server)
  await sendTrain(client, ids.client, 'aabb', 2)
  expect(await messagesOf(server, 2)).toEqual(['aa', 'bb'])
  await server.agent.run((ctx, id) => {
    const conn: FakeTcpConn = ctx.state.conns[id]
    const other = () => {}
    conn.on('train', other)
    conn.off('train', ctx.state.onTrain)
    conn.off('train', other)
  }, ids.server)
  await sendTrain(client, ids.client, 'ccdd', 2)
  expect([(await server.next('message')).text, (await server.next('message')).text]).toEqual(['cc', 'dd'])
  await listenToTrains(server, ids.server)
  await sendTrain(client, ids.client, 'eeff', 2)
  expect(await messagesOf(server, 2)).toEqual(['ee', 'ff'])
})

it('an exception in a train listener surfaces, and costs no other train', async () => {
  const ids = await connected()
  await server.agent.run((ctx, id) => {
    ctx.state.conns[id].on('train', ({ buffer }: { buffer: Buffer }) => {
      ctx.emit('train', { text: buffer.toString(), segmentSize: 2, count: buffer.length / 2 })
      if (buffer.toString() === 'bad!') throw new Error('the listener failed')
    })
  }, ids.server)
  await client.agent.run((ctx, id) => {
    const conn: FakeTcpConn = ctx.state.conns[id]
    conn.sendTrain(Buffer.from('bad!'), 2)
    conn.write('longer')
    conn.sendTrain(Buffer.from('good'), 2)
  }, ids.client)
  const texts = [await nextTrain(server), await nextTrain(server), await nextTrain(server)].map(({ text }) => text)
  expect(texts).toEqual(['bad!', 'longer', 'good'])
  await expect.poll(() => server.agent.errors.map(({ message }) => message)).toEqual(['the listener failed'])
  server.agent.errors.splice(0)
})
