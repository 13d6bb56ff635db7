// What window a flow advertises, on a virtual clock: it grows as a kernel's does, but not for a peer that sends whatever the window says.
import { expect, it } from 'vitest'
import { D_WINDOW } from '../../lib/native/layout.ts'
import { DEFAULTS, World, type WorldSettings } from './world.ts'

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
  for (const fields of await advertised(DEFAULTS)) {
    expect(fields.length).toBeGreaterThan(1)
    expect(Math.max(...fields)).toBeLessThan(2 * fields[0])
  }
})

it('to a peer without a hello it is at its widest from the first segment on, and from the first message of such a peer', async () => {
  const [client, server] = await advertised({ ...DEFAULTS, dialect: 'tcpraw' })
  expect(new Set(client)).toEqual(new Set([WIDEST]))
  expect(server.at(-1)).toBe(WIDEST)
  expect(server.length).toBeGreaterThan(0)
})
