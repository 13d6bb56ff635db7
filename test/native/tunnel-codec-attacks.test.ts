// What a sealed codec makes of messages that somebody has changed, cut, repeated, kept back or sent back: nothing, and it counts them.
import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CIPHERS, countersOf, newKeys, pack, packOne, pairOf, SEALED_OVERHEAD, unpack, unpackOne } from './tunnel-codec-rig.ts'
import { sealed, type TunnelMessage } from './tunnel-message-model.ts'

/** Numbers that are remembered, the newest included. */
const WINDOW = 8128

const NOTHING = { packed: 0, unpacked: 0, truncated: 0, replayed: 0, forged: 0 }
const messageOf = (text: string): TunnelMessage => ({ type: 1, session: 2, payload: Buffer.from(text) })
const texts = (runs: readonly TunnelMessage[]) => runs.map(({ payload }) => payload.toString())

describe.each(CIPHERS)('a sealed codec (%s)', (cipher) => {
  it('refuses a message in which any one bit has changed, and takes it as it was afterwards', () => {
    const { near, far } = pairOf(cipher)
    const message = packOne(near, messageOf('hello'))
    for (let bit = 0; bit < message.length * 8; bit++) {
      const changed = Buffer.from(message)
      changed[bit >> 3] ^= 1 << (bit & 7)
      expect(unpackOne(far, changed)).toEqual([])
    }
    expect(countersOf(far)).toEqual({ ...NOTHING, forged: message.length * 8 })
    expect(texts(unpackOne(far, message))).toEqual(['hello'])
  })

  it('refuses a message that was cut or made longer anywhere', () => {
    const { near, far } = pairOf(cipher)
    const message = packOne(near, messageOf('some more text'))
    for (let length = 1; length < message.length; length++) expect(unpackOne(far, message.subarray(0, length))).toEqual([])
    for (let more = 1; more < 20; more++) expect(unpackOne(far, Buffer.concat([message, randomBytes(more)]))).toEqual([])
    const truncated = SEALED_OVERHEAD - 1
    expect(countersOf(far)).toEqual({ ...NOTHING, truncated, forged: message.length - 1 - truncated + 19 })
    expect(texts(unpackOne(far, message))).toEqual(['some more text'])
  })

  it('closes the gap that refused messages leave in a train', () => {
    const { near, far } = pairOf(cipher)
    const { bytes, segment } = pack(near, { type: 1, session: 2 }, { bytes: Buffer.from('aaaabbbbccccddddee'), segment: 4 })
    const copy = Buffer.from(bytes)
    copy[segment] ^= 1
    copy[3 * segment + 10] ^= 1
    const good = { type: 1, session: 2, segment: 4 }
    expect(unpack(far, { bytes: copy, segment })).toEqual([{ ...good, payload: Buffer.from('aaaaccccee'), messages: 3 }])
    expect(unpack(far, { bytes, segment })).toEqual([{ ...good, payload: Buffer.from('bbbbdddd'), messages: 2 }])
    expect(countersOf(far)).toEqual({ ...NOTHING, unpacked: 5, forged: 2, replayed: 3 })
  })

  it('refuses every message that it has had before', () => {
    const { near, far } = pairOf(cipher)
    const train = pack(near, { type: 1, session: 2 }, { bytes: randomBytes(100 * 8), segment: 8 })
    expect(unpack(far, train).map(({ messages }) => messages)).toEqual([100])
    expect(unpack(far, train)).toEqual([])
    for (let at = 0; at < train.bytes.length; at += train.segment) unpackOne(far, train.bytes.subarray(at, at + train.segment))
    expect(countersOf(far)).toEqual({ ...NOTHING, unpacked: 100, replayed: 200 })
    // Twice within one train, where both numbers are read before either message.
    const twice = packOne(near, messageOf('once'))
    expect(texts(unpack(far, { bytes: Buffer.concat([twice, twice]), segment: twice.length }))).toEqual(['once'])
    expect(countersOf(far)).toEqual({ ...NOTHING, unpacked: 101, replayed: 201 })
  })

  it('takes messages in any order, each once', () => {
    const order = fc.shuffledSubarray(
      Array.from({ length: 150 }, (_, i) => i),
      { minLength: 1 },
    )
    fc.assert(
      fc.property(order, order, (first, second) => {
        const { near, far } = pairOf(cipher)
        const sent = Array.from({ length: 150 }, (_, i) => packOne(near, messageOf(String(i).padStart(3, '0'))))
        const bytes = Buffer.concat([...first, ...second].map((i) => sent[i]))
        const payload = Buffer.concat(unpack(far, { bytes, segment: sent[0].length }).map((run) => run.payload)).toString()
        expect(payload.match(/.../g)?.map(Number)).toEqual([...new Set([...first, ...second])])
      }),
      { numRuns: 20 },
    )
  })

  it(`takes what is among the newest ${WINDOW} numbers, and nothing older`, () => {
    const { near, far } = pairOf(cipher)
    const sent = Array.from({ length: WINDOW + 1 }, (_, i) => packOne(near, messageOf(String(i))))
    expect(texts(unpackOne(far, sent[WINDOW]))).toEqual([String(WINDOW)])
    expect(unpackOne(far, sent[0])).toEqual([])
    expect(texts(unpackOne(far, sent[1]))).toEqual(['1'])
    expect(countersOf(far)).toEqual({ ...NOTHING, unpacked: 2, replayed: 1 })
  })

  it('remembers no number that was not proved', () => {
    const { near, far, keys } = pairOf(cipher)
    const later = sealed(keys!, 2 ** 40, messageOf('later'))
    const last = later.length - 1
    later[last] ^= 1
    expect(unpackOne(far, later)).toEqual([])
    // Had the forged number moved the window, this one were too old now.
    expect(texts(unpackOne(far, packOne(near, messageOf('first'))))).toEqual(['first'])
    later[last] ^= 1
    expect(texts(unpackOne(far, later))).toEqual(['later'])
    expect(unpackOne(far, packOne(near, messageOf('second')))).toEqual([])
    expect(countersOf(far)).toEqual({ ...NOTHING, unpacked: 2, forged: 1, replayed: 1 })
  })

  it('takes the highest number there is', () => {
    const { far, keys } = pairOf(cipher)
    const highest = sealed(keys!, 2 ** 48 - 1, messageOf('highest'))
    expect(texts(unpackOne(far, highest))).toEqual(['highest'])
    expect(unpackOne(far, highest)).toEqual([])
    expect(texts(unpackOne(far, sealed(keys!, 2 ** 48 - 2, messageOf('before'))))).toEqual(['before'])
  })

  it('refuses its own messages when they come back', () => {
    const { near } = pairOf(cipher)
    const train = pack(near, { type: 1, session: 2 }, { bytes: randomBytes(80 * 40), segment: 40 })
    expect(unpack(near, train)).toEqual([])
    expect(countersOf(near)).toEqual({ ...NOTHING, packed: 80, forged: 80 })
  })

  it.each(['key', 'iv', 'mask'] as const)('refuses messages of a peer with another %s', (part) => {
    const { far, keys } = pairOf(cipher)
    const theirs = { ...keys!, [part]: newKeys(cipher)[part] }
    for (let number = 0; number < 20; number++) expect(unpackOne(far, sealed(theirs, number, messageOf('hello')))).toEqual([])
    expect(countersOf(far)).toEqual({ ...NOTHING, forged: 20 })
  })

  it('refuses noise of any shape', () => {
    const { far } = pairOf(cipher)
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 400 }), fc.integer({ min: 1, max: 400 }), (bytes, segment) => {
        expect(unpack(far, { bytes: Buffer.from(bytes), segment })).toEqual([])
      }),
    )
    expect(countersOf(far)).toMatchObject({ unpacked: 0, replayed: 0 })
  })

  it('refuses plain messages', () => {
    const { far } = pairOf(cipher)
    expect(unpackOne(far, packOne(pairOf('plain').near, messageOf('hello, is anybody there who reads this?')))).toEqual([])
    expect(countersOf(far)).toEqual({ ...NOTHING, forged: 1 })
  })

  it('hides its numbers: messages of the same content share no bytes', () => {
    const { near } = pairOf(cipher)
    const beginnings = new Set(Array.from({ length: 1000 }, () => packOne(near, messageOf('same')).subarray(0, 3).toString('hex')))
    // The upper half of the numbers is the same in all. By chance one or two of a thousand values of 24 bits are equal.
    expect(beginnings.size).toBeGreaterThan(990)
  })
})
