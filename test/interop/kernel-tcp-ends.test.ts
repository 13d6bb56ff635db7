// Dialect 'tcp': how connections with ordinary TCP servers begin and end, and what is lost for good.
import { expect, it } from 'vitest'
import { type ConnInfo, Peer, type PeerDialOptions } from '../e2e/peer.ts'
import type { Agent } from '../support/agent.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { drop, dropped, routed, serve } from './kernel-tcp.ts'

const PORT = 9191

/** A connection to a server that does what the test says. */
async function connected(
  hosts: { a: Host; b: Host },
  options: Partial<PeerDialOptions> = {},
): Promise<{ client: Peer; server: Agent } & ConnInfo> {
  const server = await hosts.b.agent()
  await serve(server, { host: hosts.b.address4, port: PORT }, { is: 'hold' })
  const client = await Peer.on(hosts.a)
  const info = await client.dial({ host: hosts.b.address4, port: PORT, dialect: 'tcp', ...options })
  await server.next('socket')
  return { client, server, ...info }
}

/** Has the server call a method of its socket. */
function tell(server: Agent, method: 'end' | 'resetAndDestroy', ...args: string[]): Promise<void> {
  return server.run(
    (ctx, { method, args }) => {
      ctx.state.socket[method](...args)
    },
    { method, args },
  )
}

it.each([{ where: 'on another host' }, { where: 'on the same host' }] as const)(
  'what a server $where says first arrives once, and so does the answer',
  async ({ where }) => {
    await using hosts = await twoHosts()
    const server = await hosts.b.agent()
    await serve(server, { host: hosts.b.address4, port: PORT }, { is: 'hold', greeting: '220 ready' })
    const client = await Peer.on(where === 'on the same host' ? hosts.b : hosts.a)
    const { id } = await client.dial({ host: hosts.b.address4, port: PORT, dialect: 'tcp' })
    expect(await client.next('message')).toEqual({ id, text: '220 ready' })
    await client.write(id, 'QUIT')
    expect(await server.next('socket data')).toBe('QUIT')
    await server.next('socket')
    await tell(server, 'end', '221 bye')
    expect(await client.next('message')).toEqual({ id, text: '221 bye' })
    expect(await client.next('closed')).toEqual({ id, code: undefined })
  },
)

it('a segment of ours that is lost ends the connection with ERR_FAKETCP_STALLED, and resets the server', async () => {
  await using hosts = await routed()
  const { client, server, id } = await connected(hosts)
  await client.write(id, 'arrives')
  expect(await server.next('socket data')).toBe('arrives')
  await drop(hosts.r, `tcp dport ${PORT} meta length > 100 limit rate 1/day burst 1 packets`)
  await client.write(id, 'x'.repeat(1000), 'overtaken')
  expect(await client.next('closed')).toEqual({ id, code: 'ERR_FAKETCP_STALLED' })
  expect(await server.next('socket error')).toBe('ECONNRESET')
  expect(await dropped(hosts.r)).toBe(1)
})

it('the server closes: the stream ends in good order', async () => {
  await using hosts = await twoHosts()
  const { client, server, id } = await connected(hosts)
  await tell(server, 'end', 'farewell')
  expect(await client.next('message')).toEqual({ id, text: 'farewell' })
  expect(await client.next('end')).toBe(id)
  expect(await client.next('closed')).toEqual({ id, code: undefined })
  await server.next('socket closed')
})

it('the server ends its half: ours can still be written', async () => {
  await using hosts = await twoHosts()
  const { client, server, id } = await connected(hosts, { allowHalfOpen: true })
  await tell(server, 'end')
  expect(await client.next('end')).toBe(id)
  await client.write(id, 'still here')
  expect(await server.next('socket data')).toBe('still here')
  await client.close(id)
  await server.next('socket closed')
})

it('we end our half: what the server says afterwards still arrives', async () => {
  await using hosts = await twoHosts()
  const { client, server, id } = await connected(hosts)
  await client.agent.run((ctx, id) => {
    ctx.state.conns[id].end('question')
  }, id)
  expect(await server.next('socket data')).toBe('question')
  await server.next('socket end')
  await tell(server, 'end', 'answer')
  expect(await client.next('message')).toEqual({ id, text: 'answer' })
  expect(await client.next('closed')).toEqual({ id, code: undefined })
  await server.next('socket closed')
})

it('the server resets: the connection ends with ECONNRESET', async () => {
  await using hosts = await twoHosts()
  const { client, server, id } = await connected(hosts)
  await tell(server, 'resetAndDestroy')
  expect(await client.next('closed')).toEqual({ id, code: 'ECONNRESET' })
})

it('a connection that is destroyed resets the server', async () => {
  await using hosts = await twoHosts()
  const { client, server, id } = await connected(hosts)
  await client.write(id, 'before')
  await server.next('socket data')
  await client.destroy(id)
  expect(await server.next('socket error')).toBe('ECONNRESET')
})

it('a server that goes on sending after close() is reset', async () => {
  await using hosts = await twoHosts()
  const { client, server, id } = await connected(hosts)
  await server.run((ctx) => {
    const { socket } = ctx.state
    const more = () => {
      while (!socket.destroyed && socket.write(Buffer.alloc(65536)));
    }
    socket.on('drain', more)
    more()
  })
  await client.close(id)
  expect(await server.next('socket error')).toMatch(/^(ECONNRESET|EPIPE)$/)
})

it('carries an HTTP request', async () => {
  await using hosts = await twoHosts()
  const server = await hosts.b.agent()
  await server.run(
    async (_, { host, port }) => {
      const http = await import('node:http')
      const web = http.createServer((request, response) => response.end(`${request.method} ${request.url} ${'.'.repeat(100_000)}`))
      await new Promise<void>((resolve) => web.listen(port, host, resolve))
    },
    { host: hosts.b.address4, port: PORT },
  )
  const client = await hosts.a.agent()
  const page = await client.run(async (ctx, address) => {
    const conn = await ctx.faketcp.dial(address, { dialect: 'tcp' })
    conn.write('GET /path HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n')
    const chunks = []
    for await (const chunk of conn) chunks.push(chunk)
    return Buffer.concat(chunks).toString()
  }, `${hosts.b.address4}:${PORT}`)
  expect(page).toMatch(/^HTTP\/1.1 200 OK\r\n/)
  expect(page).toMatch(/GET \/path \.{100000}$/)
})
