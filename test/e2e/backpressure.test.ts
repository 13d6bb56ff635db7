// A device that is slower than the application: the kernel's buffer fills, what has not gone waits in the outbox, and goes on where it stopped,
// also in the middle of a train. Nothing is lost, and nothing is sent twice.
import { expect, it } from 'vitest'
import type { FakeTcpConn } from '../../lib/index.ts'
import { twoHosts } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191
/** Several times the socket's buffer. */
const MESSAGES = 12_000
const SIZE = 1000

it.each([
  { link: 'packet', family: 4, by: 'message' },
  { link: 'packet', family: 6, by: 'train' },
  { link: 'packet', family: 4, by: 'train' },
  { link: 'raw', family: 4, by: 'train' },
  { link: 'raw', family: 6, by: 'message' },
  { link: 'udp', family: 4, by: 'train' },
  { link: 'udp', family: 6, by: 'message' },
] as const)('by $link over IPv$family, by $by: all of it arrives once', async ({ link, family, by }) => {
  await using hosts = await twoHosts()
  const options = link === 'udp' ? ({ transport: 'udp' } as const) : {}
  const [server, client] = [await Peer.on(hosts.b, options), await Peer.on(hosts.a, options)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: PORT })
  // Room in the stream for all of it, so that it is the kernel that is full.
  const { id } = await client.dial({ host, port: PORT, ...(link === 'udp' ? {} : { link }), writableHighWaterMark: 2 * MESSAGES * SIZE })
  await server.next('connection')
  await expect.poll(async () => (await client.stats(id)).dialect).toBe('native')
  // The queue holds more than the socket may have under way, so that the socket, not the queue, says that there is no room.
  await hosts.a.output('tc', ['qdisc', 'add', 'dev', 'eth0', 'root', 'tbf', 'rate', '60mbit', 'burst', '128kb', 'limit', '64mb'])
  await server.agent.run((ctx, total) => {
    const conn: FakeTcpConn = ctx.state.conns[0]
    ctx.state.numbers = []
    conn.removeAllListeners('data')
    conn.on('data', (message) => {
      ctx.state.numbers.push(message.length === 1000 ? message.readUInt32LE(0) : -1)
      if (ctx.state.numbers.length === total) ctx.emit('all')
    })
  }, MESSAGES)
  const atOnce = await client.agent.run(
    async (ctx, { id, by, count, size }) => {
      const conn: FakeTcpConn = ctx.state.conns[id]
      const bytes = Buffer.alloc(count * size)
      for (let i = 0; i < count; i++) bytes.writeUInt32LE(i, i * size)
      let taken = false
      const done = new Promise<void>((resolve) => {
        const end = () => {
          taken = true
          resolve()
        }
        if (by === 'train') conn.sendTrain(bytes, size, end)
        else for (let i = 0; i < count; i++) conn.write(bytes.subarray(i * size, (i + 1) * size), i === count - 1 ? end : undefined)
      })
      // Had the kernel taken everything in one go, nothing would be proved: the device needs more than a second for all of it.
      await new Promise((resolve) => setTimeout(resolve, 20))
      const atOnce = taken
      await done
      return atOnce
    },
    { id, by, count: MESSAGES, size: SIZE },
  )
  expect(atOnce).toBe(false)
  await server.agent.next('all', { timeoutMs: 20_000 })
  // Sorted: behind the queue two CPUs pass packets on, and neighbours in order may overtake each other between the ends of the veth pair.
  const numbers = (await server.agent.run((ctx) => ctx.state.numbers)) as number[]
  expect(numbers.sort((one, other) => one - other)).toEqual(Array.from({ length: MESSAGES }, (_, i) => i))
  expect(await client.stats(id)).toMatchObject({ link, messagesOut: MESSAGES, droppedOut: 0 })
  expect(await server.stats(0)).toMatchObject({ messagesIn: MESSAGES, droppedIn: 0 })
})

it('a slow interface holds back nobody who leaves by another', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const [, far] = await hosts.network.link(a, b)
  const [server, client] = [await Peer.on(b), await Peer.on(a)]
  await server.listen({ host: '0.0.0.0', port: PORT, echo: true })
  const slow = await client.dial({ host: b.address4, port: PORT, writableHighWaterMark: 64 << 20 })
  const other = await client.dial({ host: far.address4, port: PORT })
  for (const { id } of [slow, other]) await expect.poll(async () => (await client.stats(id)).dialect).toBe('native')
  expect([(await client.stats(slow.id)).link, (await client.stats(other.id)).link]).toEqual(['packet', 'packet'])
  // What is written now takes ten times as long as this test has.
  await a.output('tc', ['qdisc', 'add', 'dev', 'eth0', 'root', 'tbf', 'rate', '400kbit', 'burst', '128kb', 'limit', '64mb'])
  await client.agent.run((ctx, id) => {
    ctx.state.conns[id].sendTrain(Buffer.alloc(12_000 * 1000), 1000)
  }, slow.id)
  await client.write(other.id, 'by the other')
  let message = await client.next('message')
  while (message.id !== other.id) message = await client.next('message')
  expect(message.text).toBe('by the other')
  expect(await client.agent.run((ctx, id) => ctx.state.conns[id].writableLength, slow.id)).toBeGreaterThan(0)
})
