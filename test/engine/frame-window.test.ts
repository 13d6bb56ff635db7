// Counting of numbered frames, against a model that remembers everything.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DUPLICATE, FIRST, FrameWindow, LATE } from '../../lib/engine/frame-window.ts'

/** Numbers as the network delivers them: some lost, some doubled, some delayed by up to `jitter` places. */
const deliveries = fc
  .record({
    count: fc.integer({ min: 1, max: 3000 }),
    seed: fc.integer(),
    loss: fc.double({ min: 0, max: 0.5, noNaN: true }),
    duplication: fc.double({ min: 0, max: 0.5, noNaN: true }),
    jitter: fc.integer({ min: 0, max: 900 }),
  })
  .map(({ count, seed, loss, duplication, jitter }) => {
    let state = seed | 1
    const random = () => {
      state = (Math.imul(state, 1664525) + 1013904223) | 0
      return (state >>> 0) / 2 ** 32
    }
    const copies: Array<{ number: number; place: number }> = []
    for (let number = 0; number < count; number++) {
      if (random() < loss) continue
      do copies.push({ number, place: number + random() * jitter })
      while (random() < duplication)
    }
    return copies.sort((a, b) => a.place - b.place).map(({ number }) => number)
  })

function truth(numbers: readonly number[]) {
  const seen = new Set<number>()
  let highest = -1
  const figures = { received: 0, duplicated: 0, reordered: 0, lost: 0, late: 0 }
  for (const number of numbers) {
    if (seen.has(number)) figures.duplicated++
    else if (number < highest) figures.reordered++
    seen.add(number)
    highest = Math.max(highest, number)
  }
  figures.received = seen.size
  figures.lost = highest + 1 - seen.size
  return figures
}

function figuresOf({ expected, received, duplicated, reordered, late }: FrameWindow) {
  return { received, duplicated, reordered, lost: expected - received, late }
}

describe('FrameWindow', () => {
  it('counts exactly, whatever is lost, doubled and reordered', () => {
    fc.assert(
      fc.property(deliveries, (numbers) => {
        const window = new FrameWindow()
        for (const number of numbers) window.take(window.extend(number | 0))
        expect(figuresOf(window)).toEqual(truth(numbers))
      }),
    )
  })

  it('counts numbers that come as expected, many at once, as if they came one by one', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(fc.integer({ min: 1, max: 100 }), fc.constant('skip' as const)), { maxLength: 50 }), (steps) => {
        const [many, single] = [new FrameWindow(), new FrameWindow()]
        for (const step of steps) {
          if (step === 'skip') for (const window of [many, single]) window.know(window.expected + 1)
          else {
            many.takeNext(step)
            for (let i = 0; i < step; i++) single.take(single.expected)
          }
        }
        expect(figuresOf(many)).toEqual(figuresOf(single))
        for (let number = 0; number < single.expected; number++) expect(many.take(number)).toBe(single.take(number))
      }),
    )
  })

  it('counts the same where the numbers wrap', () => {
    fc.assert(
      fc.property(deliveries, fc.integer({ min: 1, max: 2000 }), (numbers, before) => {
        const window = new FrameWindow()
        const start = 2 ** 32 - before
        window.know(start)
        for (const number of numbers) window.take(window.extend((start + number) | 0))
        const { lost, ...others } = figuresOf(window)
        const { lost: expected, ...figures } = truth(numbers)
        expect(others).toEqual(figures)
        expect(lost - start).toBe(expected)
      }),
    )
  })

  it('tells duplicates up to 65 000 numbers back, and calls late what is older than it remembers', () => {
    const window = new FrameWindow()
    for (let number = 0; number < 200_000; number++) if (number % 10 !== 0) window.take(number)
    expect(window.take(199_999 - 65_000)).toBe(DUPLICATE)
    expect(window.take(140_000)).toBe(FIRST)
    expect(window.take(140_000)).toBe(DUPLICATE)
    expect(window.take(199_999 - 70_000)).toBe(LATE)
    expect(figuresOf(window)).toEqual({ received: 180_001, duplicated: 2, reordered: 1, lost: 19_999, late: 1 })
  })

  it('remembers every one of the first 65 536', () => {
    const window = new FrameWindow()
    expect(window.take(0)).toBe(FIRST)
    expect(window.take(65_535)).toBe(FIRST)
    expect(window.take(0)).toBe(DUPLICATE)
    expect(window.take(1)).toBe(FIRST)
    expect(window.take(65_536)).toBe(FIRST)
    expect(window.take(1)).toBe(LATE)
    expect(window.take(32)).toBe(FIRST)
  })

  it('forgets what lies before a jump over more than it remembers', () => {
    const window = new FrameWindow()
    for (let number = 0; number < 100; number++) window.take(number)
    window.take(window.extend(2 ** 30))
    expect(window.take(50)).toBe(LATE)
    expect(window.take(2 ** 30 - 1)).toBe(FIRST)
    expect(figuresOf(window).lost).toBe(2 ** 30 + 1 - 102)
  })

  it('counts as lost what the peer told of and has not come, until it comes, and that is no reordering', () => {
    const window = new FrameWindow()
    window.take(0)
    window.know(window.extend(3))
    expect(figuresOf(window).lost).toBe(2)
    window.know(window.extend(1)) // overtaken: says nothing new
    window.take(1)
    window.take(2)
    expect(figuresOf(window)).toEqual({ received: 3, duplicated: 0, reordered: 0, lost: 0, late: 0 })
  })

  it('takes a number before the first for late', () => {
    const window = new FrameWindow()
    window.take(5)
    expect(window.take(window.extend(-3))).toBe(LATE)
  })
})
