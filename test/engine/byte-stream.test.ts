// The receiving side towards a real TCP: whatever becomes of the segments of a stream, its bytes are delivered once and in order.
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { ByteStream } from '../../lib/engine/byte-stream.ts'
import { LinkChoice } from '../../lib/engine/link-choice.ts'
import { Progress } from '../../lib/engine/progress.ts'
import { MAX_PIECES, Reassembly } from '../../lib/engine/reassembly.ts'
import { Segments } from '../../lib/engine/segments.ts'
import { Slot } from '../../lib/engine/slot.ts'
import { S_RCV_ACKED, S_RCV_NXT, S_RCV_SCALE, S_RCV_WND } from '../../lib/flow/layout.ts'
import { FlowTable } from '../../lib/flow/table.ts'
import { ACK, D_FLAGS, D_LENGTH, D_OFFSET, D_SEGMENT, D_SEQ, D_WORDS, FIN } from '../../lib/native/layout.ts'

/** A receiver of a stream that starts at `first`, with an application that takes `room` bytes. */
function receiver(first: number, room = Number.POSITIVE_INFINITY) {
  const slot = new Slot(FlowTable.create({ capacity: 1 }), 0)
  const { words: w, base: b } = slot
  w[b + S_RCV_NXT] = w[b + S_RCV_ACKED] = first
  w[b + S_RCV_SCALE] = 4
  const segments = new Segments(slot, new LinkChoice())
  const heard = { delivered: [] as number[], room, ends: [] as number[], answers: 0, owed: 0 }
  const stream = new ByteStream(slot, segments, new Progress(slot), {
    room: () => heard.room,
    deliver: (memory, offset, length) => {
      heard.delivered.push(...memory.subarray(offset, offset + length))
      heard.room -= length
    },
    onAcknowledged: () => {},
    onEnd: (seq) => heard.ends.push((seq - first) | 0),
    onAckOwed: () => heard.owed++,
    acknowledge: () => heard.answers++,
  })
  stream.open(true)
  /** The bytes of `source` from `from` to `to`, with the FIN behind its end if they reach so far and `fin`. */
  const arrive = (source: Uint8Array, from: number, to: number, fin = false) => {
    const d = new Int32Array(D_WORDS)
    d[D_SEQ] = (first + from) | 0
    d[D_FLAGS] = ACK | (fin && to === source.length ? FIN : 0)
    d[D_OFFSET] = from
    d[D_LENGTH] = to - from
    d[D_SEGMENT] = to - from
    // The capture overwrites its memory after the call.
    const memory = source.slice()
    stream.receive(d, 0, memory, 0)
    memory.fill(0xff)
  }
  return { ...heard, heard, stream, segments, arrive, next: () => (w[b + S_RCV_NXT] - first) | 0, window: () => w[b + S_RCV_WND] }
}

const bytes = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) % 251)

it('any segmentation, duplication, reordering and overlap of a stream is delivered once, in order, and ended once', () => {
  const range = fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.integer({ min: 1, max: 400 }))
  const start = fc.integer({ min: -0x80000000, max: 0x7fffffff })
  fc.assert(
    fc.property(start, fc.integer({ min: 1, max: 3000 }), fc.array(range, { maxLength: 120 }), (first, length, ranges) => {
      const source = bytes(length)
      const { heard, arrive, next } = receiver(first)
      for (const [at, size] of ranges) {
        const from = Math.floor(at * length)
        const before = next()
        arrive(source, from, Math.min(length, from + size), true)
        expect(next()).toBeGreaterThanOrEqual(before)
        expect(heard.delivered).toEqual([...source.subarray(0, next())])
      }
      // What is missing is sent again, as its sender would.
      for (let i = 0; i <= length && next() < length; i++) arrive(source, next(), Math.min(length, next() + 100), true)
      arrive(source, length, length, true)
      expect(heard.delivered).toEqual([...source])
      expect(heard.ends).toEqual([length])
    }),
  )
})

it('an application that takes little at a time gets all of it too, and is never given more than it takes', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(300), fc.nat(300)), { minLength: 1, maxLength: 60 }), (steps) => {
      const source = bytes(2000)
      const { heard, stream, arrive, next } = receiver(0, 0)
      for (const [room, from] of steps) {
        heard.room = room
        stream.readMore(0)
        arrive(source, next() + from, Math.min(source.length, next() + from + 200), true)
        arrive(source, next(), Math.min(source.length, next() + 100), true)
        expect(heard.room).toBeGreaterThanOrEqual(0)
      }
      heard.room = source.length
      for (let i = 0; i < source.length && next() < source.length; i++) arrive(source, next(), Math.min(source.length, next() + 100), true)
      expect(heard.delivered).toEqual([...source])
      expect(heard.ends).toEqual([source.length])
    }),
  )
})

it('a FIN behind a gap waits for the gap', () => {
  const source = bytes(300)
  const { heard, arrive } = receiver(0)
  arrive(source, 0, 100)
  arrive(source, 200, 300, true)
  expect(heard.ends).toEqual([])
  arrive(source, 100, 200)
  expect(heard.ends).toEqual([300])
  expect(heard.delivered).toEqual([...source])
})

it('a FIN waits for the application as well: it is acknowledged after what stands before it', () => {
  const source = bytes(100)
  const { heard, stream, arrive, next } = receiver(0, 60)
  arrive(source, 0, 60)
  arrive(source, 60, 100, true)
  expect([next(), heard.ends]).toEqual([60, []])
  heard.room = 100
  stream.readMore(0)
  arrive(source, 60, 100, true)
  expect([next(), heard.ends]).toEqual([100, [100]])
})

it('each segment behind a gap is answered at once, and the answer tells of the latest ones', () => {
  const source = bytes(1000)
  const { heard, segments, arrive } = receiver(1000)
  arrive(source, 100, 200)
  expect([heard.answers, segments.block]).toEqual([1, { from: 1100, to: 1200 }])
  arrive(source, 400, 500)
  expect([heard.answers, segments.block]).toEqual([2, { from: 1400, to: 1500 }])
  arrive(source, 200, 300)
  expect([heard.answers, segments.block]).toEqual([3, { from: 1100, to: 1300 }])
  arrive(source, 0, 100)
  expect([heard.answers, segments.block]).toEqual([3, { from: 1400, to: 1500 }])
  expect(segments.ackNow).toBe(true)
  arrive(source, 300, 400)
  expect(segments.block).toBeUndefined()
})

it('what was kept for want of room is acknowledged when the application takes it', () => {
  const source = bytes(200)
  const { heard, stream, segments, arrive, next } = receiver(0, 100)
  arrive(source, 100, 200)
  arrive(source, 0, 100)
  expect(next()).toBe(100)
  segments.write(new Int32Array(D_WORDS), 0, ACK, 0, 0)
  heard.room = 20
  stream.readMore(0)
  expect([next(), segments.ackNow]).toEqual([120, true])
})

it('of segments in order every second one is acknowledged at once, and what has come before at once', () => {
  const source = bytes(1000)
  const { segments, arrive } = receiver(0)
  arrive(source, 0, 100)
  segments.write(new Int32Array(D_WORDS), 0, ACK, 0, 0)
  arrive(source, 100, 200)
  expect([segments.ackNow, segments.ackDue]).toEqual([false, 40])
  arrive(source, 200, 300)
  expect(segments.ackNow).toBe(true)
  segments.write(new Int32Array(D_WORDS), 0, ACK, 0, 0)
  arrive(source, 100, 200)
  expect(segments.ackNow).toBe(true)
})

it('bytes beyond the window are not kept', () => {
  const source = bytes(100_000)
  const { arrive, segments, window } = receiver(0)
  const edge = window()
  arrive(source, edge - 10, edge + 10)
  expect(segments.block).toEqual({ from: edge - 10, to: edge })
})

it('a question about a closed window is answered with what is free by now', () => {
  const source = bytes(65_535)
  const { heard, arrive, segments, window } = receiver(0, source.length)
  arrive(source, 0, source.length)
  expect(window()).toBe(0)
  segments.write(new Int32Array(D_WORDS), 0, ACK, 0, 0)
  heard.room = 100_000
  arrive(source, source.length - 1, source.length - 1)
  expect([window(), segments.ackNow]).toEqual([50_000, true])
})

it('the number of pieces is bounded, however small they are', () => {
  const kept = new Reassembly()
  for (let i = 0; i < 2 * MAX_PIECES; i++) kept.keep(2 * i, Uint8Array.of(1), 0, 1)
  let count = 0
  for (let at = 0; at < 4 * MAX_PIECES; at += 2) if (kept.take(at, 1) !== undefined) count++
  expect(count).toBe(MAX_PIECES)
})
