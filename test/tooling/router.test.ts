// The NAT router that other tests build on: it translates, it tracks strictly, and its two counts of what is invalid move when they should.
import { expect, it } from 'vitest'
import { type PacketOptions, packet } from '../native/packets.ts'
import type { Agent } from '../support/agent.ts'
import { capture } from '../support/capture.ts'
import type { Host } from '../support/hosts.ts'
import { createRouted, type Masquerade } from '../support/router.ts'

const PORT = 7000
/** Beyond every window here. */
const BEYOND = 100_000_000

const cases = (['nftables', 'iptables'] as const).flatMap((masquerade) => ([4, 6] as const).map((family) => ({ masquerade, family })))

it.each(cases)('$masquerade, IPv$family: the server meets the router’s address, and nothing is invalid', async ({ masquerade, family }) => {
  await using scene = await connected(masquerade, family)
  expect(scene.routed.outside).toMatchObject(family === 4 ? { address4: scene.seenAddress } : { address6: scene.seenAddress })
  expect(await scene.talk(scene.client, scene.server)).toBe('text')
  expect(await scene.talk(scene.server, scene.client)).toBe('text')
  expect(await scene.routed.entries(PORT)).toEqual([expect.stringMatching(/^tcp +6 ESTABLISHED src=.* \[ASSURED\]/)])
  expect(await scene.routed.invalid()).toEqual({ rule: 0, tracker: 0 })
})

it.each(cases)(
  '$masquerade, IPv$family: a segment beyond the window is counted and dropped, from either side',
  async ({ masquerade, family }) => {
    await using scene = await connected(masquerade, family)
    const { routed } = scene
    const of = (one: { address4: string; address6: string }) => (family === 4 ? one.address4 : one.address6)
    const toServer = { source: of(routed.client), sourcePort: scene.port, destination: of(routed.server), destinationPort: PORT }
    const toClient = { source: of(routed.server), sourcePort: PORT, destination: of(routed.outside), destinationPort: scene.seenPort }
    const { seq, ack } = scene.numbers
    await sendRaw(routed.client, { ...toServer, seq: (seq + BEYOND) >>> 0, ack, payload: 'nobody should read this' })
    await expect.poll(() => routed.invalid()).toEqual({ rule: 1, tracker: 1 })
    expect(await scene.talk(scene.client, scene.server)).toBe('text')
    // It is for the router itself as long as it is not translated, and so never reaches FORWARD. The router's reset may be invalid as well.
    await sendRaw(routed.server, { ...toClient, seq: (ack + BEYOND) >>> 0, ack: seq, payload: 'nor this' })
    await expect.poll(async () => (await routed.invalid()).tracker).toBeGreaterThan(1)
    expect((await routed.invalid()).rule).toBe(1)
  },
)

it('forgets entries when it is told to, and what follows is invalid to a tracker that picks nothing up', async () => {
  await using scene = await connected('nftables', 4, { established: 1 })
  await scene.routed.router.output('sysctl', ['-q', '-w', 'net.netfilter.nf_conntrack_tcp_loose=0'])
  await expect.poll(() => scene.routed.entries(PORT), { timeout: 10_000 }).toEqual([])
  await scene.client.run((ctx) => ctx.state.socket.write('into the void'))
  await expect.poll(async () => (await scene.routed.invalid()).rule).toBeGreaterThan(0)
})

it('takes an impaired link on either side', async () => {
  for (const link of ['inside', 'outside'] as const) {
    await using routed = await createRouted({ impaired: { link, aToB: { delayMs: 20 } } })
    const ping = await routed.client.output('ping', ['-c', '2', '-i', '0.1', routed.server.address6])
    expect(Number(/min\/avg\/max\/mdev = ([\d.]+)\//.exec(ping)?.[1])).toBeGreaterThanOrEqual(20)
    expect((await routed.link!.stats()).aToB.all.forwarded).toBeGreaterThanOrEqual(2)
  }
})

/** A kernel TCP connection through the router. */
async function connected(masquerade: Masquerade, family: 4 | 6, timeouts = {}) {
  const routed = await createRouted({ masquerade, timeouts })
  await using recording = await capture(routed.client)
  const [client, server] = [await routed.client.agent(), await routed.server.agent()]
  await server.run(async (ctx, port) => {
    const net = await ctx.import<typeof import('node:net')>('node:net')
    const listener = net.createServer((socket) => {
      ctx.state.socket = socket.setEncoding('utf8').on('data', (text) => ctx.emit('text', text))
      ctx.emit('connection', { address: socket.remoteAddress!.replace('::ffff:', ''), port: socket.remotePort })
    })
    await new Promise<void>((resolve) => listener.listen(port, '::', resolve))
  }, PORT)
  const port = await client.run(
    async (ctx, { host, port }) => {
      const net = await ctx.import<typeof import('node:net')>('node:net')
      const socket = net.connect(port, host)
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
      ctx.state.socket = socket.setEncoding('utf8').on('data', (text) => ctx.emit('text', text))
      return socket.localPort!
    },
    { host: family === 4 ? routed.server.address4 : routed.server.address6, port: PORT },
  )
  const seen = await server.next<{ address: string; port: number }>('connection')
  await recording.stop()
  const [handshake] = await recording.segments({ display: 'tcp.flags == 0x10' })
  const talk = async (from: Agent, to: Agent) => {
    await from.run((ctx) => ctx.state.socket.write('text'))
    return to.next<string>('text')
  }
  return {
    ...{ routed, client, server, port, talk },
    ...{ seenAddress: seen.address, seenPort: seen.port },
    /** Of the third segment: what comes next from the client, and what it expects. */
    numbers: { seq: handshake.seq, ack: handshake.ack },
    [Symbol.asyncDispose]: () => routed[Symbol.asyncDispose](),
  }
}

async function sendRaw(host: Host, options: PacketOptions): Promise<void> {
  const family = options.source.includes(':') ? 'AF_INET6' : 'AF_INET'
  const script = `import socket, sys
s = socket.socket(socket.${family}, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))`
  await host.output('python3', ['-c', script, packet(options).toString('hex'), options.destination])
}
