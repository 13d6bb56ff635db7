// The counter of sealed messages at both ends, by running it outside of Node (native/test/message_counter_tool.cc): numbers are given once and end; the
// receiver's window against a model that remembers everything.
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { compile, type Helper } from './compile.ts'

const WINDOW = 8128
const END = 2 ** 48

let tool: Helper
beforeAll(() => {
  tool = compile(['test/message_counter_tool.cc'], { sanitize: true })
})
afterAll(() => tool?.[Symbol.dispose]())

function answersTo(lines: readonly string[]): string[] {
  const { stdout, stderr, status } = tool.run([], lines.map((line) => `${line}\n`).join(''))
  if (status !== 0) throw new Error(stderr)
  return stdout.split('\n').slice(0, -1)
}

it.each([
  [0, 5, '1 5'],
  [END - 3, 3, '1 3'],
  [END - 3, 4, '0 3'],
  [END - 1, 1, '1 1'],
  [END, 1, '0 0'],
])('the sender who is at %d and wants %d numbers', (next, count, answer) => {
  expect(answersTo([`take ${next} ${count}`])).toEqual([answer])
})

/** Accepted: not seen, and among the newest. */
function model(numbers: readonly number[]): string {
  const seen = new Set<number>()
  let highest = -1
  return numbers
    .map((number) => {
      const accepted = !seen.has(number) && number > highest - WINDOW
      if (accepted) {
        seen.add(number)
        highest = Math.max(highest, number)
      }
      return accepted ? '1' : '0'
    })
    .join('')
}

it('the receiver takes what the model takes, whatever comes in which order', () => {
  // Steps back and forth from the number before: small ones, by the size of a word, the window or the whole ring, far ahead.
  const around = (middle: number) => fc.integer({ min: middle - 2, max: middle + 2 })
  const steps = [1, 64, WINDOW, WINDOW + 64].flatMap((step) => [around(step), around(-step)])
  const far = fc.constantFrom(100_000, 2 ** 32, 2 ** 40)
  const step = fc.oneof({ weight: 9, arbitrary: fc.oneof(...steps) }, fc.integer({ min: -9000, max: 9000 }), far)
  const walk = fc
    .tuple(fc.constantFrom(0, 1, 63, 8191, 2 ** 32, END - 10_000), fc.array(step, { maxLength: 200 }))
    .map(([start, jumps]) => {
      const numbers = [start]
      for (const jump of jumps) numbers.push(Math.min(END - 1, Math.max(0, numbers[numbers.length - 1] + jump)))
      return numbers
    })
  let refused = 0
  fc.assert(
    // Many walks for one start of the tool.
    fc.property(fc.array(walk, { minLength: 50, maxLength: 50 }), (walks) => {
      const expected = walks.map(model)
      refused += expected.join('').replaceAll('1', '').length
      expect(answersTo(walks.map((numbers) => `window ${numbers.join(' ')}`))).toEqual(expected)
    }),
    { numRuns: 30 },
  )
  // The property says little where everything is taken. How much is not is drawn, too.
  expect(refused).toBeGreaterThan(1000)
})

it('the receiver takes the newest numbers from the highest down, and no further', () => {
  const highest = 3 * WINDOW
  const down = Array.from({ length: WINDOW + 100 }, (_, i) => highest - i)
  expect(answersTo([`window ${down.join(' ')}`])).toEqual(['1'.repeat(WINDOW) + '0'.repeat(100)])
})
