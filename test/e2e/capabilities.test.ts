// What a process may do with which capability. Where the kernel keeps filters on TCP sockets for CAP_NET_ADMIN, CAP_NET_RAW alone must do all the same.
import { expect, it } from 'vitest'
import type { Agent } from '../support/agent.ts'
import { capture } from '../support/capture.ts'
import { twoHosts } from '../support/hosts.ts'
import { expectNothingLeft, held } from './leftovers.ts'
import { Peer } from './peer.ts'

type Hosts = Awaited<ReturnType<typeof twoHosts>>

/** An echo server on port 9191 that tells what its connections see. */
async function serve(server: Agent, host: string): Promise<void> {
  await server.run(async (ctx, host) => {
    const listener = await ctx.faketcp.listen({ host, port: 9191 })
    listener.on('connection', (conn) => {
      ctx.emit('guard', conn.stats.guard)
      conn.on('data', (message) => conn.write(message))
      conn.on('error', (error) => ctx.emit('lost', (error as NodeJS.ErrnoException).code))
    })
  }, host)
}

/** Dials and sends 2 000 messages at once, so that some arrive before the server has accepted; resolves with what came back. */
async function echo(client: Agent, host: string): Promise<{ guard: string; echoed: number; intact: boolean }> {
  return client.run(async (ctx, host) => {
    const conn = await ctx.faketcp.dial({ host, port: 9191 })
    ctx.state.conn = conn
    const seen = new Set<number>()
    let intact = true
    const all = new Promise<void>((resolve) => {
      conn.on('data', (message) => {
        const number = message.readUInt32BE()
        intact &&= message.length === 4 + (number % 100) && message.subarray(4).every((byte) => byte === (number & 255))
        if (seen.add(number).size === 2000) resolve()
      })
    })
    for (let number = 0; number < 2000; number++) {
      const message = Buffer.alloc(4 + (number % 100), number & 255)
      message.writeUInt32BE(number)
      conn.write(message)
    }
    await all
    return { guard: conn.stats.guard, echoed: seen.size, intact }
  }, host)
}

it.each([
  ['IPv4', (hosts: Hosts) => [hosts.b.address4, hosts.b.address4]],
  ['IPv6', (hosts: Hosts) => [hosts.b.address6, hosts.b.address6]],
  ['IPv4 on a listener of every address', (hosts: Hosts) => ['::', hosts.b.address4]],
] as const)('with CAP_NET_RAW alone every message is echoed and the kernels stay mute: %s', async (_, addresses) => {
  await using hosts = await twoHosts({ offloads: false })
  const [listenOn, dialTo] = addresses(hosts)
  await using recording = await capture(hosts.b, { filter: 'tcp port 9191' })
  const server = await hosts.b.agent({ capabilities: 'net_raw' })
  const client = await hosts.a.agent({ capabilities: 'net_raw' })
  await serve(server, listenOn)
  const result = await echo(client, dialTo)
  expect(result).toMatchObject({ echoed: 2000, intact: true })
  // The same guard on both sides: it is the kernel that decides.
  expect(await server.next('guard')).toBe(result.guard)
  await client.run((ctx) => ctx.state.conn.close())
  await recording.stop()
  const segments = await recording.segments()
  expect(segments.filter(({ flags }) => flags.includes('R'))).toEqual([])
})

it('with CAP_NET_RAW alone a killed process is noticed at once by the other side', async () => {
  await using hosts = await twoHosts()
  const server = await hosts.b.agent({ capabilities: 'net_raw' })
  const client = await hosts.a.agent({ capabilities: 'net_raw' })
  await serve(server, hosts.b.address4)
  await echo(client, hosts.b.address4)
  await client.kill('SIGKILL')
  expect(await server.next('lost')).toBe('ECONNRESET')
})

it('without any capability both verbs are refused with a hint', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent({ capabilities: 'none' })
  const refusals = await agent.run(async (ctx, host) => {
    const results = await Promise.allSettled([ctx.faketcp.dial({ host, port: 9191 }), ctx.faketcp.listen({ host: '127.0.0.1', port: 0 })])
    return results.map((result) =>
      result.status === 'rejected' ? { code: result.reason.code, message: result.reason.message } : undefined,
    )
  }, hosts.b.address4)
  for (const refusal of refusals) {
    expect(refusal?.code).toBe('EPERM')
    expect(refusal?.message).toContain('CAP_NET_RAW')
  }
})

it.each([undefined, { index: 0, count: 1 }])(
  'a peer that resets its connection before it is accepted costs nothing (shard: %j)',
  async (shard) => {
    await using hosts = await twoHosts()
    const { b } = hosts
    const server = await Peer.on(b, { capabilities: 'net_raw' })
    const before = await held(server)
    await server.listen({ host: b.address4, port: 9191, echo: true, ...(shard && { shard }) })
    // While the child runs, this process accepts nothing.
    const code = await server.agent.run(async (ctx, host) => {
      const { spawnSync } = await ctx.import<typeof import('node:child_process')>('node:child_process')
      const script = `
      const sockets = Array.from({ length: 4 }, () => require('node:net').connect(9191, '${host}'))
      for (const socket of sockets) socket.on('connect', () => socket.resetAndDestroy()).on('error', () => {})`
      return spawnSync(process.execPath, ['-e', script]).status
    }, b.address4)
    expect(code).toBe(0)
    await using client = await Peer.on(hosts.a)
    const { id } = await client.dial({ host: b.address4, port: 9191 })
    await client.write(id, 'still there')
    expect(await client.next('message')).toEqual({ id, text: 'still there' })
    await client.close(id)
    await server.closeListener()
    await expectNothingLeft(server, before)
    expect(server.agent.errors).toEqual([])
  },
)
