// The native codec of the tunnel's messages: the format, compared with node:crypto message by message, and whole trains in and out.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RUN_LENGTH, RUN_OFFSET, RUN_WORDS } from '../../lib/native/layout.ts'
import { binding } from './rig.ts'
import { CIPHERS, countersOf, newKeys, PLAIN_OVERHEAD, pack, packOne, pairOf, SEALED_OVERHEAD, unpack } from './tunnel-codec-rig.ts'
import { plain, sealed, type TunnelMessage } from './tunnel-message-model.ts'

const LONGEST_TRAIN = 65_000
const type = fc.integer({ min: 0, max: 255 })
const session = fc.integer({ min: 0, max: 65535 })
/** Sizes around those of the ciphers' blocks, also of many blocks, and what a packet holds. */
const segment = fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(1024, 1400, 9000))
/** Payloads of one size, the last of which may be shorter; now and then more than the 64 whose masks are made in one call. */
const train = fc
  .tuple(segment, fc.oneof({ weight: 5, arbitrary: fc.integer({ min: 0, max: 6 }) }, fc.integer({ min: 60, max: 200 })), fc.nat(), fc.nat())
  .map(([size, whole, shorter, seed]) => ({
    bytes: noise(Math.min(whole, Math.floor(LONGEST_TRAIN / size)) * size + (shorter % size), seed),
    segment: size,
  }))

function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0, state = seed; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[i] = state >>> 24
  }
  return bytes
}

function payloadsOf({ bytes, segment }: { bytes: Buffer; segment: number }): Buffer[] {
  if (bytes.length === 0) return [bytes]
  return Array.from({ length: Math.ceil(bytes.length / segment) }, (_, i) => bytes.subarray(i * segment, (i + 1) * segment))
}

describe.each(['plain', ...CIPHERS] as const)('a codec (%s)', (cipher) => {
  const overhead = cipher === 'plain' ? PLAIN_OVERHEAD : SEALED_OVERHEAD

  it('packs any trains as node:crypto makes each message, its numbers rising from 0', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(type, session, train), { minLength: 1, maxLength: 3 }), (trains) => {
        const { near, keys } = pairOf(cipher)
        let number = 0
        for (const [type, session, payloads] of trains) {
          const expected = payloadsOf(payloads).map((payload) => {
            const message = { type, session, payload }
            return keys === undefined ? plain(message) : sealed(keys, number++, message)
          })
          const { bytes, segment } = pack(near, { type, session }, payloads)
          expect(bytes.equals(Buffer.concat(expected))).toBe(true)
          expect(segment).toBe(payloads.bytes.length === 0 ? overhead : payloads.segment + overhead)
        }
      }),
    )
  })

  it('unpacks a train of any messages into runs of one type and session each', () => {
    const few = fc.constantFrom(1, 2)
    const mixed = fc.tuple(
      fc.integer({ min: 0, max: 40 }),
      fc.array(fc.tuple(few, few), { minLength: 1, maxLength: 90 }),
      fc.nat(),
      fc.nat(),
    )
    fc.assert(
      fc.property(mixed, fc.constantFrom(1, 2, 3, 64), ([size, kinds, shorter, seed], capacity) => {
        const { near, far } = pairOf(cipher)
        const messages = kinds.map(([type, session], i): TunnelMessage => {
          const length = i === kinds.length - 1 ? shorter % (size + 1) : size
          return { type, session, payload: noise(length, seed + i) }
        })
        const expected: Array<TunnelMessage & { segment: number; messages: number }> = []
        for (const message of messages) {
          const last = expected.at(-1)
          const { payload } = message
          if (last === undefined || payload.length === 0 || last.type !== message.type || last.session !== message.session) {
            expected.push({ ...message, segment: payload.length, messages: 1 })
          } else {
            expected[expected.length - 1] = { ...last, payload: Buffer.concat([last.payload, payload]), messages: last.messages + 1 }
          }
        }
        const bytes = Buffer.concat(messages.map((message) => packOne(near, message)))
        // Where there is room for so few runs that it takes several calls, a run may end early.
        const runs = unpack(far, { bytes, segment: size + overhead }, capacity)
        if (capacity === 64) expect(runs.slice(0, 64)).toEqual(expected.slice(0, 64))
        expect(
          runs.flatMap(({ payload, segment, ...kind }) =>
            payloadsOf({ bytes: payload, segment }).map((one) => [kind.type, kind.session, one]),
          ),
        ).toEqual(messages.map(({ type, session, payload }) => [type, session, payload]))
        expect(countersOf(far)).toEqual({ packed: 0, unpacked: messages.length, truncated: 0, replayed: 0, forged: 0 })
      }),
    )
  })

  it('brings any trains back, in the memory around them nothing is touched', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(type, session, train), { minLength: 1, maxLength: 3 }), fc.nat(40), (trains, margin) => {
        const { near, far } = pairOf(cipher)
        for (const [type, session, payloads] of trains) {
          const count = payloadsOf(payloads).length
          const guard = Buffer.alloc(margin, 0xa5)
          const memory = Buffer.concat([guard, payloads.bytes, guard])
          const length = payloads.bytes.length + count * overhead
          const out = Buffer.alloc(length + 2 * margin, 0xa5)
          expect(near.pack(type, session, memory, margin, payloads.bytes.length, payloads.segment, out, margin)).toBe(length)
          expect(memory.equals(Buffer.concat([guard, payloads.bytes, guard]))).toBe(true)
          const runs = new Int32Array(200 * RUN_WORDS)
          const size = payloads.bytes.length === 0 ? overhead : payloads.segment + overhead
          expect(far.unpack(out, margin, length, size, runs)).toBe(1)
          expect(far.unread).toBe(0)
          const shape = payloads.bytes.length === 0 ? 0 : Math.min(payloads.segment, payloads.bytes.length)
          const [offset] = runs.subarray(RUN_OFFSET)
          expect([...runs.subarray(0, RUN_WORDS)]).toEqual([type, session, offset, payloads.bytes.length, shape, count])
          expect(out.subarray(offset, offset + runs[RUN_LENGTH]).equals(payloads.bytes)).toBe(true)
          expect(out.subarray(0, margin)).toEqual(guard)
          expect(out.subarray(margin + length)).toEqual(guard)
        }
        const total = trains.reduce((sum, [, , payloads]) => sum + payloadsOf(payloads).length, 0)
        expect([countersOf(near).packed, countersOf(far).unpacked]).toEqual([total, total])
      }),
    )
  })

  it('leaves out what is too short to be a message', () => {
    const { near, far } = pairOf(cipher)
    for (let length = 1; length < overhead; length++) {
      expect(unpack(far, { bytes: noise(length, length), segment: length })).toEqual([])
    }
    expect(countersOf(far)).toEqual({ packed: 0, unpacked: 0, truncated: overhead - 1, replayed: 0, forged: 0 })
    // As the last of a train, behind a good one.
    const good = packOne(near, { type: 1, session: 2, payload: Buffer.from('good') })
    const behind = Buffer.concat([good, noise(overhead - 1, 1)])
    expect(unpack(far, { bytes: behind, segment: good.length }).map(({ payload }) => `${payload}`)).toEqual(['good'])
    expect(countersOf(far).truncated).toBe(overhead)
  })

  it('finds nothing in nothing', () => {
    const { far } = pairOf(cipher)
    expect(far.unpack(Buffer.alloc(10), 5, 0, 0, new Int32Array(RUN_WORDS))).toBe(0)
    expect(far.unread).toBe(0)
  })

  it('throws once it is closed, however often', () => {
    const { near } = pairOf(cipher)
    const out = Buffer.alloc(100)
    near.close()
    near.close()
    expect(() => near.pack(0, 0, out, 0, 1, 1, Buffer.alloc(100), 0)).toThrow('the codec is closed')
    expect(() => near.unpack(out, 0, 50, 50, new Int32Array(RUN_WORDS))).toThrow('the codec is closed')
    expect(countersOf(near).packed).toBe(0)
  })
})

describe('what cannot be right is refused with what was expected', () => {
  const codec = new binding.TunnelCodec({})
  const bytes = (length: number) => new Uint8Array(length)
  const packing = (over: Partial<Record<number, unknown>>) => {
    const usual: unknown[] = [1, 2, bytes(10), 0, 10, 5, bytes(16), 0]
    return () =>
      Reflect.apply(
        codec.pack,
        codec,
        usual.map((value, i) => (i in over ? over[i] : value)),
      )
  }
  const unpacking = (over: Partial<Record<number, unknown>>) => {
    const usual: unknown[] = [bytes(16), 0, 16, 8, new Int32Array(RUN_WORDS)]
    return () =>
      Reflect.apply(
        codec.unpack,
        codec,
        usual.map((value, i) => (i in over ? over[i] : value)),
      )
  }

  it.each<[string, Partial<Record<number, unknown>>, string]>([
    ['a type of 9 bits', { 0: 256 }, 'type must be an integer from 0 to 255, it is 256'],
    ['a session of 17 bits', { 1: 65536 }, 'session must be an integer from 0 to 65535, it is 65536'],
    ['payload that is no bytes', { 2: 'text' }, 'memory must be a Uint8Array, it is a string'],
    ['payload behind its memory', { 3: 1 }, 'offset + length must be at most the 10 bytes of memory, it is 11'],
    ['more of it than numbers can say', { 3: 2 ** 31 - 1 }, 'length must be an integer from 0 to 0, it is 10'],
    ['payloads of no bytes', { 5: 0 }, 'segment must be an integer from 1 to 65535, it is 0'],
    ['too little room', { 6: bytes(15) }, 'out must have room for 16 bytes at 0, it has 15 bytes'],
    ['too little room behind an offset', { 7: 1 }, 'out must have room for 16 bytes at 1, it has 16 bytes'],
  ])('by pack: %s', (_what, over, message) => {
    expect(packing({})()).toBe(16)
    expect(packing(over)).toThrow(message)
  })

  it.each<[string, Partial<Record<number, unknown>>, string]>([
    ['a train behind its memory', { 1: 1 }, 'offset + length must be at most the 16 bytes of memory, it is 17'],
    ['messages of no bytes', { 3: 0 }, 'segment must be an integer from 1 to 65535, it is 0'],
    ['no room for a run', { 4: new Int32Array(RUN_WORDS - 1) }, 'runs must have at least 6 elements, it has 5'],
  ])('by unpack: %s', (_what, over, message) => {
    expect(unpacking({})()).toBe(1)
    expect(unpacking(over)).toThrow(message)
  })

  const keys = newKeys('aes-256-gcm')
  it.each<[string, unknown, string]>([
    ['one direction only', { seal: keys }, 'open must be an object of keys: both directions are sealed, or none'],
    ['a short key', { seal: { ...keys, key: bytes(31) }, open: keys }, 'seal.key must have 32 bytes, it has 31'],
    ['a long iv', { seal: newKeys('aes-256-gcm'), open: { ...keys, iv: bytes(13) } }, 'open.iv must have 12 bytes, it has 13'],
    ['no mask', { seal: { ...keys, mask: undefined }, open: keys }, 'mask must be a Uint8Array, it is undefined'],
    ['a cipher without authentication', { seal: { ...keys, cipher: 'aes-256-ctr' }, open: keys }, "it is 'aes-256-ctr'"],
    [
      'one key for both directions',
      { seal: keys, open: { ...newKeys('aes-256-gcm'), key: keys.key } },
      'seal.key and open.key must differ',
    ],
  ])('by the constructor: %s', (_what, options, message) => {
    expect(() => Reflect.construct(binding.TunnelCodec, [options])).toThrow(message)
  })
})
