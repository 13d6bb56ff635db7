// A connection over a channel of the test's own: how arriving trains become 'data' and 'train' events, and what they keep alive.
import { setImmediate as turn } from 'node:timers/promises'
import { afterEach, expect, it } from 'vitest'
import { type ConnOptions, FakeTcpConn, type Train } from '../../lib/conn.ts'
import { MessageArena } from '../../lib/message-arena.ts'
import type { Channel, ChannelSink } from '../../lib/transport.ts'

const OPTIONS = {
  writableHighWaterMark: 1 << 18,
  readableHighWaterMark: 64,
  receiveQueueBytes: 1 << 20,
  oversize: 'error',
  allowHalfOpen: true,
} satisfies ConnOptions

const conns: FakeTcpConn[] = []
afterEach(() => {
  for (const conn of conns.splice(0)) conn.destroy()
})

/** A connection, and a function that lets a train arrive on it. */
function connected(receiveQueueBytes = OPTIONS.receiveQueueBytes): {
  conn: FakeTcpConn
  arrive: (text: string, segment: number, header?: number) => void
} {
  let sink: ChannelSink | undefined
  const channel: Partial<Channel> = {
    attach: (one) => {
      sink = one
    },
    release: () => {},
    countDrop: () => {},
    drained: () => {},
  }
  const conn = new FakeTcpConn(channel as Channel, new MessageArena(), { ...OPTIONS, receiveQueueBytes })
  FakeTcpConn.start(conn)
  conns.push(conn)
  return {
    conn,
    arrive: (text, segment, header = 0) => {
      const memory = Buffer.from(`..${text}`)
      sink?.onTrain(memory, 2, text.length, segment, header)
      memory.fill(0)
    },
  }
}

it("messages that waited when a listener came for one 'train' only are not lost", async () => {
  const { conn, arrive } = connected()
  arrive('aabb', 2)
  arrive('cc', 2)
  const trains: string[] = []
  conn.once('train', ({ buffer }) => trains.push(String(buffer)))
  await turn()
  const messages: string[] = []
  conn.on('data', (message) => messages.push(String(message)))
  await turn()
  arrive('dd', 2)
  expect([trains, messages]).toEqual([['aa'], ['bb', 'cc', 'dd']])
})

it("what the transport has put before each message is not the application's", async () => {
  const { conn, arrive } = connected()
  const messages: string[] = []
  const onData = (message: Buffer) => messages.push(String(message))
  conn.on('data', onData)
  arrive('--aa--bb--c', 4, 2)
  arrive('--dd', 9, 2)
  arrive('--', 9, 2)
  await turn()
  expect(messages).toEqual(['aa', 'bb', 'c', 'dd', ''])
  conn.off('data', onData)
  const trains: Train[] = []
  conn.on('train', (train) => trains.push(train))
  await turn()
  arrive('--aa--bb--c', 4, 2)
  arrive('--dd', 9, 2)
  arrive('------', 2, 2)
  expect(trains.map(({ buffer, segmentSize, count }) => [String(buffer), segmentSize, count])).toEqual([
    ['aabbc', 2, 3],
    ['dd', 2, 1],
    ['', 0, 3],
  ])
})

it('a message alone, and the first of a train, begin on an 8-byte boundary, whatever header they came behind', async () => {
  const { conn, arrive } = connected()
  const offsets: number[] = []
  conn.on('data', (message) => offsets.push(message.byteOffset % 8))
  arrive('-----aaa-----bbb', 8, 5)
  arrive('-----aaa', 8, 5)
  arrive(`-----${'x'.repeat(20_000)}`, 30_000, 5)
  arrive('aaa', 8)
  await turn()
  expect(offsets).toEqual([0, 0, 0, 0, 0])
})

it('of more messages than the readable side takes in, too', async () => {
  const { conn, arrive } = connected()
  const sent = Array.from({ length: 500 }, (_, i) => String(i).padEnd(4))
  for (const text of sent) arrive(text, 4)
  const seen: string[] = []
  const onTrain = ({ buffer }: Train) => {
    seen.push(String(buffer))
    if (seen.length === 100) conn.off('train', onTrain)
  }
  conn.on('train', onTrain)
  await turn()
  expect(seen).toEqual(sent.slice(0, 100))
  conn.on('data', (message) => seen.push(String(message)))
  await turn()
  expect(seen).toEqual(sent)
})

it.each([undefined, 'newListener'])("a listener to 'train' is served after removeAllListeners(%s), too", async (event) => {
  const { conn, arrive } = connected()
  conn.on('removeListener', () => {}) // with one of these Node removes listeners one by one
  if (event === undefined) conn.removeAllListeners()
  else conn.removeAllListeners(event)
  expect(conn.listenerCount('removeListener')).toBe(event === undefined ? 0 : 1)
  const seen: string[] = []
  conn.on('train', ({ buffer, count }) => seen.push(`${count} ${buffer}`))
  await turn()
  arrive('aabb', 2)
  expect(seen).toEqual(['2 aabb'])
})

it("'train' comes no more once the connection is destroyed", async () => {
  const { conn, arrive } = connected()
  arrive('aabbcc', 2)
  const seen: string[] = []
  conn.on('train', ({ buffer }) => {
    seen.push(String(buffer))
    conn.destroy()
  })
  await turn()
  arrive('dd', 2)
  expect(seen).toEqual(['aa'])
})

it("nor does 'data', in the middle of a train", async () => {
  const { conn, arrive } = connected()
  const seen: string[] = []
  conn.on('data', (message) => {
    seen.push(String(message))
    conn.destroy()
  })
  await turn()
  arrive('aabbcc', 2)
  await turn()
  expect(seen).toEqual(['aa'])
})

it('the shorter last message of a long train does not keep the train', () => {
  const { conn, arrive } = connected()
  const messages: Buffer[] = []
  conn.on('data', (message) => messages.push(message))
  conn.read(0)
  arrive(`${'x'.repeat(45 * 1400)}yy`, 1400)
  expect(messages.map(({ length }) => length)).toEqual([...Array(45).fill(1400), 2])
  expect(String(messages[45])).toBe('yy')
  expect(messages[44].buffer.byteLength).toBeLessThanOrEqual(64 * 1400)
  expect(messages[45].buffer.byteLength).toBeLessThanOrEqual(16 << 10)
})

it('a tap gets what has waited, then every train where it lies, and nobody else gets any', async () => {
  const { conn, arrive } = connected()
  arrive('aabb', 2)
  const tapped: string[] = []
  const others: string[] = []
  conn.on('train', ({ buffer }) => others.push(String(buffer)))
  FakeTcpConn.tap(conn, (memory, offset, length, segment) => {
    tapped.push(`${Buffer.from(memory.subarray(offset, offset + length))}/${segment}`)
  })
  arrive('ccddee', 2)
  await turn()
  arrive('f', 1)
  expect([tapped, others]).toEqual([['aa/2', 'bb/2', 'ccddee/2', 'f/1'], []])
})

it('each message that finds the receive queue full is told of, an empty one too', () => {
  const { conn, arrive } = connected(128)
  const sizes: number[] = []
  conn.on('drop', ({ reason, size }) => sizes.push(reason === 'receive-queue' ? size : Number.NaN))
  arrive('', 0)
  expect(sizes).toEqual([])
  arrive('', 0)
  arrive('aabbc', 2)
  expect(sizes).toEqual([0, 2, 2, 1])
})
