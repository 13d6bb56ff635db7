// A day in the life of a flow, on a virtual clock: bulk in both directions, chat, idle hours, bad weather, while sequence numbers and timestamps wrap. The
// router in between must find no fault, every message that the wire did not lose must arrive, and idle hours must cost next to nothing.
import { expect, it } from 'vitest'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { S_RCV_NXT } from '../../lib/flow/layout.ts'
import type { Outgoing } from '../../lib/transport.ts'
import { type End, FLOW_OPTIONS, World, type WorldSettings } from './world.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const MIB = 1 << 20
const SEGMENT = 1400
const TRAIN_MESSAGES = 46
const OPTIONS: FlowOptions = { ...FLOW_OPTIONS, keepAliveMs: 45_000 }

const SETTINGS: WorldSettings = {
  delayMs: 10,
  trackingMs: 5 * MINUTE,
  // A window of 1 MiB, of which a bulk sender has three on their way.
  scale: 4,
  // Both wrap within the first megabytes, both clocks within the first hours.
  isn: [0x7fffff00, -0x100],
  clocks: [-HOUR / 2, 0x7fffffff - 2 * HOUR],
  options: OPTIONS,
}

const train: Outgoing = Object.assign(Buffer.alloc(SEGMENT * TRAIN_MESSAGES), { segmentSize: SEGMENT })

/** Sends so many bytes in trains, one each 0.2 ms: some 300 MB/s. @returns messages sent */
function bulk(world: World, from: End, bytes: number): number {
  const trains = Math.ceil(bytes / train.length)
  let sent = 0
  const next = () => {
    if (sent++ < trains) from.flow.send([train], () => world.at(world.now + 0.2, next))
  }
  next()
  return trains * TRAIN_MESSAGES
}

/** One message each so often. @returns messages sent in `ms` */
function chat(world: World, from: End, everyMs: number, ms: number): number {
  const count = Math.floor(ms / everyMs)
  for (let i = 0; i < count; i++) world.at(world.now + i * everyMs, () => from.flow.send([Buffer.alloc(100, i)], () => {}))
  return count
}

const judged = (end: End) => {
  const { window, ack, timestamp, reset } = end.engine.counters
  return { window, ack, timestamp, reset }
}
const CLEAN = { window: 0, ack: 0, timestamp: 0, reset: 0 }

it('lives 24 hours without a stall or a fault', { timeout: 120_000 }, async () => {
  const world = new World(SETTINGS, 1)
  const [client, server] = world.ends
  let [up, down] = [0, 0]
  for (let hour = 0; hour < 24; hour++) {
    switch (hour % 4) {
      case 0: // one way, half a round of the number space; the other way says nothing
        up += bulk(world, client, 2100 * MIB)
        break
      case 1:
        down += bulk(world, server, 700 * MIB)
        up += bulk(world, client, 300 * MIB)
        break
      case 2:
        up += chat(world, client, 7000, HOUR - MINUTE)
        down += chat(world, server, 61_000, HOUR - MINUTE)
        break
      // 3: nothing at all
    }
    await world.run(HOUR)
    expect(Object.fromEntries(world.tracker.faults)).toEqual({})
    expect({ up: server.counted.messages, down: client.counted.messages }).toEqual({ up, down })
  }
  for (const { engine, counted } of world.ends) {
    expect(engine.flowCount).toBe(1)
    expect(counted).toMatchObject({ closes: [], ends: 0 })
  }
  for (const end of world.ends) expect(judged(end)).toEqual(CLEAN)
})

it('in bad weather loses what the wire loses, and nothing else', async () => {
  const world = new World({ ...SETTINGS, delayMs: 40 }, 2)
  const [client, server] = world.ends
  Object.assign(world.weather, { loss: 0.02, jitterMs: 8 })
  let sent = 0
  for (let round = 0; round < 6; round++) {
    sent += bulk(world, client, 300 * MIB) + bulk(world, server, 200 * MIB) + chat(world, client, 5000, 10 * MINUTE)
    await world.run(20 * MINUTE)
    // Hellos are lost too, and an acknowledgement in a lost packet is no message.
    expect(client.counted.messages + server.counted.messages).toBe(sent - world.lostMessages + helloCopies(world, sent))
  }
  // What was overtaken by more than a window is looked away from by a router, not called invalid.
  for (const fault of ['overshot', 'overAck', 'rst', 'expired'] as const) expect(world.tracker.faults.get(fault) ?? 0).toBe(0)
  for (const end of world.ends) expect(judged(end)).toMatchObject({ timestamp: 0, reset: 0 })
})

/** Copies of the two hellos that the wire has lost: they count as messages there, never in the streams. */
function helloCopies(world: World, sent: number): number {
  const [client, server] = world.ends
  const arrived = client.counted.messages + server.counted.messages
  const copies = arrived - (sent - world.lostMessages)
  expect(copies).toBeLessThan(4)
  return copies
}

it('a pulled cable: nothing is heard, and both ends give up after twice keepAliveMs', async () => {
  const world = new World(SETTINGS, 3)
  const [client, server] = world.ends
  bulk(world, client, 100 * MIB)
  await world.run(1000)
  world.weather.cut = true
  await world.run(2 * OPTIONS.keepAliveMs - 2000)
  expect([client.counted.closes, server.counted.closes]).toEqual([[], []])
  await world.run(OPTIONS.keepAliveMs)
  expect([client.counted.closes, server.counted.closes]).toEqual([['ETIMEDOUT'], ['ETIMEDOUT']])
})

it('a cable that is pulled for less is outlived', async () => {
  const world = new World(SETTINGS, 4)
  const [client, server] = world.ends
  await world.run(10 * MINUTE)
  world.weather.cut = true
  await world.run(OPTIONS.keepAliveMs)
  world.weather.cut = false
  await world.run(10 * MINUTE)
  const sent = chat(world, client, 100, MINUTE)
  await world.run(MINUTE + 1000)
  expect(server.counted).toMatchObject({ messages: sent, closes: [] })
  expect(client.counted.closes).toEqual([])
})

it.each([1, 3, 5, 9])('the FIN of a dead process ends a flow that has moved on by %i GiB', async (gib) => {
  const world = new World({ ...SETTINGS, scale: 8 }, 5)
  const [client, server] = world.ends
  bulk(world, client, gib * 1024 * MIB)
  await world.run(MINUTE)
  const moved = (server.flow.slot.words[server.flow.slot.base + S_RCV_NXT] - SETTINGS.isn[0]) >>> 0
  expect(Math.floor(moved / 2 ** 30)).toBe(gib % 4)
  client.die()
  await world.run(1)
  expect(server.counted.closes).toEqual(['ECONNRESET'])
})

it('idleTimeoutMs ends what keepalive alone would have kept: nothing is heard where nobody answers', async () => {
  const world = new World({ ...SETTINGS, options: { ...OPTIONS, keepAliveMs: 0, idleTimeoutMs: HOUR } }, 6)
  const [client] = world.ends
  chat(world, client, 1000, MINUTE)
  await world.run(MINUTE)
  await world.run(HOUR - 2000)
  expect(client.counted.closes).toEqual([])
  await world.run(4000)
  expect(client.counted.closes).toEqual(['ERR_FAKETCP_IDLE'])
})

it('a process that was stopped for longer than idleTimeoutMs reads what has come meanwhile before it calls the peer silent', async () => {
  const world = new World({ ...SETTINGS, options: { ...OPTIONS, keepAliveMs: 0, idleTimeoutMs: MINUTE } }, 7)
  const [client, server] = world.ends
  const message = Buffer.alloc(100)
  client.flow.send([message], () => {})
  await world.run(MINUTE / 2)
  // So that the client's patience ends later: its acknowledgement is lost.
  server.flow.send([message], () => {})
  await world.run(20)
  world.weather.cut = true
  await world.run(1000)
  world.weather.cut = false
  server.stop()
  await world.run(MINUTE / 2 - 2000)
  client.flow.send([message], () => {})
  await world.run(2500)
  server.resume()
  await world.run(1000)
  expect([server.counted, client.counted]).toMatchObject([
    { messages: 2, closes: [] },
    { messages: 1, closes: [] },
  ])
})
