// Framing 'counted' over a link that loses, doubles and reorders: its figures against the link's own account, and delivery in order.
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { FakeTcpConn } from '../../lib/index.ts'
import { createNetwork, type Host, type Network } from '../support/hosts.ts'
import { type Impairment, impairedLink } from '../support/impairment.ts'
import { Peer, type PeerListenOptions } from './peer.ts'

const PORT = 9191
const SIZE = 100

let network: Network
let hosts: [Host, Host]
let link: Impairment
let client: Peer
let server: Peer
beforeEach(async () => {
  network = await createNetwork()
  hosts = [await network.addHost('a'), await network.addHost('b')]
  link = await impairedLink(network, ...hosts)
  ;[client, server] = [await Peer.on(hosts[0]), await Peer.on(hosts[1])]
})
afterEach(() => network.remove())

async function connected(options: Partial<PeerListenOptions> = {}) {
  const host = hosts[1].address4
  await server.listen({ host, port: PORT, framing: 'counted', ...options })
  const dialled = await client.dial({ host, port: PORT, framing: 'counted' })
  const accepted = await server.next('connection')
  // Numbers of the messages in the order of their arrival.
  await server.agent.run((ctx, id) => {
    const conn: FakeTcpConn = ctx.state.conns[id]
    ctx.state.numbers = []
    conn.removeAllListeners('data')
    conn.on('data', (message) => ctx.state.numbers.push(message.readUInt32LE(0)))
  }, accepted.id)
  return { client: dialled.id, server: accepted.id }
}

/** Writes numbered messages, some in each tick, no faster than the kernel takes them. */
function sendNumbered(peer: Peer, id: number, count: number, first = 0): Promise<void> {
  return peer.agent.run(
    async (ctx, { id, first, last, size }) => {
      const conn: FakeTcpConn = ctx.state.conns[id]
      for (let sent = first; sent < last; sent += 50) {
        await new Promise<void>((resolve, reject) => {
          const end = Math.min(last, sent + 50)
          for (let number = sent; number < end; number++) {
            const message = Buffer.alloc(size)
            message.writeUInt32LE(number)
            conn.write(message, number + 1 < end ? undefined : (error) => (error ? reject(error) : resolve()))
          }
        })
      }
    },
    { id, first, last: first + count, size: SIZE },
  )
}

const numbersAt = (peer: Peer) => peer.agent.run((ctx) => ctx.state.numbers as number[])

it('both ends tell within 1 % what the link has lost, doubled and reordered', async () => {
  const COUNT = 20_000
  const ids = await connected()
  await link.set('aToB', { loss: 0.05, duplicate: 0.03, reorder: 0.02, reorderMs: 5, payloadOnly: true })
  await sendNumbered(client, ids.client, COUNT)
  await expect.poll(async () => (await link.stats()).aToB.all.waiting).toBe(0)
  const { payload } = (await link.stats()).aToB
  // From now on nothing is lost, so that the last one tells how many there were.
  await link.set('aToB', { loss: 0, duplicate: 0, reorder: 0 })
  await sendNumbered(client, ids.client, 1, COUNT)
  const sent = COUNT + 1
  await expect.poll(async () => (await server.stats(ids.server)).framing?.incoming.sent).toBe(sent)
  const { incoming } = (await server.stats(ids.server)).framing!

  expect(payload.dropped).toMatchObject({ rule: 0, queue: 0, refused: 0 })
  const within = (count: number, share: number) => [Math.floor(count * (1 - share)), Math.ceil(count * (1 + share))]
  const expectWithin = (figure: number, [least, most]: number[]) => {
    expect(figure).toBeGreaterThanOrEqual(least)
    expect(figure).toBeLessThanOrEqual(most)
  }
  // The link's account includes a few reports.
  expect(payload.dropped.loss).toBeGreaterThan(800)
  expectWithin(incoming.lost, within(payload.dropped.loss, 0.01))
  expectWithin(incoming.duplicated, within(payload.duplicated, 0.01))
  expectWithin(incoming.reordered, within(payload.reordered, 0.05))
  const numbers = await numbersAt(server)
  expect(numbers).toHaveLength(incoming.received)
  expect(new Set(numbers).size + incoming.lost).toBe(sent)
  // And the sender knows the same.
  await expect.poll(async () => (await client.stats(ids.client)).framing?.outgoing, { timeout: 5000 }).toEqual(incoming)
})

it('with a reorder window messages are delivered in order, each once', async () => {
  const COUNT = 5000
  await link.set('aToB', { delayMs: 1 })
  const ids = await connected({ reorderWindowMs: 2000 })
  await link.set('aToB', { duplicate: 0.05, reorder: 0.05, reorderMs: 5, payloadOnly: true })
  await sendNumbered(client, ids.client, COUNT)
  await expect.poll(async () => (await numbersAt(server)).length).toBe(COUNT)
  expect(await numbersAt(server)).toEqual(Array.from({ length: COUNT }, (_, i) => i))
  const { incoming, ignored } = (await server.stats(ids.server)).framing!
  expect(incoming.reordered).toBeGreaterThan(50)
  expect(incoming.duplicated).toBeGreaterThan(100)
  expect(ignored.overtaken).toBe(0)
})

it('with a reorder window a lost message holds back the others no longer than that', async () => {
  const ids = await connected({ reorderWindowMs: 50 })
  // The first reports and their echoes have passed: what carries payload now is messages.
  for (const [peer, id] of [
    [client, ids.client],
    [server, ids.server],
  ] as const) {
    await expect.poll(async () => (await peer.stats(id)).framing?.rttMs).toBeDefined()
  }
  await link.drop('aToB', { payload: true, skip: 1, count: 1 })
  await client.agent.run(
    async (ctx, { id, size }) => {
      const conn: FakeTcpConn = ctx.state.conns[id]
      // Each in a segment of its own, so that one of them is lost.
      for (let number = 0; number < 5; number++) {
        const message = Buffer.alloc(size + number)
        message.writeUInt32LE(number)
        await new Promise((resolve) => conn.write(message, resolve))
      }
    },
    { id: ids.client, size: SIZE },
  )
  await expect.poll(() => numbersAt(server)).toEqual([0, 2, 3, 4])
})

it('an agreement survives the loss of the first answer, and so does what the listener said meanwhile', async () => {
  const host = hosts[1].address4
  await server.listen({ host, port: PORT, framing: 'counted' })
  await server.agent.run((ctx) => {
    ctx.state.listener.on('connection', (conn: FakeTcpConn) => {
      for (const text of ['one', 'two', 'three']) conn.write(text)
    })
  })
  await link.drop('bToA', { payload: true, count: 1 })
  const { id } = await client.dial({ host, port: PORT, framing: 'counted' })
  for (const text of ['one', 'two', 'three']) expect(await client.next('message')).toEqual({ id, text })
  expect((await client.stats(id)).framing?.incoming).toMatchObject({ sent: 3, received: 3, lost: 0 })
})

it('a reason for closing survives the loss of the first FIN', async () => {
  const ids = await connected()
  await link.drop('aToB', { fin: true, count: 1 })
  await client.close(ids.client, { code: 1, reason: 'repeated' })
  await server.next('closed')
  expect(await server.closeReason(ids.server)).toEqual({ code: 1, reason: 'repeated' })
})
