// The batch interface over UDP makes no object for each message: a million of them, while no garbage is collected, so that the heap shows all that was made.
import { expect, it } from 'vitest'
import type { FakeTcpConn } from '../../lib/index.ts'
import { twoHosts } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const MESSAGES = 1_000_000
/** Bytes of the smallest object; what trains and compilers take is spread over all messages. */
const SMALLEST = 12
/** Small, as the trains' own memory beyond the heap would have garbage collected, too. */
const SIZE = 16
/** Room for a hundred times what is expected, before anything is collected. */
const nodeArgs = ['--expose-gc', '--min-semi-space-size=256', '--max-semi-space-size=256']

it('a million messages cost less heap each than any object takes, at either end', async () => {
  await using hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b, { transport: 'udp', nodeArgs }), await Peer.on(hosts.a, { transport: 'udp', nodeArgs })]
  await server.listen({ host: hosts.b.address4, port: PORT, receiveBufferBytes: 64 << 20 })
  const { id } = await client.dial({ host: hosts.b.address4, port: PORT })
  await server.next('connection')
  await Promise.all(
    [server, client].map((peer) =>
      peer.agent.run(async (ctx) => {
        const { PerformanceObserver } = await ctx.import<typeof import('node:perf_hooks')>('node:perf_hooks')
        const { state } = ctx
        state.begin = () => {
          globalThis.gc?.()
          state.collections = 0
          state.heap = process.memoryUsage().heapUsed
          state.observer = new PerformanceObserver((list) => {
            state.collections += list.getEntries().length
          })
          state.observer.observe({ entryTypes: ['gc'] })
        }
        state.made = async () => {
          const bytes = process.memoryUsage().heapUsed - state.heap
          await new Promise(setImmediate) // observers are told a turn later
          state.observer.disconnect()
          return { bytes, collections: state.collections }
        }
        const conn: FakeTcpConn = state.conns[0]
        conn.removeAllListeners('data')
        state.received = 0
        conn.on('train', ({ count }) => {
          state.received += count
        })
      }),
    ),
  )
  const send = (count: number) =>
    client.agent.run(
      async (ctx, { id, size, count }) => {
        const conn: FakeTcpConn = ctx.state.conns[id]
        const train = Buffer.alloc(4096 * size)
        const next = (left: number, done: () => void): void => {
          if (left <= 0) done()
          else conn.sendTrain(train.subarray(0, Math.min(left, 4096) * size), size, () => setImmediate(next, left - 4096, done))
        }
        await new Promise<void>((done) => next(count, done))
      },
      { id, size: SIZE, count },
    )
  // Compilers, and whatever is made once.
  await send(200_000)
  await Promise.all([server, client].map((peer) => peer.agent.run((ctx) => ctx.state.begin())))
  const before = await server.agent.run((ctx) => ctx.state.received as number)
  await send(MESSAGES)
  const [out, into] = await Promise.all(
    [client, server].map((peer) => peer.agent.run((ctx) => ctx.state.made() as Promise<{ bytes: number; collections: number }>)),
  )
  const received = (await server.agent.run((ctx) => ctx.state.received as number)) - before
  expect(received).toBeGreaterThan(MESSAGES / 2)
  expect([out.collections, into.collections]).toEqual([0, 0])
  expect(out.bytes / MESSAGES).toBeLessThan(SMALLEST / 2)
  expect(into.bytes / received).toBeLessThan(SMALLEST / 2)
})
