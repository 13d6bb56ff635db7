// The sequence rules: what a sender numbers, what a receiver accepts, and that a tracker between the two is never left behind.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  S_RCV_ACKED,
  S_RCV_NXT,
  S_RCV_WND,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_SCALE,
  S_SND_UNA,
  S_SND_WND,
  S_TS_RECENT,
  SLOT_WORDS,
} from '../../lib/flow/layout.ts'
import { ACK, D_ACK, D_FLAGS, D_LENGTH, D_SEQ, D_TSVAL, D_WINDOW, D_WORDS, HAS_TIMESTAMPS } from '../../lib/native/layout.ts'
import { ACCEPTED, absorb, BAD_ACK, judge, judgeReset, nextAck, nextSequence, OUT_OF_WINDOW } from '../../lib/wire/rules.ts'

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

describe('two ends and a tracker between them', () => {
  /** The window rules of nf_conntrack_proto_tcp.c, tcp_in_window, for the sender's direction: what makes a packet INVALID. */
  class Tracker {
    end: number
    maxEnd: number
    readonly maxWindow: number
    constructor(from: number, window: number) {
      this.end = from
      this.maxEnd = from + window
      this.maxWindow = window
    }
    data(seq: number, length: number): boolean {
      const end = seq + length
      const valid = seq <= this.maxEnd && end >= this.end - this.maxWindow - 1
      if (valid) this.end = Math.max(this.end, end)
      return valid
    }
    ack(ack: number, window: number): void {
      this.maxEnd = Math.max(this.maxEnd, ack + window)
    }
  }

  it('stays valid for one-way data, whatever is lost and however late acknowledgements are', () => {
    const step = fc.record({ length: fc.integer({ min: 1, max: 65000 }), lost: fc.boolean(), acks: fc.integer({ min: 0, max: 3 }) })
    fc.assert(
      fc.property(fc.array(step, { minLength: 50, maxLength: 400 }), (steps) => {
        const window = 65536
        const sender = flow(0, 0, window)
        const receiver = flow(0, 0, window)
        const tracker = new Tracker(0, window)
        const late: number[] = []
        for (const { length, lost, acks } of steps) {
          const seq = nextSequence(sender, 0, length)
          expect(tracker.data(seq, length)).toBe(true)
          if (!lost) {
            const d = segment({ seq, ack: 0, length })
            expect(judge(receiver, 0, d, 0)).toBe(ACCEPTED)
            absorb(receiver, 0, d, 0)
          }
          late.push(nextAck(receiver, 0))
          for (let i = 0; i < acks && late.length > 3; i++) {
            const ack = late.shift() as number
            tracker.ack(ack, window)
            absorb(sender, 0, segment({ seq: 0, ack, window }), 0)
          }
        }
      }),
    )
  })
})
