// The rules towards a real TCP: which segments count, which of their bytes, what may be sent, what window is promised.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  S_RCV_ACKED,
  S_RCV_NXT,
  S_RCV_SCALE,
  S_RCV_WINDOW_FIELD,
  S_RCV_WND,
  S_SND_MAX,
  S_SND_NXT,
  S_SND_SCALE,
  S_SND_UNA,
  S_SND_WND,
  S_TS_RECENT,
  SLOT_WORDS,
} from '../../lib/flow/layout.ts'
import { ACK, D_ACK, D_FLAGS, D_LENGTH, D_SEQ, D_TSVAL, D_WINDOW, D_WORDS, FIN, HAS_TIMESTAMPS } from '../../lib/native/layout.ts'
import { ACCEPTED, BAD_ACK, OUT_OF_WINDOW } from '../../lib/wire/rules.ts'
import { absorbStream, advance, advertise, clip, FLIGHT_BYTES, judgeStream, roomToSend } from '../../lib/wire/stream-rules.ts'

const WINDOW = 1000
/** Every property holds wherever the numbers start, also across the wrap. */
const start = fc.integer({ min: -0x80000000, max: 0x7fffffff })

function flow({ send = 0, receive = 0, window = WINDOW } = {}): Int32Array {
  const w = new Int32Array(SLOT_WORDS)
  w[S_SND_NXT] = w[S_SND_MAX] = w[S_SND_UNA] = send
  w[S_RCV_NXT] = w[S_RCV_ACKED] = receive
  w[S_RCV_WND] = window
  return w
}

function segment(fields: { seq: number; ack?: number; length?: number; window?: number; tsval?: number; flags?: number }): Int32Array {
  const d = new Int32Array(D_WORDS)
  d[D_SEQ] = fields.seq
  d[D_ACK] = fields.ack ?? 0
  d[D_LENGTH] = fields.length ?? 0
  d[D_WINDOW] = fields.window ?? 65535
  d[D_TSVAL] = fields.tsval ?? 0
  d[D_FLAGS] = (fields.flags ?? ACK) | (fields.tsval === undefined ? 0 : HAS_TIMESTAMPS)
  return d
}

describe('a segment', () => {
  const verdict = (fields: Parameters<typeof segment>[0], w = flow({ receive: 5000 })) => judgeStream(w, 0, segment(fields), 0)

  it('counts when any of its bytes is in the window', () => {
    expect(verdict({ seq: 4000, length: 1001 })).toBe(ACCEPTED)
    expect(verdict({ seq: 5999, length: 100 })).toBe(ACCEPTED)
    expect(verdict({ seq: 4000, length: 1000 })).toBe(OUT_OF_WINDOW)
    expect(verdict({ seq: 6000, length: 100 })).toBe(OUT_OF_WINDOW)
  })

  it('without bytes may stand anywhere in the window and on its edges, not before it', () => {
    expect([5000, 5500, 6000].map((seq) => verdict({ seq }))).toEqual([ACCEPTED, ACCEPTED, ACCEPTED])
    expect([4999, 6001].map((seq) => verdict({ seq }))).toEqual([OUT_OF_WINDOW, OUT_OF_WINDOW])
  })

  it('of a FIN alone counts as one byte', () => {
    expect(verdict({ seq: 5000, flags: ACK | FIN })).toBe(ACCEPTED)
    expect(verdict({ seq: 4999, flags: ACK | FIN })).toBe(OUT_OF_WINDOW)
  })

  it('is heard with a closed window if it stands where the next byte would: its acknowledgement counts', () => {
    const closed = flow({ receive: 5000, window: 0 })
    expect(verdict({ seq: 5000, length: 1 }, closed)).toBe(ACCEPTED)
    expect(verdict({ seq: 5000 }, closed)).toBe(ACCEPTED)
    expect(verdict({ seq: 5001, length: 1 }, closed)).toBe(OUT_OF_WINDOW)
  })

  it('with an older timestamp than the last one in order is from an earlier round of the numbers', () => {
    const w = flow({ receive: 5000 })
    w[S_TS_RECENT] = 100
    expect([99, 100, 101].map((tsval) => verdict({ seq: 5000, length: 1, tsval }, w))).toEqual([OUT_OF_WINDOW, ACCEPTED, ACCEPTED])
  })

  it('that acknowledges what was never sent, or nothing at all, is refused', () => {
    expect(verdict({ seq: 5000, ack: 1 })).toBe(BAD_ACK)
    expect(verdict({ seq: 5000, flags: 0 })).toBe(BAD_ACK)
  })
})

describe('the bytes that count', () => {
  it('are those in the window, each of them, wherever segment and window stand', () => {
    fc.assert(
      fc.property(
        start,
        fc.integer({ min: -2000, max: 2000 }),
        fc.integer({ min: 1, max: 3000 }),
        fc.nat(2000),
        (next, from, length, window) => {
          const { skip, length: count } = clip(flow({ receive: next, window }), 0, (next + from) | 0, length)
          const counting = Array.from({ length }, (_, i) => i).filter((i) => from + i >= 0 && from + i < window)
          expect(count).toBe(counting.length)
          if (count > 0) expect(skip).toBe(counting[0])
        },
      ),
    )
  })
})

describe('what a segment tells', () => {
  it('of the clock is kept only of segments in order: the echo then counts the time of a gap', () => {
    const w = flow({ receive: 5000 })
    absorbStream(w, 0, segment({ seq: 5000, tsval: 7 }), 0, 0)
    absorbStream(w, 0, segment({ seq: 5001, tsval: 9 }), 0, 0)
    expect(w[S_TS_RECENT]).toBe(7)
  })

  it('of the window is not taken from a segment that a newer one has overtaken', () => {
    const w = flow({ send: 100, receive: 5000 })
    w[S_SND_SCALE] = 2
    w[S_SND_MAX] = 300
    const seq = absorbStream(w, 0, segment({ seq: 5000, ack: 200, window: 50 }), 0, 4990)
    expect([w[S_SND_UNA], w[S_SND_WND], seq]).toEqual([200, 200, 5000])
    expect(absorbStream(w, 0, segment({ seq: 4990, ack: 200, window: 900 }), 0, seq)).toBe(seq) // older by its place
    expect(absorbStream(w, 0, segment({ seq: 5010, ack: 150, window: 900 }), 0, seq)).toBe(seq) // older by what it acknowledges
    expect([w[S_SND_UNA], w[S_SND_WND]]).toEqual([200, 200])
    absorbStream(w, 0, segment({ seq: 5000, ack: 200, window: 60 }), 0, seq)
    expect(w[S_SND_WND]).toBe(240)
    absorbStream(w, 0, segment({ seq: 5000, ack: 200, window: 0 }), 0, seq)
    expect(w[S_SND_WND]).toBe(0)
  })
})

it('what is sent never leaves the peer’s window, nor is more under way than a kernel without much memory takes', () => {
  const w = flow({ send: 100 })
  w[S_SND_WND] = 50
  expect(roomToSend(w, 0)).toBe(50)
  w[S_SND_NXT] = 130
  expect(roomToSend(w, 0)).toBe(20)
  w[S_SND_WND] = 10 // taken back, which no peer should do
  expect(roomToSend(w, 0)).toBe(0)
  w[S_SND_WND] = 1 << 30
  expect(roomToSend(w, 0)).toBe(FLIGHT_BYTES - 30)
})

describe('the window we promise', () => {
  it('never moves its right edge back, and what the header says never promises more', () => {
    const step = fc.record({ arrives: fc.nat(5000), free: fc.nat(100_000) })
    fc.assert(
      fc.property(start, fc.integer({ min: 0, max: 14 }), fc.array(step, { maxLength: 100 }), (next, scale, steps) => {
        const w = flow({ receive: next, window: 0 })
        w[S_RCV_SCALE] = scale
        for (const { arrives, free } of steps) {
          const edge = (w[S_RCV_NXT] + w[S_RCV_WND]) | 0
          advance(w, 0, Math.min(arrives, w[S_RCV_WND]))
          advertise(w, 0, free, 1448)
          expect((w[S_RCV_NXT] + w[S_RCV_WND] - edge) | 0).toBeGreaterThanOrEqual(0)
          expect(w[S_RCV_WINDOW_FIELD] << scale).toBeLessThanOrEqual(w[S_RCV_WND])
          expect(w[S_RCV_WINDOW_FIELD]).toBeLessThanOrEqual(65535)
        }
      }),
    )
  })

  it('leaves the right edge where it is while bytes are delivered', () => {
    const w = flow({ receive: 5000, window: 1000 })
    w[S_RCV_SCALE] = 3
    advance(w, 0, 301)
    expect([w[S_RCV_NXT], w[S_RCV_WND], w[S_RCV_WINDOW_FIELD]]).toEqual([5301, 699, 87])
  })

  it('opens by two segments at least, or by half of what is free where that is less', () => {
    const w = flow({ window: 0 })
    w[S_RCV_SCALE] = 0
    expect(advertise(w, 0, 20_000, 1448)).toBe(true)
    expect(w[S_RCV_WND]).toBe(20_000)
    expect(advertise(w, 0, 22_895, 1448)).toBe(false)
    expect(advertise(w, 0, 22_896, 1448)).toBe(true)
    const small = flow({ window: 0 })
    expect([advertise(small, 0, 0, 1448), advertise(small, 0, 100, 1448)]).toEqual([false, true])
  })
})
