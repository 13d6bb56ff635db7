// Two ends of a framed flow, joined by a network of the test's own.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Framing } from '../../lib/engine/framing.ts'
import type { Outgoing } from '../../lib/transport.ts'
import { CLOSE, DATA, decodeReport, encodeEcho, encodeReport, FRAME_HEADER, MOST_FRAMES } from '../../lib/wire/frames.ts'

class End {
  readonly received: string[] = []
  readonly framing: Framing

  constructor(reorderWindowMs = 0) {
    this.framing = new Framing((memory, offset, length, segment) => {
      for (let at = 0; at < length; at += segment) {
        this.received.push(Buffer.from(memory.subarray(offset + at + FRAME_HEADER, offset + Math.min(at + segment, length))).toString())
      }
    }, reorderWindowMs)
  }

  /** One frame for each message, as single segments. */
  send(...messages: Outgoing[]): Buffer[] {
    const { frames, done } = this.framing.frame(messages, () => {}, 0)
    const segments = frames.flatMap((run) => {
      const { length, segmentSize = length } = run
      return Array.from({ length: Math.ceil(length / segmentSize) }, (_, i) =>
        Buffer.from(run.subarray(i * segmentSize, (i + 1) * segmentSize)),
      )
    })
    done() // the memory may be used again: these are copies
    return segments
  }

  take(frame: Uint8Array, now = 0): void {
    this.framing.take(frame, 0, frame.length, frame.length, now)
  }

  /** What it has to say beside messages. */
  controls(now: number): Buffer[] {
    const frames: Buffer[] = []
    for (let frame = this.framing.control(now, true); frame !== undefined; frame = this.framing.control(now, true)) frames.push(frame)
    return frames
  }
}

const texts = (count: number) => Array.from({ length: count }, (_, i) => Buffer.from(`message ${i}`))
const figuresOf = ({ received, lost, duplicated, reordered }: Framing['stats']['incoming']) => ({ received, lost, duplicated, reordered })

/** Carries a report from one end to the other, and the echo back. */
function report(
  from: End,
  to: End,
  { sentMs, arrivesMs = sentMs, backMs = sentMs }: { sentMs: number; arrivesMs?: number; backMs?: number },
) {
  from.framing.report()
  for (const frame of from.controls(sentMs)) to.take(frame, arrivesMs)
  for (const frame of to.controls(arrivesMs)) from.take(frame, backMs)
}

describe('framing', () => {
  it('brings every message to the other end, whatever their sizes and however they are written', () => {
    const size = fc.integer({ min: 0, max: 3000 })
    const written = fc.array(
      fc.oneof(size, fc.record({ segmentSize: fc.integer({ min: 1, max: 2000 }), length: fc.integer({ min: 1, max: 100_000 }) })),
      {
        maxLength: 30,
      },
    )
    fc.assert(
      fc.property(written, (sizes) => {
        const a = new End()
        const b = new End()
        const expected: string[] = []
        let filler = 0
        const bytes = (length: number) => Buffer.alloc(length, String.fromCharCode(97 + (filler++ % 26)))
        const messages = sizes.map((one): Outgoing => {
          if (typeof one === 'number') {
            const message = bytes(one)
            expected.push(message.toString())
            return message
          }
          const run = bytes(one.length)
          for (let i = 0; i < run.length; i++) run[i] = 97 + (i % 25)
          for (let at = 0; at < run.length; at += one.segmentSize) expected.push(run.toString('latin1', at, at + one.segmentSize))
          return Object.assign(run, { segmentSize: Math.min(one.segmentSize, run.length) })
        })
        for (const frame of a.send(...messages)) b.take(frame)
        expect(b.received).toEqual(expected)
        expect(figuresOf(b.framing.stats.incoming)).toEqual({ received: expected.length, lost: 0, duplicated: 0, reordered: 0 })
      }),
      { numRuns: 60 },
    )
  })

  it('makes one run of equal messages, of which the last may be shorter', () => {
    const { frames } = new Framing(() => {}, 0).frame(
      [10, 10, 10, 7, 10, 10].map((size) => Buffer.alloc(size)),
      () => {},
      0,
    )
    expect(frames.map(({ length, segmentSize }) => [length, segmentSize])).toEqual([
      [3 * 15 + 12, 15],
      [2 * 15, 15],
    ])
  })

  it('cuts a long run into such as make whole trains of 64', () => {
    const run = Object.assign(Buffer.alloc(1000 * 100), { segmentSize: 100 })
    const { frames } = new Framing(() => {}, 0).frame([run], () => {}, 0)
    expect(frames.map(({ length }) => length / 105)).toEqual([576, 424])
  })

  it('both ends tell exactly what the network lost, doubled and reordered', () => {
    const fates = fc.array(fc.record({ copies: fc.nat({ max: 2 }), delay: fc.nat({ max: 20 }) }), { minLength: 1, maxLength: 300 })
    fc.assert(
      fc.property(fates, (network) => {
        const a = new End()
        const b = new End()
        const frames = a.send(...texts(network.length))
        const arriving = frames
          .flatMap((frame, i) => Array.from({ length: network[i].copies }, () => ({ i, frame, at: i + network[i].delay })))
          .sort((one, other) => one.at - other.at)
        for (const { frame } of arriving) b.take(frame)

        const seen = new Set<number>()
        let reordered = 0
        let highest = -1
        for (const { i } of arriving) {
          if (!seen.has(i) && i < highest) reordered++
          seen.add(i)
          highest = Math.max(highest, i)
        }
        const truth = { received: seen.size, lost: network.length - seen.size, duplicated: arriving.length - seen.size, reordered }
        report(a, b, { sentMs: 0 }) // tells how many there were, the last ones too
        report(b, a, { sentMs: 0 })
        expect(figuresOf(b.framing.stats.incoming)).toEqual(truth)
        expect(figuresOf(a.framing.stats.outgoing)).toEqual(truth)
        expect(a.framing.stats.outgoing.sent).toBe(network.length)
        expect(b.framing.stats.incoming.sent).toBe(network.length)
        expect(b.received).toHaveLength(seen.size)
      }),
    )
  })

  it('delivers what is left of a train that holds other frames and duplicates', () => {
    const [a, b] = [new End(), new End()]
    const [one, two, three, four] = a.send(...['aaaa', 'bbbb', 'cccc', 'dddd'].map((text) => Buffer.from(text)))
    b.take(two)
    const train = Buffer.concat([one, two, encodeEcho(0, 7), three, four.subarray(0, 7)])
    b.framing.take(train, 0, train.length, one.length, 0)
    expect(b.received).toEqual(['bbbb', 'aaaa', 'cccc', 'dd'])
  })

  it('counts frames that are no good by reason, and takes nothing from them', () => {
    const [a, b] = [new End(), new End()]
    a.take(Buffer.alloc(FRAME_HEADER - 1))
    a.take(Buffer.of(9, 0, 0, 0, 77))
    a.take(encodeReport(77, { stampUs: 0, figures: { expected: 0, received: 0, duplicated: 0, reordered: 0, late: 0 } }).subarray(0, 38))
    // Of messages that were never sent, and more than there were.
    a.take(encodeReport(77, { stampUs: 0, figures: { expected: 1, received: 0, duplicated: 0, reordered: 0, late: 0 } }))
    a.take(encodeReport(77, { stampUs: 0, figures: { expected: 0, received: 1, duplicated: 0, reordered: 0, late: 0 } }))
    a.take(encodeEcho(77, 0), 120_000)
    a.take(Buffer.of(3, 0, 0, 0, 77, 1))
    expect(a.framing.stats.ignored).toEqual({ short: 1, unknownType: 1, report: 3, echo: 1, close: 1, overtaken: 0 })
    expect(a.framing.stats.incoming.sent).toBe(0)
    expect(a.framing.talks).toBe(false)
    expect(b.framing.stats.rttMs).toBeUndefined()
  })

  it.each([
    ['messages', DATA],
    ['close frames', CLOSE],
  ] as const)('a hostile peer whose %s jump by 2^31 each time gets reports that can be written', (_what, type) => {
    const end = new End()
    // Four times as far as a figure of 48 bits reaches.
    for (let i = 1, counter = 0; i <= 2 ** 19; i++) {
      counter += 2 ** 31 - 1
      end.take(Buffer.of(type, counter / 2 ** 24, counter / 2 ** 16, counter / 2 ** 8, counter))
    }
    const { sent } = end.framing.stats.incoming
    expect(sent).toBeLessThanOrEqual(MOST_FRAMES)
    end.framing.report()
    const [frame] = end.controls(0)
    expect(decodeReport(frame, 0, frame.length)?.figures.expected).toBe(sent)
    // It goes on where it stands.
    expect(end.received).toHaveLength(end.framing.stats.incoming.received)
  })

  it('reports once, a second after the first message that no report speaks of, and no report calls for another', () => {
    const [a, b] = [new End(), new End()]
    expect(a.framing.dueMs).toBe(Number.POSITIVE_INFINITY)
    const [frame] = a.send(Buffer.from('x'))
    b.take(frame, 5000)
    expect(b.framing.dueMs).toBe(6000)
    b.framing.onDue(5999)
    expect(b.framing.talks).toBe(false)
    b.framing.onDue(6000)
    const reports = b.controls(6000)
    expect(reports).toHaveLength(1)
    expect(b.framing.dueMs).toBe(Number.POSITIVE_INFINITY)
    a.framing.control(0, true)
    a.take(reports[0], 6010)
    for (const echo of a.controls(6010)) b.take(echo, 6020)
    expect([b.framing.talks, b.framing.dueMs]).toEqual([false, Number.POSITIVE_INFINITY])
  })

  it('measures the round trip of each report, also where the clock of microseconds wraps', () => {
    const [a, b] = [new End(), new End()]
    const wrapMs = 2 ** 32 / 1000
    report(a, b, { sentMs: wrapMs - 10, arrivesMs: 3, backMs: wrapMs + 30 })
    expect(a.framing.stats.rttMs).toEqual({ last: 40, min: 40, smoothed: 40 })
    report(a, b, { sentMs: wrapMs + 1000, arrivesMs: 4, backMs: wrapMs + 1000 + 24 })
    expect(a.framing.stats.rttMs).toEqual({ last: 24, min: 24, smoothed: 38 })
    report(a, b, { sentMs: wrapMs + 2000, arrivesMs: 5, backMs: wrapMs + 2000 + 46 })
    expect(a.framing.stats.rttMs).toEqual({ last: 46, min: 24, smoothed: 39 })
  })

  it('an older report that was overtaken changes nothing', () => {
    const [a, b] = [new End(), new End()]
    const [one, two] = a.send(Buffer.from('1'), Buffer.from('2'))
    b.take(one)
    b.framing.report()
    const [older] = b.controls(0)
    b.take(two)
    b.framing.report()
    const [newer] = b.controls(0)
    a.take(newer)
    a.take(older)
    expect(a.framing.stats.outgoing.received).toBe(2)
  })

  it('a report says no more of messages than the kernel has been given', () => {
    const [a, b] = [new End(), new End()]
    a.send(Buffer.from('1'))
    a.framing.report()
    b.take(a.framing.control(0, false)!)
    expect(b.framing.stats.incoming.sent).toBe(0)
    report(a, b, { sentMs: 1 })
    expect(b.framing.stats.incoming).toMatchObject({ sent: 1, lost: 1 })
  })

  it('tells why it ends, and how much there was, as often as it is asked to', () => {
    const [a, b] = [new End(), new End()]
    a.send(...texts(3))
    a.framing.end({ code: 4000, reason: 'genug' })
    b.take(a.framing.closeFrame()!)
    b.take(a.framing.closeFrame()!)
    expect(b.framing.closeReason).toEqual({ code: 4000, reason: 'genug' })
    expect(b.framing.stats.incoming).toMatchObject({ sent: 3, lost: 3 })
    b.framing.end(undefined)
    a.take(b.framing.closeFrame()!)
    expect(a.framing.closeReason).toBeUndefined()
  })

  it('with a reorder window delivers in order, from trains too, and counts what came too late', () => {
    const [a, b] = [new End(), new End(10)]
    const frames = a.send(...texts(8).map((text) => text.subarray(8)))
    const train = (...numbers: number[]) => Buffer.concat(numbers.map((i) => frames[i]))
    const take = (now: number, ...numbers: number[]) => {
      const bytes = train(...numbers)
      b.framing.take(bytes, 0, bytes.length, frames[0].length, now)
    }
    take(0, 0, 2, 3)
    expect([b.received, b.framing.dueMs]).toEqual([['0'], 10])
    take(1, 1, 1, 4)
    expect(b.received).toEqual(['0', '1', '2', '3', '4'])
    take(20, 7, 6)
    b.framing.onDue(30)
    expect(b.received).toEqual(['0', '1', '2', '3', '4', '6', '7'])
    take(31, 5)
    expect(b.received).toHaveLength(7)
    expect(b.framing.stats.ignored.overtaken).toBe(1)
    expect(figuresOf(b.framing.stats.incoming)).toEqual({ received: 8, lost: 0, duplicated: 1, reordered: 3 })
  })

  it('with a reorder window gives out what waits when the peer has ended', () => {
    const [a, b] = [new End(), new End(1000)]
    const frames = a.send(...texts(3))
    b.take(frames[2])
    b.framing.peerEnded()
    expect(b.received).toEqual(['message 2'])
  })
})
