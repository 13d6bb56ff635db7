// The kernel refuses the packet link in the middle of what one flow sends in one tick: the rest goes by the other link, and nobody crashes.
import { expect, it } from 'vitest'
import type { FakeTcpConn } from '../../lib/index.ts'
import { twoHosts } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191
/** More packets than an outbox holds, so that the flow is still filling it when the first are refused. */
const MESSAGES = 600

it.each([4, 6] as const)('a device that goes down within a tick costs the messages of that tick at most (IPv%s)', async (family) => {
  await using hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: PORT })
  // Without a hello every message is a packet of its own.
  const { id } = await client.dial({ host, port: PORT, dialect: 'tcpraw' })
  await server.next('connection')
  await client.write(id, 'before')
  expect((await server.next('message')).text).toBe('before')
  await expect.poll(async () => (await client.stats(id)).link).toBe('packet')

  // Synchronously: the news of the device is still unread when the messages leave.
  await client.agent.run(
    async (ctx, { id, count }) => {
      const conn: FakeTcpConn = ctx.state.conns[id]
      const { execFileSync } = await ctx.import<typeof import('node:child_process')>('node:child_process')
      execFileSync('ip', ['link', 'set', 'dev', 'eth0', 'down'])
      await new Promise<void>((resolve) => {
        for (let i = 0; i < count; i++) conn.write('lost', i === count - 1 ? () => resolve() : undefined)
      })
    },
    { id, count: MESSAGES },
  )
  expect(client.agent.errors.map(({ message }) => message)).toEqual([])
  expect(await client.stats(id)).toMatchObject({ link: 'raw', messagesOut: MESSAGES + 1 })

  await hosts.a.output('ip', ['link', 'set', 'dev', 'eth0', 'up'])
  if (family === 6) await hosts.a.addAddress(`${hosts.a.address6}/64`)
  await expect
    .poll(
      async () => {
        await client.write(id, 'after')
        return (await server.stats(0)).messagesIn
      },
      { timeout: 15_000, interval: 100 },
    )
    .toBeGreaterThan(1)
})
