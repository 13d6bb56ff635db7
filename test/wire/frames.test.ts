// Frames: the vectors of docs/wire.md, and that no byte of a stranger's is taken for more than it is.
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  counterAt,
  DATA,
  decodeClose,
  decodeEcho,
  decodeReport,
  encodeClose,
  encodeEcho,
  encodeReport,
  type Figures,
  FRAME_HEADER,
  MAX_REASON,
  writeHeader,
} from '../../lib/wire/frames.ts'

interface Vector {
  counter: number
  data?: string
  report?: { stampUs: number; figures: Figures }
  echo?: number
  close?: { code: number; reason: string } | 'none'
  frame: string
}

const document = readFileSync(new URL('../../docs/wire.md', import.meta.url), 'utf8')
const section = document.slice(document.indexOf('### Frame vectors'))
const vectors = JSON.parse(/```json\n([^`]*)```/.exec(section)?.[1] ?? '[]') as Vector[]

function encode({ counter, data, report, echo, close }: Vector): Buffer {
  if (report !== undefined) return encodeReport(counter, report)
  if (echo !== undefined) return encodeEcho(counter, echo)
  if (close !== undefined) return encodeClose(counter, close === 'none' ? undefined : close)
  const payload = Buffer.from(data ?? '', 'hex')
  const frame = Buffer.alloc(FRAME_HEADER + payload.length)
  writeHeader(frame, 0, DATA, counter)
  frame.set(payload, FRAME_HEADER)
  return frame
}

const figure = fc.integer({ min: 0, max: 2 ** 48 - 1 })
const anyReport = fc.record({
  stampUs: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  figures: fc.record({ expected: figure, received: figure, duplicated: figure, reordered: figure, late: figure }),
})

/** The frame in the middle of other bytes, as it lies in a slab. */
function slab(frame: Uint8Array): { memory: Uint8Array; at: number } {
  const memory = new Uint8Array(frame.length + 20).fill(0xee)
  memory.set(frame, 7)
  return { memory: memory.subarray(2), at: 5 }
}

describe('frames', () => {
  it('have a vector of each type in docs/wire.md', () => {
    expect(vectors.map((vector) => Object.keys(vector)[1])).toEqual(expect.arrayContaining(['data', 'report', 'echo', 'close']))
  })

  it.each(vectors)('are encoded as docs/wire.md says: $frame', (vector) => {
    expect(encode(vector).toString('hex')).toBe(vector.frame)
  })

  it.each(vectors)('are decoded as docs/wire.md says: $frame', ({ counter, report, echo, close, frame }) => {
    const bytes = Buffer.from(frame, 'hex')
    expect(counterAt(bytes, 0) >>> 0).toBe(counter)
    if (report !== undefined) expect(decodeReport(bytes, 0, bytes.length)).toEqual(report)
    if (echo !== undefined) expect(decodeEcho(bytes, 0, bytes.length)).toBe(echo)
    if (close !== undefined) expect(decodeClose(bytes, 0, bytes.length)).toEqual(close)
  })

  it('reports come back wherever they lie in memory, also with something behind that a later version may add', () => {
    fc.assert(
      fc.property(anyReport, fc.nat({ max: 9 }), (report, more) => {
        const frame = encodeReport(5, report)
        const { memory, at } = slab(frame)
        expect(decodeReport(memory, at, frame.length + more)).toEqual(report)
        expect(decodeReport(memory, at, frame.length - 1)).toBeUndefined()
      }),
    )
  })

  it('close frames come back with any code and any text', () => {
    const text = fc.string({ unit: 'grapheme', maxLength: 60 }).filter((reason) => Buffer.byteLength(reason) <= MAX_REASON)
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), text, (code, reason) => {
        const frame = encodeClose(7, { code, reason })
        const { memory, at } = slab(frame)
        expect(decodeClose(memory, at, frame.length)).toEqual({ code, reason: Buffer.from(reason).toString() })
      }),
    )
  })

  it('close frames that are cut off, too long or no UTF-8 are none', () => {
    const frame = encodeClose(7, { code: 1, reason: 'ab' })
    for (let size = FRAME_HEADER + 1; size < FRAME_HEADER + 4; size++) expect(decodeClose(frame, 0, size)).toBeUndefined()
    frame[frame.length - 1] = 0xc3
    expect(decodeClose(frame, 0, frame.length)).toBeUndefined()
    const long = Buffer.alloc(FRAME_HEADER + 4 + MAX_REASON + 1, 0x61)
    expect(decodeClose(long, 0, long.length)).toBeUndefined()
    expect(decodeClose(long, 0, long.length - 1)).toMatchObject({ reason: 'a'.repeat(MAX_REASON) })
  })

  it('a reason that does not fit is refused', () => {
    expect(() => encodeClose(0, { code: 0, reason: 'ä'.repeat(MAX_REASON / 2 + 1) })).toThrow(RangeError)
  })

  it('echoes that are cut off are none', () => {
    const frame = encodeEcho(1, 2)
    expect(decodeEcho(frame, 0, frame.length - 1)).toBeUndefined()
  })
})
