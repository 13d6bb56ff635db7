// The small parts of the tunnel, each by itself: which handshakes were seen, when to try again, when to warn, what waits for a flow.
import { randomBytes } from 'node:crypto'
import { expect, it } from 'vitest'
import { BackOff } from '../../lib/tunnel/back-off.ts'
import { BUFFER_BYTES, BufferPool } from '../../lib/tunnel/buffers.ts'
import { decodeSessions, encodeSessions } from '../../lib/tunnel/messages.ts'
import { SaltMemory } from '../../lib/tunnel/salts.ts'
import { RisingSum } from '../../lib/tunnel/stats.ts'
import { Turns } from '../../lib/tunnel/turns.ts'
import { type TunnelWarning, Warnings } from '../../lib/tunnel/warnings.ts'

it('remembers the newest salts, at least as many as a generation has', () => {
  const memory = new SaltMemory(8)
  const salts = Array.from({ length: 24 }, () => randomBytes(32))
  for (const salt of salts) {
    expect(memory.has(salt)).toBe(false)
    memory.add(salt)
  }
  expect(salts.slice(-8).every((salt) => memory.has(salt))).toBe(true)
  expect(salts.slice(0, 8).some((salt) => memory.has(salt))).toBe(false)
})

it('knows no salt in a message that is shorter than one', () => {
  const memory = new SaltMemory()
  const message = new Uint8Array(20)
  for (const length of [0, 1, 8]) expect(memory.has(message.subarray(20 - length))).toBe(false)
})

it('waits twice as long after each failure, up to 10 s, by chance up to half of it less', () => {
  const longest = new BackOff(() => 0)
  expect(Array.from({ length: 8 }, () => longest.next())).toEqual([200, 400, 800, 1600, 3200, 6400, 10_000, 10_000])
  longest.reset()
  expect(longest.next()).toBe(200)
  const shortest = new BackOff(() => 1)
  expect(Array.from({ length: 8 }, () => shortest.next())).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000])
})

it('warns at once, then at most every 30 s of each kind, with the number of those kept back', () => {
  let now = 1000
  const told: TunnelWarning[] = []
  const warnings = new Warnings(
    (warning) => told.push(warning),
    () => now,
  )
  for (let i = 0; i < 5; i++) warnings.warn('wrong-key', () => `wrong ${i}`)
  warnings.warn('peer-limit', () => 'full', 7)
  now += 29_999
  warnings.warn('wrong-key', () => 'too soon')
  now += 1
  warnings.warn('wrong-key', () => 'again')
  expect(told).toEqual([
    { code: 'wrong-key', message: 'wrong 0', count: 1 },
    { code: 'peer-limit', message: 'full', count: 7 },
    { code: 'wrong-key', message: 'again', count: 6 },
  ])
})

it("a sum of the kernel's counters survives their starting anew", () => {
  const sum = new RisingSum()
  expect([5, 5, 9, 2, 3].map((now) => sum.take(now))).toEqual([5, 0, 4, 2, 1])
})

it('lists of sessions are what they were, and odd ones are none', () => {
  expect(decodeSessions(encodeSessions([1, 65_535, 300]))).toEqual([1, 65_535, 300])
  expect(decodeSessions(Buffer.alloc(0))).toEqual([])
  expect(decodeSessions(Buffer.alloc(3))).toBeUndefined()
})

it('gives turns in the order in which they were asked for, and none to who has left', async () => {
  const turns = new Turns(2)
  const { signal } = new AbortController()
  const began: string[] = []
  const take = (name: string, until = signal) => turns.take(until).then(() => began.push(name))
  const leaving = new AbortController()
  await Promise.all([take('a'), take('b')])
  const waiting = [take('c'), take('d', leaving.signal), take('e')]
  leaving.abort()
  await expect(waiting[1]).rejects.toMatchObject({ name: 'AbortError' })
  expect(began).toEqual(['a', 'b'])
  turns.pass()
  await waiting[0]
  turns.pass()
  await waiting[2]
  expect(began).toEqual(['a', 'b', 'c', 'e'])
  turns.pass()
  turns.pass()
  await Promise.all([take('f'), take('g')])
  await expect(turns.take(AbortSignal.abort())).rejects.toMatchObject({ name: 'AbortError' })
})

it('a datagram that waits does not hold the memory of a train', () => {
  const pool = new BufferPool()
  const [one, train] = [pool.take(1500), pool.take(BUFFER_BYTES)]
  expect([one.bytes.length, train.bytes.length]).toEqual([2048, BUFFER_BYTES])
  one.release()
  train.release()
  expect([pool.take(64), pool.take(2049)]).toEqual([one, train])
})
