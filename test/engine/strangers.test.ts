// Listeners with a key on a virtual clock: who gets in, what strangers see however they behave, and when the listener is rid of them.
import { expect, it } from 'vitest'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { Strangers } from '../../lib/engine/strangers.ts'
import {
  ACK,
  D_ACK,
  D_FLAGS,
  D_LENGTH,
  D_SEGMENT,
  D_SEQ,
  D_TSECR,
  D_TSVAL,
  D_WINDOW,
  D_WORDS,
  FIN,
  HAS_TIMESTAMPS,
  PSH,
  RST,
} from '../../lib/native/layout.ts'
import type { ChannelSink } from '../../lib/transport.ts'
import { encodeHello } from '../../lib/wire/hello.ts'
import { DEFAULTS, FLOW_OPTIONS, World, type WorldSettings } from './world.ts'

const KEY = Buffer.alloc(32, 7)
const KEYED: FlowOptions = { ...FLOW_OPTIONS, keepAliveMs: 45_000, helloKey: KEY }
const SETTINGS: WorldSettings = { ...DEFAULTS, options: KEYED }
const ISN = SETTINGS.isn[0]

/** A client that is no dialler of this library, but for what it sends; and what the listener answers. */
function stranger(options: FlowOptions = KEYED) {
  const world = new World({ ...SETTINGS, options }, 1)
  const [, server] = world.ends
  const heard: { flags: number; seq: number; ack: number; length: number }[] = []
  world.carry = (from, d) => {
    if (from === 1) heard.push({ flags: d[D_FLAGS] & (FIN | PSH | RST | ACK), seq: d[D_SEQ], ack: d[D_ACK], length: d[D_LENGTH] })
  }
  /** @param at of the first byte, behind the SYN */
  const send = (at: number, payload: Uint8Array, flags = ACK | PSH) => {
    const d = new Int32Array(D_WORDS)
    const itsFin = heard.some((one) => (one.flags & FIN) !== 0) ? 1 : 0
    d[D_SEQ] = ISN + 1 + at
    d[D_ACK] = SETTINGS.isn[1] + 1 + itsFin
    d[D_FLAGS] = flags | HAS_TIMESTAMPS
    d[D_TSVAL] = SETTINGS.clocks[0] + 1
    d[D_TSECR] = SETTINGS.clocks[1]
    d[D_LENGTH] = d[D_SEGMENT] = payload.length
    d[D_WINDOW] = 500
    server.arrive(d, payload)
  }
  return { world, server, heard, send }
}

const PURE_ACK = { flags: ACK, seq: SETTINGS.isn[1] + 1, length: 0 }
const hello = (key: Uint8Array = KEY) => encodeHello('dialler', { capabilities: 0, extensions: new Map() }, key)

it('both ends with the key begin once both have shown it, and messages flow', async () => {
  const world = new World(SETTINGS, 2)
  const [client, server] = world.ends
  await world.run(15)
  expect([client.counted.agreed, server.counted.agreed]).toEqual([0, 1])
  await world.run(10)
  expect(client.counted.agreed).toBe(1)
  client.flow.send([Buffer.alloc(1000), Buffer.alloc(1000), Buffer.alloc(10)], () => {})
  server.flow.send([Buffer.alloc(500), Buffer.alloc(500)], () => {})
  await world.run(1000)
  expect([client.counted.messages, server.counted.messages]).toEqual([2, 3])
  expect([client.flow.stats.dialect, server.flow.stats.dialect]).toEqual(['native', 'native'])
  expect(world.tracker.faults.size).toBe(0)
})

it('in bad weather they begin all the same', async () => {
  for (let seed = 0; seed < 20; seed++) {
    const world = new World(SETTINGS, seed)
    world.weather.loss = 0.2
    await world.run(12_000)
    expect(world.ends.map(({ counted }) => counted.agreed)).toEqual([1, 1])
    expect(world.ends.map(({ counted }) => counted.closes)).toEqual([[], []])
  }
})

it('a dialler without an answer gives up when its repeats have not been answered, with an error of its own', async () => {
  const world = new World(SETTINGS, 3)
  const [client] = world.ends
  world.weather.cut = true
  await world.run(12_590)
  expect(client.counted.closes).toEqual([])
  await world.run(20)
  expect(client.counted.closes).toEqual(['ERR_FAKETCP_HELLO'])
})

it.each([
  ['garbage', () => Buffer.from('GET / HTTP/1.1\r\n\r\n')],
  ['a hello of another key', () => hello(Buffer.alloc(32, 8))],
  ['a hello of no key', () => encodeHello('dialler', { capabilities: 0, extensions: new Map() })],
  ['a hello with one bit changed', () => hello().fill(0, 20, 21)],
  ['a hello that is cut short', () => hello().subarray(0, 18)],
])('%s is acknowledged and has no other answer', async (_what, payload) => {
  const { world, server, heard, send } = stranger()
  const bytes = payload()
  send(0, bytes)
  await world.run(1000)
  expect(heard).toEqual([{ ...PURE_ACK, ack: ISN + 1 + bytes.length }])
  expect(server.counted).toMatchObject({ agreed: 0, messages: 0, strange: ['hello'] })
})

it('a hello is answered once: its repeat on the same connection is the same question, on another one garbage', async () => {
  const bytes = hello()
  const first = stranger()
  first.send(0, bytes)
  first.send(0, bytes)
  await first.world.run(100)
  expect(first.server.counted.agreed).toBe(1)
  expect(first.heard.filter(({ length }) => length > 0).length).toBeGreaterThan(0)
  const second = stranger()
  second.send(0, bytes)
  await second.world.run(100)
  expect(second.heard).toEqual([{ ...PURE_ACK, ack: ISN + 1 + bytes.length }])
  expect(second.server.counted).toMatchObject({ agreed: 0, strange: ['replay'] })
})

it('who has begun with something else is a stranger for good', async () => {
  const { world, server, heard, send } = stranger()
  send(0, Buffer.from('x'))
  send(1, hello())
  send(0, hello())
  await world.run(1000)
  expect(heard.filter(({ length }) => length > 0)).toEqual([])
  expect(server.counted).toMatchObject({ agreed: 0, strange: ['hello'] })
})

it('a gap is not passed over, as a kernel would not', async () => {
  const { world, heard, send } = stranger()
  send(0, Buffer.alloc(100))
  send(200, Buffer.alloc(100))
  await world.run(1000)
  expect(heard.at(-1)).toEqual({ ...PURE_ACK, ack: ISN + 101 })
  send(100, Buffer.alloc(100))
  await world.run(1000)
  expect(heard.at(-1)).toEqual({ ...PURE_ACK, ack: ISN + 301 })
})

it('a FIN is acknowledged and answered, and the flow is gone', async () => {
  const { world, server, heard, send } = stranger()
  send(0, Buffer.alloc(10))
  send(10, Buffer.alloc(0), ACK | FIN)
  await world.run(100)
  expect(heard.at(-1)).toEqual({ flags: ACK | FIN, seq: PURE_ACK.seq, ack: ISN + 12, length: 0 })
  send(11, Buffer.alloc(0), ACK)
  await world.run(10_000)
  expect(server.engine.flowCount).toBe(0)
  expect(heard.filter(({ flags }) => (flags & RST) !== 0)).toEqual([])
})

it.each([
  [0, 40_000],
  [10_000, 5_000],
])('with idleTimeoutMs %i, who says nothing gets a FIN after %i ms, and nothing before', async (idleTimeoutMs, patienceMs) => {
  const { world, server, heard, send } = stranger({ ...KEYED, idleTimeoutMs })
  await world.run(patienceMs - 10)
  expect(heard).toEqual([])
  await world.run(20)
  expect(heard).toEqual([{ ...PURE_ACK, flags: ACK | FIN, ack: ISN + 1 }])
  expect(server.counted).toMatchObject({ agreed: 0, strange: ['hello'] })
  send(0, Buffer.alloc(0), ACK | FIN)
  await world.run(10_000)
  expect(server.engine.flowCount).toBe(0)
})

it('of too many strangers the oldest is sent away, who shows the key is none of them', () => {
  const ended: number[] = []
  const cancelled: number[] = []
  const strangers = new Strangers({ now: () => 0, after: (_ms, _run) => () => cancelled.push(1) }, 0)
  const visitor = (id: number) => ({
    ...{ attach: (_sink: ChannelSink) => {}, release: () => {}, ref: () => {}, unref: () => {} },
    end: () => void ended.push(id),
  })
  const visitors = Array.from({ length: 4098 }, (_, id) => visitor(id))
  for (const [id, one] of visitors.entries()) {
    strangers.admit(one)
    if (id === 0) strangers.recognise(one)
  }
  expect(ended).toEqual([1])
  strangers.dismiss()
  expect(ended).toHaveLength(4097)
  expect(cancelled).toHaveLength(4098)
})
