// Threads that die inside the table, before each of its writes to shared memory, also while they repair what a dead one left.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { EXISTS, FlowTable, FULL } from '../../lib/flow/table.ts'
import { damage } from './consistency.ts'
import { ipv4Key } from './keys.ts'
import { diesAt, newThread, type SimulatedThread } from './threads.ts'

const keys = Array.from({ length: 12 }, (_, i) => ipv4Key(i, 40000 + i))

/** What the dying thread is at, given a table with its flows under keys 0 and 1. */
const DEATHS: Record<string, (thread: SimulatedThread) => void> = {
  insert: ({ view, owner }) => view.insert(keys[2], 0, owner),
  'refused insert': ({ view, owner }) => view.insert(keys[0], 0, owner),
  remove: ({ view, owner }) => view.remove(view.find(keys[0], 0), owner),
}

/** A table of 4 with two flows of a thread that is about to die, and one, under key 3, of one that lives. */
function scene(): { table: FlowTable; dying: SimulatedThread; living: SimulatedThread } {
  const table = FlowTable.create({ capacity: 4, shards: 2 })
  const dying = newThread(table)
  const living = newThread(table)
  dying.view.insert(keys[0], 0, dying.owner)
  dying.view.insert(keys[1], 0, dying.owner)
  living.view.insert(keys[3], 0, living.owner)
  return { table, dying, living }
}

/**
 * All that a living thread must still be able to do, and that nothing is lost.
 * @param uncertain - the key that the dead thread was inserting or removing
 */
function expectSound({ view, owner }: SimulatedThread, uncertain: number): void {
  const kept = view.find(keys[3], 0)
  expect(kept).toBeGreaterThanOrEqual(0)
  for (const key of [0, 1]) {
    if (key === uncertain) continue
    expect(view.find(keys[key], 0)).toBeGreaterThanOrEqual(0)
    expect(view.insert(keys[key], 0, owner)).toBe(EXISTS)
  }
  expect(view.reap()).toBeOneOf([uncertain === 0 ? 1 : 2, 2, 3])
  expect(view.find(keys[3], 0)).toBe(kept)
  expectOneFlowAndNoLeak({ view, owner })
}

function expectOneFlowAndNoLeak({ view, owner }: Pick<SimulatedThread, 'view' | 'owner'>): void {
  expect(damage(view)).toEqual([])
  expect(view.size).toBe(1)
  for (const key of [4, 5, 6]) expect(view.insert(keys[key], 0, owner)).toBeGreaterThanOrEqual(0)
  expect(view.insert(keys[7], 0, owner)).toBe(FULL)
  expect(damage(view)).toEqual([])
}

describe('a thread that dies', () => {
  for (const [name, act] of Object.entries(DEATHS)) {
    const uncertain = name === 'remove' ? 0 : 2

    it(`in the middle of ${name} leaves a table that others repair, whichever write was its last`, () => {
      let step = 0
      for (let died = true; died; step++) {
        const { dying, living } = scene()
        died = diesAt(step, () => act(dying))
        dying.die()
        expectSound(living, uncertain)
      }
      expect(step).toBeGreaterThan(name === 'refused insert' ? 2 : 10)
    })

    it(`in the middle of ${name} may be followed by one that dies in the middle of the repair`, () => {
      for (let step = 0, died = true; died; step++) {
        let repairing = true
        // Every third step of the repair; which third, changes with each step of the first thread.
        for (let repairStep = step % 3; repairing; repairStep += 3) {
          const { table, dying, living } = scene()
          died = diesAt(step, () => act(dying))
          dying.die()
          const second = newThread(table)
          repairing = diesAt(repairStep, () => second.view.reap())
          second.die()
          // What the second thread reaped is gone as well.
          living.view.reap()
          expectOneFlowAndNoLeak(living)
        }
      }
    }, 60_000)
  }

  it('anywhere, any number of times, never hangs, damages or leaks anything', () => {
    const operation = fc.record({
      is: fc.constantFrom('insert', 'insert', 'remove', 'reap'),
      thread: fc.nat(2),
      key: fc.nat(keys.length - 1),
      deathStep: fc.option(fc.nat(60), { nil: undefined, freq: 3 }),
    })
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), fc.constantFrom(1, 2, 16), (operations, shards) => {
        const table = FlowTable.create({ capacity: 6, shards })
        const threads = [newThread(table), newThread(table), newThread(table)]
        for (const { is, thread, key, deathStep } of operations) {
          const { view, owner } = threads[thread]
          const act = (): void => {
            if (is === 'reap') view.reap()
            else if (is === 'insert') view.insert(keys[key], 0, owner)
            else view.remove(view.find(keys[key], 0), owner)
          }
          if (deathStep === undefined) act()
          else if (diesAt(deathStep, act)) {
            threads[thread].die()
            threads[thread] = newThread(table)
          }
          // A flow of a living thread is found in its slot by everybody, also while locks of dead threads lie about.
          const owners = threads.map((other) => other.owner)
          for (const entry of table.entries()) {
            if (!owners.includes(entry.owner)) continue
            for (const other of threads) expect(other.view.find(entry.key, 0)).toBe(entry.slot)
          }
        }
        const [{ view, owner }] = threads
        view.reap()
        expect(damage(view)).toEqual([])
        for (const entry of view.entries()) expect(threads.map((other) => other.owner)).toContain(entry.owner)
        const room = view.capacity - view.size
        let inserted = 0
        for (let i = 0; view.insert(ipv4Key(100 + i, 1), 0, owner) !== FULL; i++) inserted++
        expect(inserted).toBe(room)
      }),
      { numRuns: 150 },
    )
  }, 60_000)

  it('and leaves a reader of its shard waiting for nothing', () => {
    for (let step = 0, died = true; died; step++) {
      const { dying, living } = scene()
      died = diesAt(step, () => dying.view.insert(keys[2], 0, dying.owner))
      dying.die()
      for (const key of [0, 1, 3]) expect(living.view.find(keys[key], 0)).toBeGreaterThanOrEqual(0)
      expect(living.view.find(keys[9], 0)).toBe(-1)
    }
  })

  it('not at all, but leaves by an exception, has what it left repaired by its own next calls', () => {
    for (let step = 0, died = true; died; step++) {
      const { dying: cutOff, living } = scene()
      died = diesAt(step, () => cutOff.view.insert(keys[2], 0, cutOff.owner))
      expect(cutOff.view.reap()).toBe(0)
      expect(damage(cutOff.view)).toEqual([])
      expect(cutOff.view.size).toBe(cutOff.view.find(keys[2], 0) < 0 ? 3 : 4)
      for (const key of [0, 1, 3]) expect(living.view.find(keys[key], 0)).toBeGreaterThanOrEqual(0)
    }
  })
})
