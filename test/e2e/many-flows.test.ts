// Many connections of one process at once.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { expectExit, expectNothingLeft, held } from './leftovers.ts'
import { Peer } from './peer.ts'

const FLOWS = 500
const MESSAGES = 20

it.each(['packet', 'raw'] as const)(
  '500 connections at once echo 20 messages each and leave nothing behind (captured by %s)',
  async (capture) => {
    await using hosts = await twoHosts()
    const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
    await client.agent.run((ctx) => ctx.faketcp.dial('127.0.0.1:1').catch(() => {}))
    const before = await held(client)
    await server.agent.run(
      async (ctx, options) => {
        ctx.state.table = ctx.faketcp.createFlowTable()
        ctx.state.listener = await ctx.faketcp.listen({ ...options, table: ctx.state.table })
        ctx.state.listener.on('connection', (conn: import('node:stream').Duplex) => {
          conn.on('error', (error) => ctx.emit('error', error.message))
          conn.on('data', (message) => conn.write(message))
        })
      },
      { host: '::', port: 9191, capture },
    )

    const result = await client.agent.run(
      async (ctx, { hosts, flows, messages, capture }) => {
        const table = ctx.faketcp.createFlowTable()
        ctx.state.table = table
        const conns = await Promise.all(
          Array.from({ length: flows }, (_, i) => ctx.faketcp.dial({ host: hosts[i % hosts.length], port: 9191, table, capture })),
        )
        const flowsOpen = table.size
        const wrong: string[] = []
        await Promise.all(
          conns.map(
            (conn, i) =>
              new Promise<void>((resolve, reject) => {
                let next = 0
                conn.on('error', reject)
                conn.on('data', (message) => {
                  const text = message.toString()
                  if (text !== `flow ${i} message ${next++}`) wrong.push(`${i}: ${text}`)
                  if (next === messages) resolve()
                  else conn.write(`flow ${i} message ${next}`)
                })
                conn.write(`flow ${i} message 0`)
              }),
          ),
        )
        await Promise.all(conns.map((conn) => conn.close()))
        return { flowsOpen, wrong }
      },
      { hosts: [hosts.b.address4, hosts.b.address6], flows: FLOWS, messages: MESSAGES, capture },
    )

    expect(result).toEqual({ flowsOpen: FLOWS, wrong: [] })
    await expectNothingLeft(client, before)
    await expectExit(client)
    await expect.poll(() => server.flows(), { timeout: 10_000 }).toBe(0)
    expect(await hosts.b.output('ss', ['-H', '-n', '-t', '-a', 'exclude', 'listening'])).toBe('')
  },
)
