// Several threads at one table, some of them terminated in the middle, some while they hold a lock: no lost update, no torn entry, no hang.
import { once } from 'node:events'
import { setTimeout as delay, setImmediate } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import { describe, expect, it } from 'vitest'
import { F_MESSAGES_IN } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { damage } from './consistency.ts'
import { collidingKeys } from './keys.ts'
import { checkedKey, isWholeKey } from './stress-keys.ts'
import type { StressJob, StressReport } from './stress-worker.ts'
import { startWorker } from './worker-bundle.ts'

const SHARDS = 4
const HANG_MS = 60_000

interface Scene {
  table: FlowTable
  signals: Int32Array
  start(role: StressJob['role'], id: number, more?: Partial<StressJob>): Promise<Worker>
}

function scene(capacity: number): Scene {
  const table = FlowTable.create({ capacity, shards: SHARDS })
  table.register()
  const signals = new Int32Array(new SharedArrayBuffer(12))
  return {
    table,
    signals,
    start(role, id, more = {}) {
      const job: StressJob = { handle: table.handle, signals, role, id, rounds: 20_000, ...more }
      return startWorker(new URL('./stress-worker.ts', import.meta.url), job)
    },
  }
}

async function reportOf(worker: Worker): Promise<StressReport> {
  const [report] = (await once(worker, 'message')) as [StressReport]
  return report
}

/** After all writers have reported: their flows, with their counts, are what the table holds, once the dead are reaped. */
function expectExactly(table: FlowTable, reports: StressReport[]): void {
  expect(reports.flatMap(({ faults }) => faults)).toEqual([])
  const left = reports.flatMap((report) => report.left)
  for (const { slot, count } of left) expect(table.floats[(table.base(slot) >> 1) + F_MESSAGES_IN]).toBe(count)
  const slots = [...table.entries()].map(({ slot }) => slot)
  expect(slots).toEqual(left.map(({ slot }) => slot).sort((a, b) => a - b))
  expect(table.size).toBe(left.length)
  expect(damage(table)).toEqual([])
}

describe('several threads', () => {
  it(
    'insert, find, count and remove in one table without losing or tearing anything',
    async () => {
      // 100 slots for up to 160 flows: the table is full most of the time.
      const { table, start } = scene(100)
      const writers = await Promise.all([0, 1, 2, 3].map((id) => start('writer', id)))
      const reports = Promise.all(writers.map(reportOf))
      let done = false
      reports.finally(() => {
        done = true
      })
      while (!done) {
        for (const { key } of table.entries()) expect(isWholeKey(key)).toBe(true)
        for (let n = 0; n < 200; n++) {
          const slot = table.find(checkedKey(n & 3, n), 0)
          expect(slot).toBeLessThan(table.capacity)
        }
        await delay(1)
      }
      expectExactly(table, await reports)
      expect(table.recoveries).toBe(0)
      await Promise.all(writers.map((writer) => writer.terminate()))
    },
    HANG_MS,
  )

  it(
    'write although others read without a pause',
    async () => {
      const { table, signals, start } = scene(100)
      const readers = await Promise.all([4, 5].map((id) => start('reader', id)))
      const readings = Promise.all(readers.map(reportOf))
      while (Atomics.load(signals, 1) < readers.length) await delay(1)
      const writers = await Promise.all([0, 1].map((id) => start('writer', id, { rounds: 5_000 })))
      const reports = await Promise.all(writers.map(reportOf))
      Atomics.store(signals, 0, 1)
      const reading = await readings
      expect(reading.flatMap(({ faults }) => faults)).toEqual([])
      for (const { rounds } of reading) expect(rounds).toBeGreaterThan(0)
      expectExactly(table, reports)
      await Promise.all([...readers, ...writers].map((worker) => worker.terminate()))
    },
    HANG_MS,
  )

  it(
    'find each other’s flows although these are moved in the index meanwhile',
    async () => {
      const table = FlowTable.create({ capacity: 64, shards: 1 })
      table.register()
      const signals = new Int32Array(new SharedArrayBuffer(12))
      const chain = collidingKeys(table, 24)
      const job: StressJob = { handle: table.handle, signals, role: 'shifter', id: 0, rounds: 5_000, chain }
      const shifter = await startWorker(new URL('./stress-worker.ts', import.meta.url), job)
      let done = false
      once(shifter, 'message').finally(() => {
        done = true
      })
      let missed = 0
      while (!done) {
        for (let i = 0; i < 10_000; i++) {
          const before = Atomics.load(signals, 2)
          const slot = table.find(chain[1 + (i % 23)], 0)
          if ((before & 1) === 1 && Atomics.load(signals, 2) === before && slot < 0) missed++
        }
        await setImmediate()
      }
      expect(missed).toBe(0)
      expect(damage(table)).toEqual([])
      await shifter.terminate()
    },
    HANG_MS,
  )

  it(
    'go on, whichever of them are terminated in the middle',
    async () => {
      const { table, start } = scene(150)
      const writers = await Promise.all([0, 1].map((id) => start('writer', id)))
      const reports = Promise.all(writers.map(reportOf))
      let done = false
      reports.finally(() => {
        done = true
      })
      let terminated = 0
      for (let i = 0; !done || terminated < 20; i++) {
        const victim = await start('writer', 2 + (i & 1), { rounds: 1e9 })
        await once(victim, 'online')
        await delay(5 + ((i * 7) % 23))
        await victim.terminate()
        terminated++
        if (i % 3 === 0) table.reap()
      }
      const ended = await reports
      table.reap()
      expectExactly(table, ended)
      await Promise.all(writers.map((writer) => writer.terminate()))
    },
    HANG_MS,
  )

  it(
    'go on when every lock in turn is held by one that is terminated',
    async () => {
      const { table, start } = scene(150)
      const writers = await Promise.all([0, 1].map((id) => start('writer', id)))
      const reports = Promise.all(writers.map(reportOf))
      for (let lock = 0; lock <= SHARDS; lock++) {
        for (const odd of lock < SHARDS ? [false, true] : [false]) {
          const holder = await start('holder', 7, { lock, odd })
          await once(holder, 'message')
          // Time for the writers to run into it, and then to break it; where they have not, this thread does.
          await delay(5)
          await holder.terminate()
          await delay(5)
          table.reap()
        }
      }
      const ended = await reports
      table.reap()
      expectExactly(table, ended)
      expect(table.recoveries).toBe(2 * SHARDS + 1)
      await Promise.all(writers.map((writer) => writer.terminate()))
    },
    HANG_MS,
  )
})
