// Listeners and dials with a helloKey: who has it gets through, each end learns of the others in its own way, and what a stranger sees on the wire is
// what a kernel's TCP server that only reads would show.
import { randomBytes } from 'node:crypto'
import { beforeEach, describe, expect, it } from 'vitest'
import { serve } from '../interop/kernel-tcp.ts'
import { capture, type Segment } from '../support/capture.ts'
import { expectNothingLeft, held } from './leftovers.ts'
import type { Peer } from './peer.ts'
import { type TwoPeers, twoPeers } from './two-peers.ts'

const helloKey = randomBytes(32)
/** Each test has another, so that the last FINs of one do not disturb the next. */
let port = 9191

let hosts: TwoPeers['hosts']
let server: Peer
let client: Peer
twoPeers(
  (made) => {
    ;({ hosts, server, client } = made)
  },
  { link: { offloads: false } },
)
beforeEach(() => {
  port++
})

const where = () => ({ host: hosts.b.address4, port })

async function accepted(): Promise<number[]> {
  const { accepted, refused } = await server.listenerStats()
  return [accepted, refused]
}

describe.each([
  [4, 'packet', 'auto', 'none'],
  [6, 'packet', 'auto', 'counted'],
  [4, 'raw', 'raw', 'counted'],
  [6, 'raw', 'raw', 'none'],
] as const)('IPv%s, captured by %s, link %s, framing %s', (family, mode, link, framing) => {
  it('with the same key on both ends messages go both ways', async () => {
    const host = family === 4 ? hosts.b.address4 : hosts.b.address6
    const options = { host, port, capture: mode, link, framing, helloKey }
    await server.listen(options)
    const { id } = await client.dial(options)
    const { id: there } = await server.next('connection')
    const texts = ['first', ...Array.from({ length: 100 }, (_, i) => String(i).padEnd(700)), 'last']
    await client.write(id, ...texts)
    await server.write(there, ...texts)
    for (const peer of [server, client]) for (const text of texts) expect((await peer.next('message')).text).toBe(text)
    for (const stats of [await client.stats(id), await server.stats(there)])
      expect(stats).toMatchObject({ dialect: 'native', link: link === 'raw' ? 'raw' : 'packet' })
    await client.close(id)
    expect(await server.next('closed')).toEqual({ id: there, code: undefined })
    expect(await accepted()).toEqual([1, 0])
  })
})

describe('a dial with a key ends with ERR_FAKETCP_HELLO', () => {
  const failure = () => client.dialError({ ...where(), helloKey, connectTimeoutMs: 500 })
  const message = () =>
    `No hello of this helloKey came from ${hosts.b.address4}:${port}: it has another helloKey or none, or knows no hello`

  it('where the listener has another key: there it is a stranger', async () => {
    await server.listen({ ...where(), helloKey: randomBytes(16) })
    expect(await failure()).toMatchObject({ code: 'ERR_FAKETCP_HELLO', message: message() })
    expect(await server.next('refused')).toMatchObject({ reason: 'hello' })
    expect(await accepted()).toEqual([0, 1])
    await expect.poll(() => client.flows(), { timeout: 5000 }).toBe(0)
  })

  it('where the listener has none: there its hello is a message', async () => {
    await server.listen(where())
    expect(await failure()).toMatchObject({ code: 'ERR_FAKETCP_HELLO', message: message() })
    const { id } = await server.next('connection')
    expect((await server.next('message')).id).toBe(id)
    expect(await server.next('closed')).toEqual({ id, code: 'ECONNRESET' })
  })

  it('where there is a TCP server', async () => {
    await serve(server.agent, where(), { is: 'echo' })
    expect(await failure()).toMatchObject({ code: 'ERR_FAKETCP_HELLO', message: message() })
  })
})

it('a dial without the key is acknowledged, hears nothing, and its FIN is answered', async () => {
  await server.listen({ ...where(), helloKey })
  const { id } = await client.dial(where())
  await client.write(id, 'is anybody there?')
  expect(await server.next('refused')).toMatchObject({ reason: 'hello' })
  await client.close(id)
  expect(await client.next('closed')).toEqual({ id, code: undefined })
  expect(await client.stats(id)).toMatchObject({ messagesIn: 0, messagesOut: 1 })
  expect(await accepted()).toEqual([0, 1])
})

it('of a shard that is alone, clients of the other one get in too, whose handshake it has not seen', async () => {
  await server.listen({ ...where(), helloKey, shard: { index: 0, count: 2 } })
  for (let i = 0; i < 8; i++) {
    const { id } = await client.dial({ ...where(), helloKey })
    await client.write(id, `message ${i}`)
    expect((await server.next('message')).text).toBe(`message ${i}`)
  }
  const { shard, accepted } = await server.listenerStats()
  expect(accepted).toBe(8)
  expect(shard?.strays).toBeGreaterThan(0)
})

it('where the framing differs the error says so, for the key is right', async () => {
  await server.listen({ ...where(), helloKey })
  const error = await client.dialError({ ...where(), helloKey, framing: 'counted' })
  expect(error.code).toBe('ERR_FAKETCP_FRAMING')
  expect(await server.next('refused')).toMatchObject({ reason: 'framing' })
})

it('maxConnections counts who has shown the key', async () => {
  await server.listen({ ...where(), helloKey, maxConnections: 1 })
  const stranger = await client.dial(where())
  await client.write(stranger.id, 'stranger')
  expect(await server.next('refused')).toMatchObject({ reason: 'hello' })
  await client.dial({ ...where(), helloKey })
  await client.dialRefused({ ...where(), helloKey })
  expect(await server.next('refused')).toMatchObject({ reason: 'maxConnections' })
})

it('a listener that closes sends strangers away with a FIN and leaves nothing behind', async () => {
  const before = await held(server)
  await server.listen({ ...where(), helloKey })
  const { id } = await client.dial({ ...where(), dialect: 'tcpraw' })
  await expect.poll(() => server.flows()).toBe(1)
  await server.closeListener()
  expect(await client.next('closed')).toEqual({ id, code: undefined })
  await expectNothingLeft(server, before)
})

/** What an ordinary TCP client sends, waits to see acknowledged, and how it then ends. */
interface Probe {
  readonly payloads: readonly Uint8Array[]
  readonly ends: boolean
}

/** A kernel's client. @returns what it has heard, and how its connection ended */
function probe({ payloads, ends }: Probe): Promise<{ heard: number; end: string }> {
  return client.agent.run(
    async (ctx, { host, port, payloads, ends }) => {
      const net = await ctx.import<typeof import('node:net')>('node:net')
      const { promisify } = await ctx.import<typeof import('node:util')>('node:util')
      const socket = net.connect({ host, port, noDelay: true })
      let heard = 0
      socket.on('data', (bytes) => (heard += bytes.length))
      const end = new Promise<string>((resolve) => {
        socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message)).once('end', () => resolve('FIN'))
      })
      await new Promise((resolve) => socket.once('connect', resolve))
      for (const bytes of payloads) {
        await new Promise((resolve) => socket.write(bytes, resolve))
        // Until /proc/net/tcp says that all of it was acknowledged.
        const queued = new RegExp(`:${socket.localPort?.toString(16).toUpperCase().padStart(4, '0')} \\S+ 01 ([0-9A-F]{8}):`)
        const { readFileSync } = await ctx.import<typeof import('node:fs')>('node:fs')
        const tick = promisify(setTimeout)
        for (let i = 0; i < 500 && queued.exec(readFileSync('/proc/net/tcp', 'latin1'))?.[1] !== '00000000'; i++) await tick(10)
      }
      if (ends) socket.end()
      else socket.resetAndDestroy()
      const how = ends ? await end : 'none'
      socket.destroy()
      return { heard, end: how }
    },
    { ...where(), payloads, ends },
  )
}

/** What the server's side has sent, in numbers relative to the handshake; how often it acknowledged on the way is its own affair. */
function sent(segments: readonly Segment[]) {
  const own = segments.filter(({ srcport }) => srcport === port)
  const synAck = own.find(({ flags }) => flags === 'SA')
  const syn = segments.find(({ flags }) => flags === 'S')
  if (syn === undefined || synAck === undefined) throw new Error('no handshake was recorded')
  const later = own.filter(({ flags }) => flags !== 'SA')
  return {
    /** But for pure ACKs: one may go with a FIN that follows at once, or alone. */
    kinds: [...new Set(later.map(({ flags, len }) => `${flags} ${len}`))].filter((kind) => kind !== 'A 0').sort(),
    fins: later.filter(({ flags }) => flags.includes('F')).length,
    /** Each number that it sent. */
    seqs: [...new Set(later.map(({ seq }) => (seq - synAck.seq) | 0))],
    acknowledged: Math.max(...later.map(({ ack }) => (ack - syn.seq) | 0)),
    ttls: [...new Set(later.map(({ ttl }) => ttl))],
    options: [...new Set(later.map(({ options }) => options.slice(0, 8)))],
    /** But for those of a kernel that has dropped what its busy host could not take, which the client sends again. */
    findings: later.flatMap(({ analysis }) => analysis).filter((mark) => mark !== 'window_update' && mark !== 'duplicate_ack'),
  }
}

/** Probes whatever listens, recorded at the server. */
async function seen(what: Probe) {
  await using recording = await capture(hosts.b, { filter: `tcp port ${port}` })
  const outcome = await probe(what)
  await recording.stop()
  return { outcome, ...sent(await recording.segments()) }
}

/** Probes a listener with a key, and an ordinary server, and compares. */
async function likeKernels(payloadsOf: () => Promise<Buffer[]>, ends: boolean) {
  await server.listen({ ...where(), helloKey })
  const payloads = await payloadsOf()
  const ours = await seen({ payloads, ends })
  expect((await server.next('refused')).reason).toMatch(/^hello$|^replay$/)
  port++
  await serve(server.agent, where(), { is: 'sink', pauseMs: 0 })
  expect(ours).toEqual(await seen({ payloads, ends }))
  expect(ours.outcome).toEqual({ heard: 0, end: ends ? 'FIN' : 'none' })
  expect(ours).toMatchObject({ kinds: ends ? ['FA 0'] : [], fins: ends ? 1 : 0 })
  return { ...ours, bytes: payloads.reduce((sum, { length }) => sum + length, 0) }
}

/** The hello of a dial that the listener has answered. */
async function recordedHello(): Promise<Buffer> {
  await using recording = await capture(hosts.b, { filter: `tcp port ${port}` })
  const { id } = await client.dial({ ...where(), helloKey })
  await client.close(id)
  await recording.stop()
  const [hello] = await recording.segments({ display: `tcp.dstport == ${port} && tcp.len > 0`, payload: true })
  return Buffer.from(hello.payload ?? '', 'hex')
}

describe.each<[string, () => Promise<Buffer[]>]>([
  ['a recorded hello', async () => [await recordedHello()]],
  ['a recorded hello and more', async () => [await recordedHello(), randomBytes(500), randomBytes(3000)]],
  ['garbage', async () => [randomBytes(40), randomBytes(1000), randomBytes(1)]],
  ['half a megabyte of garbage', async () => [randomBytes(1 << 19)]],
])('a TCP client that sends %s', (_what, payloadsOf) => {
  it('and then ends sees what a TCP server that only reads would show', async () => {
    const { acknowledged, bytes } = await likeKernels(payloadsOf, true)
    expect(acknowledged).toBe(bytes + 2)
  })

  it('and then resets sees what a TCP server that only reads would show', async () => {
    const { acknowledged, bytes } = await likeKernels(payloadsOf, false)
    expect(acknowledged).toBe(bytes + 1)
  })
})

it('a TCP client that says nothing and ends sees what a TCP server that only reads would show', async () => {
  expect(await likeKernels(async () => [], true)).toMatchObject({ acknowledged: 2 })
})
