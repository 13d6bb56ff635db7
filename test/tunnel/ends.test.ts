// Both ends of a tunnel in this process, on the loopback interface: what they leave behind, and what they do about each other's leftovers.
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { afterEach, expect, it, onTestFinished } from 'vitest'
import { requireBinding } from '../../lib/native/require.ts'
import { ClientEnd } from '../../lib/tunnel/client.ts'
import { Conversations } from '../../lib/tunnel/conversations.ts'
import {
  type FlowChange,
  type Tunnel,
  type TunnelClientOptions,
  type TunnelOptions,
  tunnelClient,
  tunnelServer,
} from '../../lib/tunnel/index.ts'
import { deriveSecrets } from '../../lib/tunnel/keys.ts'
import { type ParsedTunnelClient, parseTunnelClient } from '../../lib/tunnel/options.ts'
import { Shared } from '../../lib/tunnel/shared.ts'
import { Tunnel as OpenTunnel } from '../../lib/tunnel/tunnel.ts'
import { Warnings } from '../../lib/tunnel/warnings.ts'
import { UdpSocket } from '../../lib/udp/socket.ts'

const LISTEN = '127.0.0.1:0'

const opened: Array<() => unknown> = []
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close()
})

async function udp(onMessage: (this: Socket, message: Buffer, port: number) => void = () => {}): Promise<Socket> {
  const socket = createSocket('udp4')
  socket.on('message', (message, { port }) => onMessage.call(socket, message, port))
  socket.on('error', () => {})
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  opened.push(() => socket.close())
  return socket
}

function echo(): Promise<Socket> {
  return udp(function (message, port) {
    this.send(message, port, '127.0.0.1')
  })
}

async function server(to: number | string, more: Partial<TunnelOptions> = {}): Promise<Tunnel> {
  const tunnel = await tunnelServer({ listen: LISTEN, to: typeof to === 'number' ? `127.0.0.1:${to}` : to, ...more })
  opened.push(() => tunnel.close())
  return tunnel
}

/** A client's part, and the tunnel that it is of. */
async function client(to: Tunnel, more: Partial<TunnelClientOptions> = {}, parsed: Partial<ParsedTunnelClient> = {}) {
  const options = { ...parseTunnelClient({ listen: LISTEN, to: `127.0.0.1:${to.address().port}`, ...more }), ...parsed }
  const secrets = await deriveSecrets(options.key)
  let end: ClientEnd | undefined
  const tunnel = await OpenTunnel.open(undefined, secrets.keyed, async (shared) => {
    end = await ClientEnd.open(requireBinding(), options, secrets, shared)
    return end
  })
  opened.push(() => tunnel.close())
  return { tunnel, end: end as ClientEnd }
}

const descriptors = () => readdirSync('/proc/self/fd').length

it('datagrams that came just before the close still go out', async () => {
  const service = await udp()
  const { tunnel } = await client(await server(service.address().port), { flows: 1 })
  const user = await udp()
  user.send('first', tunnel.address().port, '127.0.0.1')
  await once(service, 'message')
  const heard: string[] = []
  service.on('message', (message) => heard.push(String(message)))
  user.send('the last one, longer than the message that follows it', tunnel.address().port, '127.0.0.1')
  await new Promise((sent) => user.send('and its end', tunnel.address().port, '127.0.0.1', sent))
  await tunnel.close()
  await expect.poll(() => heard).toEqual(['the last one, longer than the message that follows it', 'and its end'])
})

it('a destination that cannot be connected to costs the server no descriptors', async () => {
  // Without SO_BROADCAST: EACCES.
  const end = await server('255.255.255.255:9')
  const { tunnel } = await client(end, { flows: 1 })
  const user = await udp()
  const refused = async (count: number) => {
    user.send('hello', tunnel.address().port, '127.0.0.1')
    await expect.poll(() => end.stats.drops['udp-refused']).toBe(count)
  }
  await refused(1)
  const before = descriptors()
  for (let i = 2; i < 10; i++) await refused(i)
  expect(descriptors()).toBe(before)
  expect(end.stats.peers).toBe(0)
})

it('a conversation that the client knows nothing of is over for the server, too', async () => {
  const service = await echo()
  const end = await server(service.address().port)
  const { tunnel, end: clientEnd } = await client(end, { flows: 1 })
  if (tunnel.stats.flowsTotal === 0) await once(tunnel, 'flow')
  const [flow] = clientEnd.flows
  flow.send(4242, Buffer.from('of nobody'), 0, 9, 9)
  await expect.poll(() => [end.stats.peersTotal, end.stats.peers]).toEqual([1, 0])
  expect(tunnel.stats.drops.malformed).toBe(1)
})

it('a flow whose keys have been used enough is replaced while it is open, and its conversations stay', async () => {
  const service = await udp()
  const key = 'a secret of sixteen bytes'
  const end = await server(service.address().port, { key })
  const { tunnel } = await client(end, { key, flows: 1 }, { renewAfterMessages: 20 })
  const changes: FlowChange[] = []
  tunnel.on('flow', (change) => changes.push(change))
  const users = [await udp(), await udp()]
  const ports = new Map<string, number>()
  service.on('message', (message, { port }) => ports.set(String(message), port))
  for (const [i, user] of users.entries()) user.send(`of ${i}`, tunnel.address().port, '127.0.0.1')
  await expect.poll(() => ports.size).toBe(2)
  // Server to client only: the other direction's key counts, too.
  for (let i = 0; i < 30; i++) service.send(`${i}`, ports.get('of 0') as number, '127.0.0.1')
  await expect
    .poll(() => changes.map(({ state, reason }) => reason ?? state), { timeout: 5000 })
    .toEqual(['open', 'open', 'replaced by a new one'])
  expect(changes[2].localPort).toBe(changes[0].localPort)
  expect(changes[1].localPort).not.toBe(changes[0].localPort)
  // The first conversation by its BIND, the other one, too: neither user has sent anything since.
  for (const [i, user] of users.entries()) {
    const heard = once(user, 'message')
    service.send(`to ${i}`, ports.get(`of ${i}`) as number, '127.0.0.1')
    expect(String((await heard)[0])).toBe(`to ${i}`)
  }
  expect(end.stats).toMatchObject({ peers: 2, peersTotal: 2, flowsTotal: 2 })
  expect(tunnel.stats).toMatchObject({ reconnects: 0, flowsTotal: 2, flows: [{ state: 'open', localPort: changes[1].localPort }] })
  expect([...Object.values(end.stats.drops), ...Object.values(tunnel.stats.drops)].every((count) => count === 0)).toBe(true)
})

it('without keys nothing is replaced, however much was sent', async () => {
  const service = await echo()
  const { tunnel } = await client(await server(service.address().port), { flows: 1 }, { renewAfterMessages: 1 })
  const user = await udp()
  for (let i = 0; i < 3; i++) {
    const heard = once(user, 'message')
    user.send(`${i}`, tunnel.address().port, '127.0.0.1')
    await heard
    // A tick, which would replace it.
    await expect.poll(() => tunnel.stats.flows[0].rttMs, { timeout: 5000 }).toBeDefined()
  }
  expect(tunnel.stats.flowsTotal).toBe(1)
})

it('datagrams that come in one train with the end of their conversation are passed on', async () => {
  const service = await udp()
  const { end } = await client(await server(service.address().port), { flows: 1 })
  await expect.poll(() => end.flows.size).toBe(1)
  const [flow] = end.flows
  const shared = new Shared(new Warnings(() => {}), () => {})
  const target = { family: 4, address: '127.0.0.1', port: 0, ipv6Only: false, sharing: 'none', tos: 0, dontFragment: false } as const
  const conversations = new Conversations(shared, { idleTimeoutMs: 1000, maxPeers: 1 }, (sink) => {
    const socket = new UdpSocket(requireBinding(), { ...target, receiveBufferBytes: 1 << 16 }, sink)
    socket.connect('127.0.0.1', service.address().port)
    return socket
  })
  const { sink } = conversations.join('somebody')
  const heard = once(service, 'message')
  sink.onData(flow, 7, Buffer.from('goodbye'), 0, 7, 7)
  sink.onClose(flow, [7])
  sink.onTrainEnd()
  expect(String((await heard)[0])).toBe('goodbye')
  expect(conversations.size).toBe(0)
})

it('an exception in a handler surfaces as uncaught and costs no datagram', async () => {
  const uncaught: unknown[] = []
  const others = process.listeners('uncaughtException')
  process.removeAllListeners('uncaughtException').on('uncaughtException', (error) => uncaught.push(error.message))
  onTestFinished(() => {
    process.removeAllListeners('uncaughtException')
    for (const other of others) process.on('uncaughtException', other)
  })
  const service = await echo()
  const end = await server(service.address().port)
  const { tunnel } = await client(end)
  for (const one of [end, tunnel]) {
    one.on('flow', () => {
      throw new Error('mine')
    })
  }
  const user = await udp()
  const heard = once(user, 'message')
  user.send('hello', tunnel.address().port, '127.0.0.1')
  expect(String((await heard)[0])).toBe('hello')
  expect(uncaught).toEqual(['mine', 'mine'])
})

it('a client that is aborted while it opens rejects', async () => {
  const controller = new AbortController()
  const opening = tunnelClient({ listen: 'localhost:0', to: '127.0.0.1:9', signal: controller.signal })
  // It looks the name up by now.
  for (let i = 0; i < 50; i++) await null
  controller.abort()
  await expect(opening).rejects.toMatchObject({ name: 'AbortError' })
})
