// The datagrams that the ends of a UDP connection say to each other, and cookies: bytes alone.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { KEY_WORDS } from '../../lib/native/layout.ts'
import {
  ACCEPT,
  begins,
  CLOSE,
  CONTROL_BYTES,
  COOKIE_BYTES,
  cookieIn,
  countIn,
  HELLO,
  HELLO_TOKEN,
  isHello,
  readTrain,
  TOKEN_BYTES,
  tokenIn,
  typeOf,
  writeControl,
} from '../../lib/udp/control.ts'
import { Cookies } from '../../lib/udp/cookies.ts'

const token = (first: number) => Uint8Array.from({ length: TOKEN_BYTES }, (_, i) => first + i)

it('a hello is, byte by byte, what docs/wire.md says', () => {
  const out = Buffer.alloc(CONTROL_BYTES + 2, 0xff)
  writeControl(out, 1, HELLO_TOKEN, HELLO, { token: token(1), cookie: token(0x41) })
  const expected =
    'ff 32c2ba03ba64be33e8f758f39eadb2aa 01 01 000000000000 0102030405060708090a0b0c0d0e0f10 4142434445464748494a4b4c4d4e4f50 ff'
  expect(out.toString('hex')).toBe(expected.replaceAll(' ', ''))
  expect(isHello(out, 1, CONTROL_BYTES)).toBe(true)
  expect(isHello(out, 1, CONTROL_BYTES - 1)).toBe(false)
  out[18] = 2 // another version
  expect(isHello(out, 1, CONTROL_BYTES)).toBe(false)
})

it('what is written is read', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), fc.integer({ min: 0, max: 99 }), (count, at) => {
      const out = new Uint8Array(at + CONTROL_BYTES)
      writeControl(out, at, token(7), CLOSE, { count })
      expect([typeOf(out, at), countIn(out, at), begins(out, at, token(7)), begins(out, at, token(8))]).toEqual([CLOSE, count, true, false])
      writeControl(out, at, token(7), ACCEPT, { token: token(9) })
      expect([typeOf(out, at), [...tokenIn(out, at)], countIn(out, at)]).toEqual([ACCEPT, [...token(9)], 0])
      expect([...cookieIn(out, at)]).toEqual(Array(COOKIE_BYTES).fill(0))
    }),
  )
})

it('control datagrams are taken out of whatever train they have come into, and all else is left in order', () => {
  const own = token(3)
  const datagram = fc.oneof(
    { weight: 3, arbitrary: fc.constant('message' as const) },
    { weight: 1, arbitrary: fc.constant('control' as const) },
  )
  fc.assert(
    fc.property(fc.array(datagram, { minLength: 1, maxLength: 20 }), fc.nat({ max: CONTROL_BYTES }), (kinds, last) => {
      const parts = kinds.map((kind, i) => {
        const bytes = Buffer.alloc(CONTROL_BYTES, i + 100)
        if (kind === 'control') writeControl(bytes, 0, own, i % 9)
        return bytes
      })
      if (last > 0) parts.push(Buffer.alloc(last, 99))
      const train = Buffer.concat([Buffer.alloc(5), ...parts])
      const seen: string[] = []
      readTrain(
        {
          isControl: (memory, at) => begins(memory, at, own),
          onControl: (memory, at) => seen.push(`control ${typeOf(memory, at)}`),
          onMessages(memory, offset, length, segment) {
            for (let at = 0; at < length; at += segment)
              seen.push(Buffer.from(memory.slice(offset + at, offset + Math.min(at + segment, length))).toString('hex'))
          },
        },
        train,
        5,
        train.length - 5,
        CONTROL_BYTES,
      )
      expect(seen).toEqual(parts.map((bytes, i) => (kinds[i] === 'control' ? `control ${i % 9}` : bytes.toString('hex'))))
    }),
  )
})

it('a control datagram behind longer messages is found, and an empty message is one', () => {
  const seen: unknown[] = []
  const reader = {
    isControl: (memory: Uint8Array, at: number) => begins(memory, at, token(3)),
    onControl: () => seen.push('control'),
    onMessages: (_memory: Uint8Array, ...run: number[]) => seen.push(run),
  }
  const train = Buffer.alloc(2 * 100 + CONTROL_BYTES)
  writeControl(train, 200, token(3), CLOSE)
  readTrain(reader, train, 0, train.length, 100)
  readTrain(reader, train, 7, 0, 0)
  expect(seen).toEqual([[0, 200, 100], 'control', [7, 0, 0]])
})

describe('a cookie', () => {
  const words = Int32Array.from({ length: KEY_WORDS }, (_, i) => i * 77)

  it('is good for its client at least 10 s and at most 20 s', () => {
    let now = 1_000_000
    const cookies = new Cookies(() => now)
    const cookie = cookies.bake(words, 0, token(1)).slice()
    for (const [laterMs, good] of [
      [0, true],
      [10_000, true],
      [19_999, true],
      [20_000, false],
    ] as const) {
      now = 1_000_000 + laterMs
      expect([laterMs, cookies.accepts(cookie, words, 0, token(1))]).toEqual([laterMs, good])
    }
  })

  it('is good for nobody else: no other address, port or token, and no other listener', () => {
    const now = () => 5
    const cookies = new Cookies(now)
    const cookie = cookies.bake(words, 0, token(1)).slice()
    for (let i = 0; i < KEY_WORDS; i++) {
      const other = words.slice()
      other[i] ^= 1
      expect(cookies.accepts(cookie, other, 0, token(1))).toBe(false)
    }
    expect(cookies.accepts(cookie, words, 0, token(2))).toBe(false)
    expect(new Cookies(now).accepts(cookie, words, 0, token(1))).toBe(false)
    expect(cookies.accepts(new Uint8Array(COOKIE_BYTES), words, 0, token(1))).toBe(false)
    expect(cookies.accepts(cookie, words, 0, token(1))).toBe(true)
  })
})
