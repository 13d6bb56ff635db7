// What an application may do with the messages it was given: keep them. They are never written again, and a small one that is kept keeps little
// else alive; lib/message-arena.ts states the rule.
import { expect, it } from 'vitest'
import type { FakeTcpConn } from '../../lib/index.ts'
import { twoHosts } from '../support/hosts.ts'
import { bulk } from './bulk-job.ts'
import { Peer } from './peer.ts'

const PORT = 9191
/** lib/message-arena.ts */
const BLOCK = 16 << 10

async function connected(hosts: Awaited<ReturnType<typeof twoHosts>>) {
  const [server, client] = [await Peer.on(hosts.b, { nodeArgs: ['--expose-gc'] }), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: PORT })
  const { id } = await client.dial({ host: hosts.b.address4, port: PORT })
  await server.next('connection')
  return { server, client, id }
}

it.each(['message', 'train'] as const)('messages that are kept are never written again (read by %s)', async (by) => {
  await using hosts = await twoHosts()
  const { server, client, id } = await connected(hosts)
  // A thousand times as many follow, on the same memory if it were used again.
  const messages = 200_000
  for (const size of [64, 700]) {
    const result = await bulk({ from: client, id }, { to: server, id: 0 }, { messages, size, by, keepEvery: 1000 })
    expect(result).toEqual({ intact: messages, corrupt: 0, doubled: 0, lost: 0 })
  }
  const { kept, changed } = await server.agent.run((ctx) => ({
    kept: ctx.state.kept.length as number,
    changed: ctx.state.kept.filter(([message, copy]: [Buffer, Buffer]) => !message.equals(copy)).length as number,
  }))
  expect(kept).toBe(400)
  expect(changed).toBe(0)
})

it.each([
  { size: 64, most: BLOCK },
  { size: 1400, most: 64 * 1400 },
])('one message of $size bytes kept out of every thousand keeps no more than $most bytes', async ({ size, most }) => {
  await using hosts = await twoHosts()
  const { server, client, id } = await connected(hosts)
  await server.agent.run((ctx) => {
    ctx.state.kept = []
    ctx.state.number = 0
  })
  const before = await arrayBuffers(server)
  await server.agent.run((ctx) => {
    const conn: FakeTcpConn = ctx.state.conns[0]
    conn.removeAllListeners('data')
    conn.on('data', (message) => {
      if (ctx.state.number++ % 1000 === 0) ctx.state.kept.push(message)
      // The sender waits for these.
      if (ctx.state.number % 100 === 0) conn.write('more')
    })
  })
  const messages = 100_000
  await client.agent.run(
    (ctx, { id, size, messages }) =>
      new Promise<void>((resolve) => {
        const conn: FakeTcpConn = ctx.state.conns[id]
        conn.removeAllListeners('data')
        let sent = 0
        const send = () => {
          for (let i = 0; i < 100 && sent < messages; i++, sent++) conn.write(Buffer.alloc(size, sent))
        }
        let heard = 0
        conn.on('data', () => (++heard * 100 >= messages ? resolve() : send()))
        send()
      }),
    { id, size, messages },
  )
  const after = await arrayBuffers(server)
  const kept = await server.agent.run((ctx) => ctx.state.kept.length as number)
  expect(kept).toBe(messages / 1000)
  // Beside what is kept there is the block in use, and what was not collected.
  const slack = 1 << 20
  expect(after - before).toBeLessThanOrEqual(kept * most + slack)
  // It is measured at all: the kept ones are there.
  expect(after - before).toBeGreaterThan(kept * size)

  await server.agent.run((ctx) => {
    ctx.state.kept = []
  })
  expect(await arrayBuffers(server)).toBeLessThanOrEqual(before + slack)
})

/** Bytes of live buffers, collected as far as that goes. */
function arrayBuffers(peer: Peer): Promise<number> {
  return peer.agent.run(async () => {
    let least = Number.POSITIVE_INFINITY
    for (let i = 0; i < 5; i++) {
      globalThis.gc?.()
      await new Promise((resolve) => setImmediate(resolve))
      least = Math.min(least, process.memoryUsage().arrayBuffers)
    }
    return least
  })
}
