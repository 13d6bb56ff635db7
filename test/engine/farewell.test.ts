// The end of a flow on a wire that loses the FIN, on a virtual clock: whatever else is sent meanwhile must not make it look as if the FIN had arrived.
import { expect, it } from 'vitest'
import type { FlowOptions } from '../../lib/engine/flow-options.ts'
import { D_FLAGS, FIN } from '../../lib/native/layout.ts'
import { DEFAULTS, FLOW_OPTIONS, World } from './world.ts'

/** The wire loses what this says. */
function lose(world: World, lost: (from: 0 | 1, d: Int32Array, payload: Uint8Array) => boolean): void {
  const carry = world.carry.bind(world)
  world.carry = (from, d, payload, messages) => {
    if (!lost(from, d, payload)) carry(from, d, payload, messages)
  }
}

it('a FIN that is lost while the other end goes on sending comes again, though everything is acknowledged', async () => {
  const world = new World(DEFAULTS, 1)
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
  const world = new World(DEFAULTS, 2)
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

it('a process that has only just begun answers what comes for a flow that it has given up', async () => {
  const world = new World(DEFAULTS, 3)
  const [client, server] = world.ends
  await world.run(100)
  world.weather.cut = true
  client.flow.release()
  await world.run(100)
  world.weather.cut = false
  server.flow.send([Buffer.alloc(100)], () => {})
  await world.run(100)
  expect(server.counted.closes).toEqual(['ECONNRESET'])
})

it.each([0, 0.02])(
  'a flow that is given up while both ends send: no reset is invalid to the router, the other end is told (loss %f)',
  async (loss) => {
    for (let seed = 1; seed <= 50; seed++) {
      const world = new World({ ...DEFAULTS, delayMs: 30 }, seed)
      const [client, server] = world.ends
      await world.run(1000)
      world.weather.loss = loss
      for (const { flow } of world.ends) {
        for (let k = 300; k > 0; k--) world.at(world.now + 600 * world.random(), () => flow.send([Buffer.alloc(50 + k)], () => {}))
      }
      world.at(world.now + 300, () => client.flow.release())
      await world.run(1000)
      expect(server.counted.closes).toEqual(['ECONNRESET'])
      expect(world.tracker.faults.size).toBe(0)
    }
  },
)

it('in bad weather each end is told of the other’s end once, and nothing is left, whoever ends first and whatever is under way', async () => {
  for (let seed = 1; seed <= 300; seed++) {
    const framing = seed % 3 === 0 ? 'counted' : 'none'
    const options: FlowOptions = { ...FLOW_OPTIONS, framing, keepAliveMs: 45_000 }
    const world = new World({ ...DEFAULTS, delayMs: 30, options }, seed)
    await world.run(1000)
    Object.assign(world.weather, { loss: 0.1, jitterMs: 15 })
    const stories = [livesAndEnds(world, 0, true), livesAndEnds(world, 1, seed % 2 === 0)]
    await world.run(20_000)
    expect(stories.map((story) => story())).toEqual(Array(2).fill({ told: true, ends: 1, closes: [], flows: 0 }))
    for (const fault of ['overshot', 'overAck', 'rst'] as const) expect(world.tracker.faults.get(fault)).toBeUndefined()
  }
})

/**
 * One end with messages at odd times, which ends after a while, or when the other has, and is let go once both have.
 *
 * @returns what became of it
 */
function livesAndEnds(world: World, side: 0 | 1, byItself: boolean) {
  const { flow, engine, counted } = world.ends[side]
  for (let k = Math.floor(world.random() * 100); k > 0; k--) {
    world.at(world.now + 600 * world.random(), () => flow.send([Buffer.alloc(50 + k)], () => {}))
  }
  let asked = false
  let told = false
  const end = () => {
    if (asked) return
    asked = true
    flow.end(() => {
      told = true
    })
  }
  if (byItself) world.at(world.now + 200 + 400 * world.random(), end)
  const look = () => {
    if (counted.ends > 0) end()
    if (told && counted.ends > 0) flow.release()
    else world.at(world.now + 5, look)
  }
  look()
  return () => ({ told, ends: counted.ends, closes: counted.closes, flows: engine.flowCount })
}
