// Serial number arithmetic: what holds for every pair of sequence numbers, across the wrap.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { distance, after as isAfter, before as isBefore, maxSeq } from '../../lib/flow/serial.ts'

const seq = fc.integer({ min: 0, max: 0xffffffff })
const step = fc.integer({ min: 1, max: 0x7fffffff })

describe('serial arithmetic', () => {
  it('finds a number that many steps after itself, wherever the wrap lies, signed or unsigned', () => {
    fc.assert(
      fc.property(seq, step, (a, n) => {
        const b = (a + n) % 2 ** 32
        for (const x of [a, a | 0]) {
          for (const y of [b, b | 0]) {
            expect(distance(y, x)).toBe(n)
            expect(distance(x, y)).toBe(-n)
            expect([isBefore(x, y), isAfter(x, y), isBefore(y, x), isAfter(y, x)]).toEqual([true, false, false, true])
            expect([maxSeq(x, y), maxSeq(y, x)]).toEqual([b | 0, b | 0])
          }
        }
      }),
    )
  })

  it('calls a number neither before nor after itself', () => {
    fc.assert(
      fc.property(seq, (a) => {
        expect([distance(a, a | 0), isBefore(a, a | 0), isAfter(a, a | 0), maxSeq(a, a)]).toEqual([0, false, false, a | 0])
      }),
    )
  })

  it('gives numbers 2^31 apart a defined order: each before the other, none after', () => {
    fc.assert(
      fc.property(seq, (a) => {
        const b = (a ^ 0x80000000) >>> 0
        expect([distance(a, b), isBefore(a, b), isBefore(b, a), isAfter(a, b), isAfter(b, a)]).toEqual([
          -(2 ** 31),
          true,
          true,
          false,
          false,
        ])
      }),
    )
  })
})
