// What window a flow advertises, on a virtual clock: it grows as a kernel's does, but not for a peer that sends whatever the window says.
import { expect, it } from 'vitest'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { D_WINDOW } from '../../lib/native/layout.ts'
import { World, type WorldSettings } from './world.ts'

const OPTIONS: FlowOptions = {
  idleTimeoutMs: 0,
  keepAliveMs: 0,
  strict: true,
  dscp: 0,
  framing: 'none',
  reorderWindowMs: 0,
  helloKey: undefined,
}
const SETTINGS: WorldSettings = { delayMs: 10, trackingMs: 3600_000, scale: 7, isn: [1000, 2000], clocks: [1, 2], options: OPTIONS }
/** What the field holds, which is 8 MiB with this scale. */
const WIDEST = 65535

/** Fields of all segments of either end, in order. */
async function advertised(settings: WorldSettings): Promise<[number[], number[]]> {
  const world = new World(settings, 1)
  const fields: [number[], number[]] = [[], []]
  const carry = world.carry.bind(world)
  world.carry = (from, d, payload, messages) => {
    fields[from].push(d[D_WINDOW])
    carry(from, d, payload, messages)
  }
  await world.run(500)
  for (const { flow } of world.ends) flow.send([Buffer.alloc(1000)], () => {})
  await world.run(500)
  return fields
}

it('between two ends of this library it begins with that of the handshake', async () => {
  for (const fields of await advertised(SETTINGS)) {
    expect(fields.length).toBeGreaterThan(1)
    expect(Math.max(...fields)).toBeLessThan(2 * fields[0])
  }
})

it('to a peer without a hello it is at its widest from the first segment on, and from the first message of such a peer', async () => {
  const [client, server] = await advertised({ ...SETTINGS, dialect: 'tcpraw' })
  expect(new Set(client)).toEqual(new Set([WIDEST]))
  expect(server.at(-1)).toBe(WIDEST)
  expect(server.length).toBeGreaterThan(0)
})
