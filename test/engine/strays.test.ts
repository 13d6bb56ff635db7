// Which exceptions a shard makes for flows that are not its own: none too few, and no more than a program can hold.
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Strays } from '../../lib/engine/strays.ts'
import { MAX_EXCEPTIONS, shardOf } from '../../lib/wire/shards.ts'

const COUNT = 4

/** The key of a client of 10.0.0.1 that does not belong to shard 0; of `shard` where that is given. */
function keyOf(number: number, shard?: number): Int32Array {
  for (let port = 1024 + number * 50; ; port++) {
    const key = Int32Array.of(0, 0, 0xffff, 0x0a000001, 0, 0, 0xffff, 0x0a000002, (port << 16) | 9191)
    const of = shardOf(key, 0, COUNT)
    if (shard === undefined ? of !== 0 : of === shard) return key
  }
}

function captures(strays: Strays, key: Int32Array): boolean {
  const { exceptions, wholeShards } = strays.filter
  const excepted = exceptions.some(({ port, address }) => port === key[8] >>> 16 && address[3] === key[3])
  return excepted || wholeShards.includes(shardOf(key, 0, COUNT))
}

it('excepts each one by one, and tells when the filter has changed', () => {
  const strays = new Strays({ index: 0, count: COUNT })
  expect(strays.filter).toEqual({ index: 0, count: COUNT, exceptions: [], wholeShards: [] })
  expect(strays.add(keyOf(1))).toBe(true)
  expect(strays.filter.exceptions).toEqual([{ address: keyOf(1).slice(0, 4), port: keyOf(1)[8] >>> 16, users: 1 }])
  expect(strays.remove(keyOf(1))).toBe(true)
  expect(strays.remove(keyOf(1))).toBe(false)
  expect(strays.filter.exceptions).toEqual([])
})

it('keeps an exception until its last flow is gone: a new one on the same 4-tuple comes before the old one goes', () => {
  const strays = new Strays({ index: 0, count: COUNT })
  expect([strays.add(keyOf(1)), strays.add(keyOf(1))]).toEqual([true, false])
  expect(strays.remove(keyOf(1))).toBe(false)
  expect(captures(strays, keyOf(1))).toBe(true)
  expect(strays.remove(keyOf(1))).toBe(true)
})

it('beyond the bound takes the shard with the most of them as a whole, and gives it up when half of the room is free', () => {
  const strays = new Strays({ index: 0, count: COUNT })
  for (let i = 0; i < 10; i++) strays.add(keyOf(i, 1))
  for (let i = 0; i < MAX_EXCEPTIONS - 10; i++) strays.add(keyOf(i, 2))
  expect(strays).toMatchObject({ exceptions: MAX_EXCEPTIONS, wholeShards: 0 })
  expect(strays.add(keyOf(900, 3))).toBe(true)
  expect(strays.filter.wholeShards).toEqual([2])
  expect(strays.exceptions).toBe(11)
  expect(strays.add(keyOf(901, 2))).toBe(false)
  const of2 = [keyOf(901, 2), ...Array.from({ length: MAX_EXCEPTIONS - 10 }, (_, i) => keyOf(i, 2))]
  const changes = of2.map((key) => strays.remove(key))
  // 32 places: 11 are taken, so from 21 flows on it is excepted one by one again, and each end changes the filter.
  expect(changes.indexOf(true)).toBe(of2.length - 21 - 1)
  expect(strays).toMatchObject({ exceptions: 11, wholeShards: 0 })
})

it('sees every stray and stays within the bound, whatever comes and goes', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(199), { maxLength: 600, size: 'max' }), (toggled) => {
      const strays = new Strays({ index: 0, count: COUNT })
      const alive = new Map<number, Int32Array>()
      for (const number of toggled) {
        const key = alive.get(number) ?? keyOf(number)
        if (alive.delete(number)) strays.remove(key)
        else {
          alive.set(number, key)
          strays.add(key)
        }
      }
      const { exceptions, wholeShards } = strays.filter
      expect(exceptions.length).toBeLessThanOrEqual(MAX_EXCEPTIONS)
      expect([exceptions.length, wholeShards.length]).toEqual([strays.exceptions, strays.wholeShards])
      expect([...alive.values()].every((key) => captures(strays, key))).toBe(true)
      for (const key of alive.values()) strays.remove(key)
      expect(strays).toMatchObject({ exceptions: 0, wholeShards: 0 })
    }),
    { numRuns: 60, seed: 9191 },
  )
})
