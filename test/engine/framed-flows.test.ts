// Framed flows on a virtual clock: what both ends know after bad weather, what an hour of silence costs, and hellos in odd places.
import { expect, it } from 'vitest'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { S_RCV_NXT } from '../../lib/flow/layout.ts'
import { D_FLAGS, D_LENGTH, D_SEGMENT, D_SEQ, FIN } from '../../lib/native/layout.ts'
import { DEFAULTS, type End, FLOW_OPTIONS, World, type WorldSettings } from './world.ts'

const MINUTE = 60_000
const COUNTED: FlowOptions = { ...FLOW_OPTIONS, framing: 'counted' }
const SETTINGS: WorldSettings = { ...DEFAULTS, options: COUNTED }

interface Packet {
  readonly from: 0 | 1
  readonly at: number
  readonly d: Int32Array
  readonly payload: Uint8Array
}

/** Every packet that leaves, from now on. */
function packetsOf(world: World): Packet[] {
  const packets: Packet[] = []
  const carry = world.carry.bind(world)
  world.carry = (from, d, payload, messages) => {
    packets.push({ from, at: world.now, d: d.slice(), payload: Buffer.from(payload) })
    carry(from, d, payload, messages)
  }
  return packets
}

/** Messages of changing sizes, some in each millisecond. @returns how many */
function chatter(world: World, from: End, ms: number): number {
  let count = 0
  for (let at = 0; at < ms; at++) {
    const burst = Array.from({ length: 1 + Math.floor(world.random() * 5) }, (_, i) => Buffer.alloc(1 + (i >> 1) * 50))
    count += burst.length
    world.at(world.now + at, () => from.flow.send(burst, () => {}))
  }
  return count
}

const framingOf = ({ flow }: End) => {
  if (flow.stats.framing === undefined) throw new Error('the flow is not framed')
  return flow.stats.framing
}

it('in bad weather both ends know exactly what was lost, either way', async () => {
  const world = new World({ ...SETTINGS, delayMs: 30 }, 7)
  const [client, server] = world.ends
  await world.run(1000)
  Object.assign(world.weather, { loss: 0.05, jitterMs: 6 })
  const up = chatter(world, client, 20_000)
  const down = chatter(world, server, 20_000)
  await world.run(21_000)
  Object.assign(world.weather, { loss: 0, jitterMs: 0 })
  // The last word of both is not lost.
  client.flow.send([Buffer.from('end')], () => {})
  server.flow.send([Buffer.from('end')], () => {})
  await world.run(2000)
  for (const [from, to, count] of [
    [client, server, up + 1],
    [server, client, down + 1],
  ] as const) {
    const { messages } = to.counted
    const { incoming } = framingOf(to)
    expect(incoming).toMatchObject({ sent: count, received: messages, lost: count - messages, duplicated: 0, late: 0 })
    expect(incoming.lost).toBeGreaterThan(count * 0.03)
    expect(incoming.reordered).toBeGreaterThan(count * 0.1)
    const { sent, received, lost, duplicated, reordered } = framingOf(from).outgoing
    expect({ sent, received, lost, duplicated, reordered }).toEqual({
      sent: count,
      received: messages,
      lost: count - messages,
      duplicated: 0,
      reordered: incoming.reordered,
    })
    expect(framingOf(from).rttMs?.min).toBeGreaterThanOrEqual(60)
    expect(framingOf(from).rttMs?.last).toBeCloseTo(60)
  }
})

it('in order, within a window longer than any detour, nothing that arrives is dropped', async () => {
  const world = new World({ ...SETTINGS, options: { ...COUNTED, reorderWindowMs: 20 } }, 8)
  const [client, server] = world.ends
  await world.run(1000)
  Object.assign(world.weather, { loss: 0.02, jitterMs: 10 })
  const sent = chatter(world, client, 5000)
  await world.run(6000)
  const { incoming, ignored } = framingOf(server)
  expect([server.counted.messages, ignored.overtaken]).toEqual([incoming.received, 0])
  expect(incoming.received + incoming.lost).toBe(sent)
})

it('reports each second while there is traffic, and is silent for hours without', async () => {
  const world = new World(SETTINGS, 9)
  const [client] = world.ends
  const packets = packetsOf(world)
  await world.run(MINUTE)
  packets.length = 0
  await world.run(60 * MINUTE)
  expect(packets).toEqual([])
  for (let i = 0; i < 600; i++) world.at(world.now + i * 100, () => client.flow.send([Buffer.alloc(100)], () => {}))
  await world.run(2 * MINUTE)
  for (const side of [0, 1]) {
    const reports = packets.filter(({ from, payload }) => from === side && payload.length === 39)
    // A second after the first message that the one before does not speak of.
    expect(Math.min(...reports.slice(1).map(({ at }, i) => at - reports[i].at))).toBeGreaterThanOrEqual(1000)
    expect(Math.max(...reports.slice(1).map(({ at }, i) => at - reports[i].at))).toBeLessThanOrEqual(1100)
    expect(reports.length).toBeGreaterThanOrEqual(54)
  }
})

it('without a hello of the other a listener gives up after 10 s, a dialler when its repeats have not been answered', async () => {
  const world = new World(SETTINGS, 13)
  const [client, server] = world.ends
  world.weather.cut = true
  await world.run(9_999)
  expect(server.counted.closes).toEqual([])
  await world.run(10)
  expect(server.counted.closes).toEqual(['ERR_FAKETCP_FRAMING'])
  await world.run(12_590 - 10_009)
  expect(client.counted.closes).toEqual([])
  await world.run(20)
  expect(client.counted.closes).toEqual(['ERR_FAKETCP_FRAMING'])
  await world.run(MINUTE)
  expect(world.ends.map(({ engine }) => engine.flowCount)).toEqual([0, 0])
})

it('what a listener says before its hello has come is kept until it has', async () => {
  const world = new World(SETTINGS, 10)
  const [client, server] = world.ends
  const carry = world.carry.bind(world)
  let swallowed = 0
  // The first answer is lost.
  world.carry = (from, d, payload, messages) => {
    if (from === 1 && payload.length > 0 && swallowed++ === 0) return
    carry(from, d, payload, messages)
  }
  await world.run(12)
  server.flow.send([Buffer.from('1'), Buffer.from('2'), Buffer.from('3')], () => {})
  await world.run(100)
  expect(client.counted.messages).toBe(0)
  await world.run(500)
  expect(client.counted.messages).toBe(3)
  expect(framingOf(client).incoming.lost).toBe(0)
})

it.each(['none', 'counted'] as const)('an answer that comes again, merged behind messages, is no message (framing %s)', async (framing) => {
  const world = new World({ ...SETTINGS, options: { ...COUNTED, framing } }, 11)
  const [client, server] = world.ends
  const packets = packetsOf(world)
  await world.run(1000)
  const answer = packets.find(({ from, payload }) => from === 1 && payload.length > 0)
  if (answer === undefined) throw new Error('no answer')
  const before = packets.length
  server.flow.send([Buffer.alloc(300), Buffer.alloc(300)], () => {})
  // Caught on its way out.
  world.weather.cut = true
  await world.run(1)
  world.weather.cut = false
  const train = packets[before]
  expect(train.d[D_LENGTH]).toBe(2 * train.d[D_SEGMENT])
  const merged = train.d.slice()
  merged[D_LENGTH] += answer.payload.length
  client.arrive(merged, Buffer.concat([train.payload, answer.payload]))
  expect(client.counted.messages).toBe(2)
  const { words, base } = client.flow.slot
  expect(words[base + S_RCV_NXT]).toBe(train.d[D_SEQ] + merged[D_LENGTH])
})

it('the reason for closing comes again with the FIN when that is lost', async () => {
  const world = new World(SETTINGS, 12)
  const [client, server] = world.ends
  await world.run(1000)
  const packets = packetsOf(world)
  const reason = { code: 7, reason: 'done' }
  world.weather.cut = true
  client.flow.end(() => {}, reason)
  await world.run(100)
  world.weather.cut = false
  await world.run(1000)
  expect(server.flow.closeReason).toEqual(reason)
  expect(server.counted.ends).toBe(1)
  const fins = packets.filter(({ from, d }) => from === 0 && (d[D_FLAGS] & FIN) !== 0)
  expect(fins).toHaveLength(2)
  expect(fins.map(({ d, payload }) => [d[D_SEQ], payload.toString()])).toEqual(
    Array(2).fill([fins[0].d[D_SEQ], fins[0].payload.toString()]),
  )
  expect(world.tracker.faults.size).toBe(0)
})
