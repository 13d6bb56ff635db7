// The buffer that puts messages in order again.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Reorder } from '../../lib/engine/reorder.ts'

const WINDOW_MS = 10

function make() {
  const delivered: number[] = []
  const reorder = new Reorder(WINDOW_MS, (message) => delivered.push(Buffer.from(message).readUInt32LE(0)))
  const put = (number: number, nowMs: number, bytes = 4) => {
    const message = Buffer.alloc(bytes)
    message.writeUInt32LE(number)
    reorder.put(number, message, nowMs)
  }
  return { delivered, reorder, put }
}

describe('Reorder', () => {
  it('delivers in order as soon as the gap is filled', () => {
    const { delivered, reorder, put } = make()
    put(2, 0)
    put(1, 1)
    expect(delivered).toEqual([])
    put(0, 2)
    expect(delivered).toEqual([0, 1, 2])
    expect(reorder.dueMs).toBe(Number.POSITIVE_INFINITY)
  })

  it('waits for a gap no longer than the window, and then goes on behind it', () => {
    const { delivered, reorder, put } = make()
    put(1, 0)
    put(3, 4)
    expect(reorder.dueMs).toBe(10)
    reorder.onDue(9)
    expect(delivered).toEqual([])
    reorder.onDue(10)
    expect(delivered).toEqual([1])
    expect(reorder.next).toBe(2)
    expect(reorder.dueMs).toBe(14)
    reorder.onDue(14)
    expect(delivered).toEqual([1, 3])
  })

  it('lets a message take along those before it that have not waited as long', () => {
    const { delivered, reorder, put } = make()
    put(4, 0)
    put(2, 5)
    reorder.onDue(10)
    expect(delivered).toEqual([2, 4])
    expect(reorder.empty).toBe(true)
  })

  it('gives out the older half when it holds more than 1 MiB', () => {
    const { delivered, reorder, put } = make()
    for (let number = 1; number <= 16; number++) put(number, 0, 65_000)
    expect(delivered).toEqual([])
    put(18, 0, 65_000)
    expect(delivered).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
    expect(reorder.empty).toBe(false)
  })

  it('gives out all that waits when nothing more will come', () => {
    const { delivered, reorder, put } = make()
    put(7, 0)
    put(5, 0)
    reorder.flush()
    expect(delivered).toEqual([5, 7])
    expect(reorder.next).toBe(8)
  })

  it('delivers each message once, in order, and none later than the window, whatever the network does', () => {
    const arrivals = fc.array(fc.record({ number: fc.nat({ max: 60 }), waitMs: fc.nat({ max: 6 }) }), { maxLength: 100 })
    fc.assert(
      fc.property(arrivals, (steps) => {
        const { delivered, reorder, put } = make()
        const since = new Map<number, number>()
        let now = 0
        for (const { number, waitMs } of steps) {
          now += waitMs
          reorder.onDue(now)
          for (const [held, at] of since) if (!delivered.includes(held)) expect(now - at).toBeLessThan(WINDOW_MS)
          if (number < reorder.next || since.has(number)) continue
          since.set(number, now)
          put(number, now)
        }
        reorder.flush()
        expect(delivered).toEqual([...since.keys()].sort((a, b) => a - b))
      }),
    )
  })
})
