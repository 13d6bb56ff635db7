// The impaired link that other tests build on: its account is exact, its chance is seeded, and what it is told not to touch passes.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { expect, it } from 'vitest'
import type { Agent, AgentContext } from '../support/agent.ts'
import { createNetwork, type Host } from '../support/hosts.ts'
import { type ImpairmentOptions, impairedLink } from '../support/impairment.ts'

const PORT = 7000
const TCP_PORT = 7001

/** Two hosts on such a link; `send` resolves with the numbers that arrived, in the order in which they did. */
async function impairedHosts(options: ImpairmentOptions = {}) {
  const network = await createNetwork()
  const [a, b] = [await network.addHost('a'), await network.addHost('b')]
  const link = await impairedLink(network, a, b, options)
  // Frames that wait until the neighbour is known may be overtaken in the sender's kernel.
  for (const address of [b.address4, b.address6]) await a.output('ping', ['-c', '1', address])
  const [sender, receiver] = [await a.agent(), await b.agent()]
  await receiver.run(receive, PORT)
  const send = async (count: number, { family = 4, perBatch = 100 } = {}) => {
    const host = family === 4 ? b.address4 : b.address6
    await sender.run(sendNumbered, { host, port: PORT, count, perBatch })
    // The last one has passed or been lost when nothing waits in the link any more.
    await expect.poll(async () => (await link.stats()).aToB.all.waiting).toBe(0)
    return receiver.run((ctx) => ctx.state.take() as Promise<number[]>)
  }
  return { a, b, link, send, [Symbol.asyncDispose]: () => network.remove() }
}

async function receive(ctx: AgentContext, port: number): Promise<void> {
  const dgram = await ctx.import<typeof import('node:dgram')>('node:dgram')
  const socket = dgram.createSocket({ type: 'udp6', recvBufferSize: 1 << 22 })
  let numbers: number[] = []
  let arrived = () => {}
  socket.on('message', (message) => {
    if (message.length < 4) arrived()
    else numbers.push(message.readUInt32LE(0))
  })
  await new Promise<void>((resolve) => socket.bind(port, resolve))
  // What has been delivered to the socket lies in front of a datagram that it sends itself.
  ctx.state.take = () =>
    new Promise<number[]>((resolve) => {
      arrived = () => {
        resolve(numbers)
        numbers = []
      }
      socket.send('end', port, '::1')
    })
}

async function sendNumbered(
  ctx: AgentContext,
  { host, port, count, perBatch }: { host: string; port: number; count: number; perBatch: number },
) {
  const dgram = await ctx.import<typeof import('node:dgram')>('node:dgram')
  const socket = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4')
  for (let sent = 0; sent < count; sent += perBatch) {
    const batch = Array.from({ length: Math.min(perBatch, count - sent) }, (_, i) => {
      const message = Buffer.alloc(1000)
      message.writeUInt32LE(sent + i)
      return new Promise<void>((resolve, reject) => socket.send(message, port, host, (error) => (error ? reject(error) : resolve())))
    })
    await Promise.all(batch)
  }
  socket.close()
}

it.each([4, 6])('loses and doubles frames, and accounts for each of them (IPv%s)', async (family) => {
  await using hosts = await impairedHosts({ aToB: { loss: 0.1, duplicate: 0.05 } })
  const before = (await hosts.link.stats()).aToB.all
  const arrived = await hosts.send(5000, { family })
  const { all, overflow } = (await hosts.link.stats()).aToB
  expect(overflow).toBe(0)
  expect(all.received + all.duplicated).toBe(all.forwarded + all.dropped.loss + all.dropped.refused)
  expect(new Set(arrived).size).toBe(5000 - all.dropped.loss)
  expect(arrived.length - new Set(arrived).size).toBe(all.duplicated)
  // Five standard deviations around what is expected.
  expect(Math.abs(all.dropped.loss - 500)).toBeLessThan(110)
  expect(Math.abs(all.duplicated - 225)).toBeLessThan(75)
  expect(before.dropped.loss + before.duplicated).toBe(0)
})

it('a seed decides the fate of each frame, another one otherwise', async () => {
  const run = async (seed: number) => {
    await using hosts = await impairedHosts({ seed, aToB: { loss: 0.1, duplicate: 0.1 } })
    return await hosts.send(500)
  }
  const first = await run(7)
  expect(await run(7)).toEqual(first)
  expect(await run(8)).not.toEqual(first)
})

it('reorders by holding some frames back, and loses none', async () => {
  await using hosts = await impairedHosts({ aToB: { reorder: 0.1, reorderMs: 5 } })
  const arrived = await hosts.send(1000)
  const { reordered } = (await hosts.link.stats()).aToB.all
  expect([...arrived].sort((x, y) => x - y)).toEqual(Array.from({ length: 1000 }, (_, i) => i))
  const overtaken = arrived.filter((number, i) => arrived.slice(0, i).some((earlier) => earlier > number)).length
  expect(reordered).toBeGreaterThan(50)
  expect(overtaken).toBeGreaterThan(10)
  expect(overtaken).toBeLessThanOrEqual(reordered)
})

it('delays each way by as much as it is told, in order', async () => {
  await using hosts = await impairedHosts()
  await hosts.link.set('aToB', { delayMs: 30 })
  await hosts.link.set('bToA', { delayMs: 20 })
  expect(await hosts.send(500)).toEqual(Array.from({ length: 500 }, (_, i) => i))
  expect(shortestRtt(await hosts.a.output('ping', ['-c', '3', '-i', '0.1', hosts.b.address4]))).toBeGreaterThanOrEqual(50)
})

it('a rate holds frames back and drops what its queue does not take', async () => {
  const bitsPerSecond = 10_000_000
  await using hosts = await impairedHosts({ aToB: { bitsPerSecond, queueBytes: 100_000, burstBytes: 1042 } })
  const began = performance.now()
  const arrived = await hosts.send(1000, { perBatch: 1000 })
  const seconds = (performance.now() - began) / 1000
  const { dropped } = (await hosts.link.stats()).aToB.all
  expect(arrived.length).toBe(1000 - dropped.queue)
  expect(dropped.queue).toBeGreaterThan(0)
  // 1000 bytes and their headers: never faster than the rate.
  expect(seconds).toBeGreaterThanOrEqual(((arrived.length - 2) * 1042 * 8) / bitsPerSecond)
})

it('a cut cable loses all until it is mended, and the neighbours stay known', async () => {
  await using hosts = await impairedHosts()
  expect((await hosts.send(10)).length).toBe(10)
  await hosts.link.setBoth({ loss: 1 })
  expect(await hosts.send(10)).toEqual([])
  await hosts.link.setBoth({ loss: 0 })
  expect((await hosts.send(10)).length).toBe(10)
})

it('cuts up trains: each segment of a kernel TCP stream is a frame with a finished checksum', async () => {
  await using hosts = await impairedHosts({ aToB: { payloadOnly: true, loss: 1 / 64 } })
  const sent = 2_000_000
  const received = await tcpTransfer(hosts.b, await hosts.a.agent(), sent)
  expect(received).toBe(sent)
  const { all, payload } = (await hosts.link.stats()).aToB
  // Retransmissions included, so at least these; what is lost is payload, and only that.
  expect(payload.received).toBeGreaterThanOrEqual(Math.ceil(sent / 1448))
  expect(payload.dropped.loss).toBeGreaterThan(0)
  expect(all.dropped.loss).toBe(payload.dropped.loss)
  const statistics = await hosts.b.output('nstat', ['-a', '-s', '-z', 'TcpInCsumErrors'])
  expect(statistics).toMatch(/TcpInCsumErrors\s+0\s/)
})

it('rules drop the segments that they name, after those that may pass', async () => {
  await using hosts = await impairedHosts()
  await hosts.link.drop('aToB', { syn: true, count: 1 })
  await hosts.link.drop('aToB', { syn: false, payload: true, skip: 1, count: 2 })
  await hosts.link.drop('bToA', { fin: true, count: 1 })
  await hosts.link.drop('bToA', { rst: true })
  // The kernel repeats what was dropped.
  expect(await tcpTransfer(hosts.b, await hosts.a.agent(), 10_000)).toBe(10_000)
  const { aToB, bToA } = await hosts.link.stats()
  expect([aToB, bToA].map(({ all, payload }) => [all.dropped.rule, payload.dropped.rule])).toEqual([
    [3, 2],
    [1, 0],
  ])
})

it('says what is wrong with a command, and goes on', async () => {
  await using hosts = await impairedHosts()
  await expect(hosts.link.set('aToB', { loss: -1 })).rejects.toThrow('wrong: loss=-1')
  for (let i = 0; i < 16; i++) await hosts.link.drop('aToB', { rst: true })
  await expect(hosts.link.drop('aToB', { rst: true })).rejects.toThrow('too many rules')
  expect((await hosts.send(10)).length).toBe(10)
})

/** Bytes that a socat in the host has received from a kernel TCP socket of the agent's when both have closed. */
async function tcpTransfer(to: Host, from: Agent, bytes: number): Promise<number> {
  const listener = to.spawn('socat', ['-u', '-dd', `TCP-LISTEN:${TCP_PORT}`, 'STDOUT'], { stdio: ['ignore', 'pipe', 'pipe'] })
  let received = 0
  listener.stdout!.on('data', (block: Buffer) => {
    received += block.length
  })
  await listening(listener)
  await from.run(
    async (ctx, { host, port, bytes }) => {
      const net = await ctx.import<typeof import('node:net')>('node:net')
      const socket = net.connect(port, host)
      socket.end(Buffer.alloc(bytes))
      await new Promise((resolve, reject) => socket.once('close', resolve).once('error', reject))
    },
    { host: to.address4, port: TCP_PORT, bytes },
  )
  if (listener.exitCode === null) await once(listener, 'close')
  return received
}

async function listening(child: ChildProcess): Promise<void> {
  let text = ''
  for await (const block of child.stderr!.setEncoding('utf8')) {
    text += block
    if (/listening on/.test(text)) return
  }
  throw new Error(`socat did not start: ${text}`)
}

/** Milliseconds. */
function shortestRtt(ping: string): number {
  return Number(/min\/avg\/max\/mdev = ([\d.]+)\//.exec(ping)?.[1])
}
