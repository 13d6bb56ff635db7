// The flow table in one thread: against a Map, at its limits, and what it refuses.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  CLOSING,
  F_BYTES_IN,
  FREE,
  H_LAYOUT_VERSION,
  LAYOUT_VERSION,
  OPENING,
  S_MAX_MESSAGE,
  S_STATE,
  S_VERSION,
} from '../../lib/flow/layout.ts'
import { EXISTS, FlowTable, FULL } from '../../lib/flow/table.ts'
import { KEY_PORTS } from '../../lib/native/layout.ts'
import { damage } from './consistency.ts'
import { collidingKeys, ipv4Key } from './keys.ts'
import { interrupted, newThread } from './threads.ts'

describe('FlowTable', () => {
  it('behaves like a Map with a limit, whatever is inserted, found and removed', () => {
    const operation = fc.record({ is: fc.constantFrom('insert', 'insert', 'remove', 'find'), key: fc.nat(11) })
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 10 }),
        fc.constantFrom(1, 2, 16),
        fc.boolean(),
        fc.array(operation, { maxLength: 80 }),
        (capacity, shards, collide, operations) => {
          const table = FlowTable.create({ capacity, shards })
          const owner = table.register()
          const keys = collide ? collidingKeys(table, 12) : Array.from({ length: 12 }, (_, i) => ipv4Key(i, 40000 + 2 * i))
          const model = new Map<number, number>()
          for (const { is, key } of operations) {
            const known = model.get(key)
            if (is === 'insert') {
              const slot = table.insert(keys[key], 0, owner)
              if (known !== undefined) expect(slot).toBe(EXISTS)
              else if (model.size === capacity) expect(slot).toBe(FULL)
              else {
                expect(slot).toBeGreaterThanOrEqual(0)
                expect([...model.values()]).not.toContain(slot)
                model.set(key, slot)
              }
            } else if (is === 'remove' && known !== undefined) {
              expect(table.remove(known, owner)).toBe(true)
              expect(table.remove(known, owner)).toBe(false)
              model.delete(key)
            }
            for (let i = 0; i < keys.length; i++) expect(table.find(keys[i], 0)).toBe(model.get(i) ?? -1)
            expect(table.size).toBe(model.size)
          }
          const entries = [...table.entries()]
          expect(new Map(entries.map(({ slot, key }) => [keys.findIndex((other) => other.join() === key.join()), slot]))).toEqual(model)
          expect(damage(table)).toEqual([])
        },
      ),
    )
  })

  it('fills to its capacity although the hash spreads unevenly over the shards, and takes new flows once there is room', () => {
    for (const [capacity, shards] of [
      [1, 256],
      [100, 64],
      [5000, 16],
    ]) {
      const table = FlowTable.create({ capacity, shards })
      const owner = table.register()
      for (let i = 0; i < capacity; i++) expect(table.insert(ipv4Key(i, 40000), 0, owner)).toBeGreaterThanOrEqual(0)
      expect(table.insert(ipv4Key(capacity, 40000), 0, owner)).toBe(FULL)
      expect(table.insert(ipv4Key(0, 40000), 0, owner)).toBe(EXISTS)
      expect(table.size).toBe(capacity)
      expect(table.remove(table.find(ipv4Key(0, 40000), 0), owner)).toBe(true)
      expect(table.insert(ipv4Key(capacity, 40000), 0, owner)).toBeGreaterThanOrEqual(0)
      expect(damage(table)).toEqual([])
    }
  })

  it('finds every key of a chain, whichever of them is removed', () => {
    fc.assert(
      fc.property(fc.shuffledSubarray([...Array(20).keys()]), (removed) => {
        const table = FlowTable.create({ capacity: 20, shards: 1 })
        const owner = table.register()
        const keys = collidingKeys(table, 20)
        const slots = keys.map((key) => table.insert(key, 0, owner))
        for (const i of removed) {
          table.remove(slots[i], owner)
          slots[i] = -1
          expect(keys.map((key) => table.find(key, 0))).toEqual(slots)
        }
      }),
      { numRuns: 20 },
    )
  })

  it('hands out a slot with state opening and every other word 0, also when it was used before', () => {
    const table = FlowTable.create({ capacity: 1 })
    const owner = table.register()
    const slot = table.insert(ipv4Key(1, 1), 0, owner)
    const base = table.base(slot)
    table.words[base + S_STATE] = CLOSING
    table.words[base + S_MAX_MESSAGE] = 1400
    table.floats[(base >> 1) + F_BYTES_IN] = 12.5
    expect([...table.entries()]).toMatchObject([{ slot, state: CLOSING, owner, bytesIn: 12.5 }])
    table.remove(slot, owner)
    expect(table.words[base + S_STATE]).toBe(FREE)
    const version = table.words[base + S_VERSION]
    expect(table.insert(ipv4Key(2, 2), 0, owner)).toBe(slot)
    expect(table.words[base + S_VERSION]).toBe(version + 2)
    expect(table.words[base + S_MAX_MESSAGE]).toBe(0)
    expect([...table.entries()]).toMatchObject([{ slot, state: OPENING, owner, key: ipv4Key(2, 2), bytesIn: 0 }])
  })

  it('finds nothing where a flow of another thread is removed while its key is being compared', () => {
    const table = FlowTable.create({ capacity: 1 })
    const [first, second] = [newThread(table), newThread(table)]
    const slot = first.view.insert(ipv4Key(1, 1), 0, first.owner)
    // Not an Int32Array, so that its last word can tell when it is read: by the hash, by the first look, by the validated look.
    let reads = 0
    const key = Object.defineProperty({ ...ipv4Key(1, 1) }, KEY_PORTS, {
      get() {
        if (++reads === 3) expect(first.view.remove(slot, first.owner)).toBe(true)
        return ipv4Key(1, 1)[KEY_PORTS]
      },
    })
    expect(second.view.find(key as unknown as Int32Array, 0)).toBe(-1)
    expect(reads).toBeGreaterThanOrEqual(3)
  })

  it('leaves a slot out of the entries that changes hands while it is read', () => {
    const table = FlowTable.create({ capacity: 1 })
    const [first, second] = [newThread(table), newThread(table)]
    first.view.insert(ipv4Key(1, 1), 0, first.owner)
    for (const step of [0, 1]) {
      const meanwhile = (): void => {
        first.view.remove(0, first.owner)
        expect(second.view.insert(ipv4Key(2, 2), 0, second.owner)).toBe(0)
      }
      expect(interrupted(step, () => [...table.entries()], meanwhile)).toEqual([])
      expect([...table.entries()]).toMatchObject([{ owner: second.owner, key: ipv4Key(2, 2) }])
      second.view.remove(0, second.owner)
      first.view.insert(ipv4Key(1, 1), 0, first.owner)
    }
  })

  it('shows an attached view the same flows, and gives one thread one number', () => {
    const table = FlowTable.create({ capacity: 4 })
    const owner = table.register()
    const slot = table.insert(ipv4Key(1, 1), 0, owner)
    const view = FlowTable.attach(structuredClone(table.handle))
    expect(view.find(ipv4Key(1, 1), 0)).toBe(slot)
    expect(view.register()).toBe(owner)
    expect(view.remove(slot, owner)).toBe(true)
    expect(table.find(ipv4Key(1, 1), 0)).toBe(-1)
  })

  it('refuses options out of range', () => {
    for (const capacity of [0, -1, 1.5, (1 << 20) + 1, Number.NaN]) expect(() => FlowTable.create({ capacity })).toThrow(RangeError)
    for (const shards of [0, 3, 512, 1.5]) expect(() => FlowTable.create({ shards })).toThrow(RangeError)
    expect(FlowTable.create().capacity).toBe(65_536)
    expect(FlowTable.create({ capacity: 1 << 20 }).size).toBe(0)
  })

  it('refuses buffers that are no table of this layout', () => {
    const attach = (buffer: unknown): unknown => FlowTable.attach({ buffer } as { buffer: SharedArrayBuffer })
    for (const buffer of [undefined, new ArrayBuffer(64), new SharedArrayBuffer(8), new SharedArrayBuffer(4096)]) {
      expect(() => attach(buffer)).toThrow(TypeError)
    }
    const table = FlowTable.create({ capacity: 1 })
    table.words[H_LAYOUT_VERSION]++
    expect(() => FlowTable.attach(table.handle)).toThrow(`layout ${LAYOUT_VERSION} is expected, got layout ${LAYOUT_VERSION + 1}`)
  })

  it('refuses an owner number that is not this thread’s, and keys that do not fit their array', () => {
    const table = FlowTable.create({ capacity: 1 })
    expect(() => table.insert(ipv4Key(1, 1), 0, 0)).toThrow(RangeError)
    const owner = table.register()
    expect(() => table.insert(ipv4Key(1, 1), 0, owner + 1)).toThrow(RangeError)
    expect(() => table.remove(0, owner + 1)).toThrow(RangeError)
    expect(() => table.insert(ipv4Key(1, 1), 1, owner)).toThrow(RangeError)
    for (const slot of [-1, 0, 1, 0.5, Number.NaN]) expect(table.remove(slot, owner)).toBe(false)
    expect(damage(table)).toEqual([])
  })
})
