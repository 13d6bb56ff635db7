// The first moments of a flow, when things can overtake each other or get lost.
import { expect, it } from 'vitest'
import { capture } from '../support/capture.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { Peer } from './peer.ts'

const PORT = 9191

/** Handshakes that the kernel of a host has completed by a SYN cookie. */
async function cookiesTaken(host: Host): Promise<number> {
  const [names, figures] = (await host.output('cat', ['/proc/net/netstat'])).split('\n').map((line) => line.split(' '))
  return Number(figures[names.indexOf('SyncookiesRecv')])
}

it.each([
  { family: 4, is: 'IPv4', dialect: 'native', cookies: 1 },
  { family: 6, is: 'IPv6', dialect: 'native', cookies: 1 },
  // Nobody repeats the SYN-ACK: a repeat of the hello brings the ACK.
  { family: 4, is: 'IPv4, SYN cookies', dialect: 'native', cookies: 2 },
  // There is no hello: it is the repeated SYN-ACK that is answered.
  { family: 4, is: 'IPv4, without a hello', dialect: 'tcpraw', cookies: 1 },
] as const)(
  'a lost third ACK: what was sent meanwhile, up to 64 KB, is delivered once the connection is accepted ($is)',
  async ({ family, dialect, cookies }) => {
    await using hosts = await twoHosts({ offloads: false })
    await hosts.b.output('sysctl', ['-q', '-w', `net.ipv4.tcp_syncookies=${cookies}`])
    const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
    const host = family === 4 ? hosts.b.address4 : hosts.b.address6
    await server.listen({ host, port: PORT })
    await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
    // A pure ACK has no payload: 32 bytes of TCP header with timestamps, so 52 bytes over IPv4 and 72 over IPv6 (meta length). The first one only.
    const header = family === 4 ? 52 : 72
    await hosts.a.output(
      'nft',
      ['-f', '-'],
      `table inet lost {
       chain out {
         type filter hook output priority 0
         tcp dport ${PORT} tcp flags & (syn | ack | fin | rst | psh) == ack meta length ${header} limit rate over 1/day burst 1 packets accept
         tcp dport ${PORT} tcp flags & (syn | ack | fin | rst | psh) == ack meta length ${header} counter drop
       }
     }`,
    )
    const sent = await client.agent.run(
      async (ctx, options) => {
        const conn = await ctx.faketcp.dial(options)
        const sizes = []
        for (let bytes = 0; bytes + 1300 <= 60_000; bytes += 1300) sizes.push(1300)
        for (const [i, size] of sizes.entries()) conn.write(String(i).padStart(size, '.'))
        ctx.state.conns.push(conn)
        return sizes.length
      },
      { host, port: PORT, dialect },
    )
    const { id } = await server.next('connection')
    const received = []
    for (let i = 0; i < sent; i++) received.push((await server.next('message')).text.replaceAll('.', ''))
    expect(received).toEqual(Array.from({ length: sent }, (_, i) => String(i)))
    await server.write(id, 'all there')
    await recording.stop()

    // It was really lost: what first came behind the SYN carried data.
    const segments = await recording.segments()
    const behindSyn = segments.find(({ flags, dstport }) => dstport === PORT && flags !== 'S')
    expect(behindSyn?.len).toBeGreaterThan(0)
    expect(await hosts.a.output('nft', ['list table inet lost'])).toContain('counter packets 1 ')
    if (cookies === 2) expect(segments.filter(({ flags }) => flags === 'SA')).toHaveLength(1)
    if (dialect === 'tcpraw') expect(segments.filter(({ flags }) => flags === 'SA').length).toBeGreaterThan(1)
    expect(await cookiesTaken(hosts.b)).toBe(cookies === 2 ? 1 : 0)
  },
)

it.each(['packet', 'raw'] as const)(
  'data that arrives while the server is busy: connection first, then every message (captured by %s)',
  async (mode) => {
    await using hosts = await twoHosts()
    const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
    await server.agent.run(
      async (ctx, options) => {
        const listener = await ctx.faketcp.listen(options)
        const log: string[] = []
        listener.on('connection', (conn) => {
          log.push('connection')
          conn.on('data', (message) => log.push(message.toString()))
          conn.on('error', (error) => log.push(error.message))
          conn.on('close', () => ctx.emit('log', log))
        })
      },
      { host: hosts.b.address4, port: PORT, capture: mode },
    )
    const busy = server.agent.run(() => {
      for (const end = performance.now() + 200; performance.now() < end; );
    })
    await client.agent.run(
      async (ctx, options) => {
        const conn = await ctx.faketcp.dial(options)
        for (let i = 0; i < 40; i++) conn.write(`${i}`.padEnd(1000, ' '))
        conn.end()
      },
      { host: hosts.b.address4, port: PORT, capture: mode },
    )
    await busy
    const log = await server.agent.next<string[]>('log')
    expect(log.map((entry) => entry.trim())).toEqual(['connection', ...Array.from({ length: 40 }, (_, i) => String(i))])
  },
)

it.each([4, 6] as const)('SYN cookies on the listening host (IPv%s)', async (family) => {
  await using hosts = await twoHosts()
  await hosts.b.output('sysctl', ['-w', 'net.ipv4.tcp_syncookies=2'])
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await server.listen({ host, port: PORT, echo: true })
  const { id } = await client.dial({ host, port: PORT })
  await client.write(id, 'through a cookie')
  expect(await client.next('message')).toEqual({ id: 0, text: 'through a cookie' })
  expect(await cookiesTaken(hosts.b)).toBe(1)
  await client.close(id)
  expect(await server.next('closed')).toEqual({ id: 0, code: undefined })
})

it('the server speaks first', async () => {
  await using hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.agent.run(
    async (ctx, options) => {
      const listener = await ctx.faketcp.listen(options)
      listener.on('connection', (conn) => {
        conn.write('welcome')
        conn.write('to this place')
        conn.on('error', () => {}) // the client's end is not awaited
      })
    },
    { host: hosts.b.address4, port: PORT },
  )
  await client.dial({ host: hosts.b.address4, port: PORT })
  expect([(await client.next('message')).text, (await client.next('message')).text]).toEqual(['welcome', 'to this place'])
})

it('a handshake without timestamps and window scaling', async () => {
  await using hosts = await twoHosts({ offloads: false })
  await hosts.a.output('sysctl', ['-w', 'net.ipv4.tcp_timestamps=0', 'net.ipv4.tcp_window_scaling=0'])
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: PORT, echo: true })
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  const { id, maxMessageSize } = await client.dial({ host: hosts.b.address4, port: PORT })
  expect(maxMessageSize).toBe(1460)
  await client.write(id, 'x'.repeat(maxMessageSize))
  expect((await client.next('message')).text).toHaveLength(maxMessageSize)
  await client.close(id)
  await server.next('closed')
  await recording.stop()
  const behind = (await recording.segments()).slice(2)
  expect(behind.filter(({ options, tcpChecksum }) => options !== '' || tcpChecksum !== 'good')).toEqual([])
})
