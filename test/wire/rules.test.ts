// The sequence rules: what a sender numbers, what a receiver accepts, and that a tracker between the two is never left behind.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  FLAG_TIMESTAMPS,
  S_FLAGS,
  S_ISN,
  S_RCV_ACKED,
  S_RCV_NXT,
  S_RCV_WND,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_SCALE,
  S_SND_UNA,
  S_SND_WND,
  S_TS_RECENT,
  S_TS_SENT,
  SLOT_WORDS,
} from '../../lib/flow/layout.ts'
import { ACK, D_ACK, D_FLAGS, D_LENGTH, D_SEQ, D_TSECR, D_TSVAL, D_WINDOW, D_WORDS, HAS_TIMESTAMPS } from '../../lib/native/layout.ts'
import {
  ACCEPTED,
  absorb,
  BAD_ACK,
  BAD_TIMESTAMP,
  beStrict,
  judge,
  judgeReset,
  nextAck,
  nextSequence,
  OUT_OF_WINDOW,
  raiseFloors,
} from '../../lib/wire/rules.ts'
import { TcpTracker } from '../support/tracker.ts'

const WINDOW = 1 << 20
/** Every property holds wherever the numbers start, also across the wrap. */
const start = fc.integer({ min: -0x80000000, max: 0x7fffffff })

function flow(sendFrom: number, receiveFrom: number, window = WINDOW): Int32Array {
  const w = new Int32Array(SLOT_WORDS)
  w[S_SND_NXT] = w[S_SND_MAX] = w[S_SND_UNA] = sendFrom
  w[S_SND_WND] = window
  w[S_RCV_NXT] = receiveFrom
  w[S_RCV_WND] = window
  return w
}

function segment(fields: { seq: number; ack: number; length?: number; window?: number; tsval?: number; flags?: number }): Int32Array {
  const d = new Int32Array(D_WORDS)
  d[D_SEQ] = fields.seq
  d[D_ACK] = fields.ack
  d[D_LENGTH] = fields.length ?? 0
  d[D_WINDOW] = fields.window ?? 65535
  d[D_TSVAL] = fields.tsval ?? 0
  d[D_FLAGS] = fields.flags ?? ACK
  return d
}

describe('numbering', () => {
  it('never leaves the peer’s acknowledgement plus its window, and SND_MAX never shrinks', () => {
    const step = fc.oneof(
      fc.record({ send: fc.integer({ min: 1, max: 65000 }) }),
      fc.record({ ack: fc.double({ min: 0, max: 1, noNaN: true }), window: fc.integer({ min: 65536, max: WINDOW }) }),
    )
    fc.assert(
      fc.property(start, fc.array(step, { maxLength: 300 }), (from, steps) => {
        const w = flow(from, 0)
        for (const one of steps) {
          const max = w[S_SND_MAX]
          if ('send' in one) {
            const seq = nextSequence(w, 0, one.send)
            expect((seq + one.send - w[S_SND_UNA]) | 0).toBeLessThanOrEqual(w[S_SND_WND])
            expect((seq - w[S_SND_UNA]) | 0).toBeGreaterThanOrEqual(0)
          } else {
            const outstanding = (w[S_SND_MAX] - w[S_SND_UNA]) | 0
            const ack = (w[S_SND_UNA] + Math.floor(outstanding * one.ack)) | 0
            w[S_SND_SCALE] = 5
            absorb(w, 0, segment({ seq: 0, ack, window: one.window >> 5 }), 0)
          }
          expect((w[S_SND_MAX] - max) | 0).toBeGreaterThanOrEqual(0)
          expect((w[S_SND_NXT] - w[S_SND_UNA]) | 0).toBeGreaterThanOrEqual(0)
        }
      }),
    )
  })

  it('continues where it was while there is room', () => {
    const w = flow(1000, 0)
    expect([nextSequence(w, 0, 10), nextSequence(w, 0, 20), nextSequence(w, 0, 30)]).toEqual([1000, 1010, 1030])
  })

  it('is set back to the acknowledgement at the first train that would not fit', () => {
    const w = flow(1000, 0, 100)
    nextSequence(w, 0, 60)
    expect(nextSequence(w, 0, 40)).toBe(1060)
    expect(nextSequence(w, 0, 1)).toBe(1000)
    expect(w[S_SND_MAX]).toBe(1100)
  })
})

describe('receiving', () => {
  it('refuses segments that acknowledge nothing', () => {
    expect(judge(flow(0, 0), 0, segment({ seq: 0, ack: 0, flags: 0 }), 0)).toBe(BAD_ACK)
  })

  it('accepts up to one window on either side of the highest byte seen, and nothing further', () => {
    fc.assert(
      fc.property(start, fc.integer({ min: -3 * WINDOW, max: 3 * WINDOW }), (from, distance) => {
        const w = flow(0, from)
        const verdict = judge(w, 0, segment({ seq: (from + distance) | 0, ack: 0 }), 0)
        expect(verdict).toBe(Math.abs(distance) <= WINDOW ? ACCEPTED : OUT_OF_WINDOW)
      }),
    )
  })

  it('refuses acknowledgements of what was never sent', () => {
    fc.assert(
      fc.property(start, fc.integer({ min: 1, max: 0x7fffffff }), (from, beyond) => {
        const w = flow(from, 0)
        expect(judge(w, 0, segment({ seq: 0, ack: (from + beyond) | 0 }), 0)).toBe(BAD_ACK)
      }),
    )
  })

  it('never lets its acknowledgement go backwards', () => {
    fc.assert(
      fc.property(
        start,
        fc.array(fc.tuple(fc.integer({ min: -WINDOW, max: WINDOW }), fc.integer({ min: 1, max: 65000 })), { maxLength: 100 }),
        (from, arrivals) => {
          const w = flow(0, from)
          for (const [distance, length] of arrivals) {
            const before = nextAck(w, 0)
            const seq = (before + distance) | 0
            absorb(w, 0, segment({ seq, ack: 0, length }), 0)
            expect((w[S_RCV_NXT] - before) | 0).toBe(Math.max(0, distance + length))
            expect(w[S_RCV_ACKED]).toBe(before)
          }
        },
      ),
    )
  })

  it('follows the newest of the peer’s clocks, also across the wrap', () => {
    const w = flow(0, 0)
    w[S_TS_RECENT] = 0x7ffffff0
    const stamped = (tsval: number) => segment({ seq: 0, ack: 0, tsval, flags: ACK | HAS_TIMESTAMPS })
    absorb(w, 0, stamped(-0x80000000), 0)
    expect(w[S_TS_RECENT]).toBe(-0x80000000)
    absorb(w, 0, stamped(0x7fffffff), 0)
    expect(w[S_TS_RECENT]).toBe(-0x80000000)
  })

  it('moves numbering up to an acknowledgement beyond it, as after a set-back', () => {
    const w = flow(1000, 0, 100)
    nextSequence(w, 0, 100)
    nextSequence(w, 0, 10) // set back: 1000..1010
    expect(absorb(w, 0, segment({ seq: 0, ack: 1100 }), 0)).toBe(true)
    expect(nextSequence(w, 0, 10)).toBe(1100)
  })
})

describe('a reset', () => {
  it('counts with exactly the next number, is challenged elsewhere in the window, and ignored outside', () => {
    fc.assert(
      fc.property(start, fc.integer({ min: -3 * WINDOW, max: 3 * WINDOW }), (from, distance) => {
        const verdict = judgeReset(flow(0, from), 0, segment({ seq: (from + distance) | 0, ack: 0 }), 0)
        const expected = distance === 0 ? 'reset' : distance > -WINDOW && distance <= WINDOW ? 'challenge' : 'ignore'
        expect(verdict).toBe(expected)
      }),
    )
  })
})

describe('judged strictly', () => {
  const NOW = 1_000_000
  /** A flow that has sent up to `sent`, acknowledged up to `una`, on a clock that stands at NOW. */
  function strict(una: number, sent: number, flags = FLAG_TIMESTAMPS): Int32Array {
    const w = flow(una, 0)
    w[S_SND_MAX] = sent
    w[S_FLAGS] = flags
    w[S_TS_SENT] = NOW
    w[S_ISN] = una - 1
    beStrict(w, 0)
    return w
  }
  const echoing = (tsecr: number, ack = 0, flags = ACK | HAS_TIMESTAMPS) => {
    const d = segment({ seq: 0, ack, flags })
    d[D_TSECR] = tsecr
    return d
  }

  it('believes an echo from the newest of a few seconds ago to the last one sent', () => {
    const w = strict(0, 0)
    w[S_TS_SENT] = NOW + 500
    absorb(w, 0, echoing(NOW + 400), 0)
    raiseFloors(w, 0)
    // What was overtaken a moment ago is still believed, ...
    expect(judge(w, 0, echoing(NOW - 100), 0)).toBe(ACCEPTED)
    raiseFloors(w, 0)
    // ... a few seconds later it is not.
    const at = (tsecr: number) => judge(w, 0, echoing(tsecr), 0)
    expect([at(NOW + 399), at(NOW + 400), at(NOW + 500), at(NOW + 501)]).toEqual([BAD_TIMESTAMP, ACCEPTED, ACCEPTED, BAD_TIMESTAMP])
  })

  it('wants an echo where the handshake agreed on timestamps, and asks for none where it did not', () => {
    expect(judge(strict(0, 0), 0, echoing(NOW, 0, ACK), 0)).toBe(BAD_TIMESTAMP)
    expect(judge(strict(0, 0, 0), 0, echoing(NOW, 0, ACK), 0)).toBe(ACCEPTED)
  })

  it('believes no acknowledgement that is older than the newest of a few seconds ago', () => {
    const w = strict(1000, 6000)
    absorb(w, 0, echoing(NOW, 5000), 0)
    expect(judge(w, 0, echoing(NOW, 1000), 0)).toBe(ACCEPTED)
    raiseFloors(w, 0)
    expect(judge(w, 0, echoing(NOW, 1000), 0)).toBe(ACCEPTED)
    raiseFloors(w, 0)
    const at = (ack: number) => judge(w, 0, echoing(NOW, ack), 0)
    expect([at(4999), at(5000), at(6000), at(6001)]).toEqual([BAD_ACK, ACCEPTED, ACCEPTED, BAD_ACK])
  })

  it('lets a stranger who knows addresses and ports, and guesses the rest, get in once in a hundred thousand million times', () => {
    const w = strict(0, 100_000)
    const guess = fc.integer({ min: -0x80000000, max: 0x7fffffff })
    fc.assert(
      fc.property(guess, guess, guess, (seq, ack, tsecr) => {
        const d = echoing(tsecr, ack)
        d[D_SEQ] = seq
        expect(judge(w, 0, d, 0)).not.toBe(ACCEPTED)
      }),
      // Not by preference near 0, where these numbers are.
      { numRuns: 20_000, unbiased: true },
    )
  })
})

describe('two ends and a tracker between them', () => {
  it('stays valid for one-way data, whatever is lost and however late acknowledgements are', () => {
    const step = fc.record({ length: fc.integer({ min: 1, max: 65000 }), lost: fc.boolean(), acks: fc.integer({ min: 0, max: 3 }) })
    fc.assert(
      fc.property(fc.array(step, { minLength: 50, maxLength: 400 }), (steps) => {
        const window = 65536
        const sender = flow(0, 0, window)
        const receiver = flow(0, 0, window)
        const syn = { seq: -1, ack: 0, length: 0, window }
        const tracker = new TcpTracker(syn, { ...syn, ack: 0 }, [0, 0], Number.POSITIVE_INFINITY, 0)
        const late: number[] = []
        for (const { length, lost, acks } of steps) {
          const seq = nextSequence(sender, 0, length)
          expect(tracker.see(0, { seq, ack: 0, length, window }, 0)).toBe(undefined)
          if (!lost) {
            const d = segment({ seq, ack: 0, length })
            expect(judge(receiver, 0, d, 0)).toBe(ACCEPTED)
            absorb(receiver, 0, d, 0)
          }
          late.push(nextAck(receiver, 0))
          for (let i = 0; i < acks && late.length > 3; i++) {
            const ack = late.shift() as number
            expect(tracker.see(1, { seq: 0, ack, length: 0, window }, 0)).toBe(undefined)
            absorb(sender, 0, segment({ seq: 0, ack, window }), 0)
          }
        }
      }),
    )
  })
})
