// The end of a flow on a wire that loses the FIN, on a virtual clock: whatever else is sent meanwhile must not make it look as if the FIN had arrived.
import { expect, it } from 'vitest'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { D_FLAGS, FIN } from '../../lib/native/layout.ts'
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

/** The wire loses what this says. */
function lose(world: World, lost: (from: 0 | 1, d: Int32Array, payload: Uint8Array) => boolean): void {
  const carry = world.carry.bind(world)
  world.carry = (from, d, payload, messages) => {
    if (!lost(from, d, payload)) carry(from, d, payload, messages)
  }
}

it('a FIN that is lost while the other end goes on sending comes again, though everything is acknowledged', async () => {
  const world = new World(SETTINGS, 1)
  const [client, server] = world.ends
  await world.run(1000)
  let fins = 0
  lose(world, (from, d) => from === 0 && (d[D_FLAGS] & FIN) !== 0 && fins++ === 0)
  for (let ms = 0; ms < 1000; ms += 5) world.at(world.now + ms, () => server.flow.send([Buffer.alloc(100)], () => {}))
  client.flow.send([Buffer.alloc(100)], () => {})
  client.flow.end(() => {})
  await world.run(2000)
  expect(fins).toBe(2)
  expect(server.counted).toMatchObject({ messages: 1, ends: 1, closes: [] })
  expect(client.counted.messages).toBe(200)
  expect(world.tracker.faults.size).toBe(0)
})

it('an answer to a hello that comes again behind the FIN does not stand in for it', async () => {
  const world = new World(SETTINGS, 2)
  const [client, server] = world.ends
  let fins = 0
  // The first answer, and the first FIN.
  let answers = 0
  lose(world, (from, d, payload) => {
    if (from !== 1) return false
    if ((d[D_FLAGS] & FIN) !== 0) return fins++ === 0
    return payload.length > 0 && answers++ === 0
  })
  await world.run(20)
  // Its repeats are farther apart than those of the hello.
  server.flow.end(() => {})
  await world.run(3000)
  expect(answers).toBeGreaterThan(1)
  expect(client.flow.stats.dialect).toBe('native')
  expect(fins).toBe(2)
  expect(client.counted).toMatchObject({ messages: 0, ends: 1, closes: [] })
})
