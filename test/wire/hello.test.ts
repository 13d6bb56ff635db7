// The hello: the vectors of docs/wire.md, and what is and is not taken for one.
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeHello, encodeHello, HELLO_MAX, HELLO_MIN, nonceOf, PUBLIC_KEY, type Role, sameHello } from '../../lib/wire/hello.ts'

interface Vector {
  role: Role
  /** Left out: the public one. */
  key?: string
  peerNonce: string
  nonce: string
  capabilities: number
  extensions: Array<[number, string]>
  padding: number
  hello: string
}

const document = readFileSync(new URL('../../docs/wire.md', import.meta.url), 'utf8')
const vectors = JSON.parse(/```json\n([^`]*)```/.exec(document)?.[1] ?? '[]') as Vector[]
const hex = (text: string) => Buffer.from(text, 'hex')
const keyOf = ({ key }: Vector) => (key === undefined ? PUBLIC_KEY : hex(key))
const NO_NONCE = Buffer.alloc(8)
const extensionsOf = (vector: Vector) => new Map(vector.extensions.map(([type, value]) => [type, new Uint8Array(hex(value))]))

describe('the hello', () => {
  it('has at least three vectors in docs/wire.md, and two with a key', () => {
    expect(vectors.length).toBeGreaterThanOrEqual(5)
    expect(vectors.filter(({ key }) => key !== undefined).map(({ role }) => role)).toEqual(['dialler', 'listener'])
  })

  it.each(vectors)('is encoded as docs/wire.md says: $hello', (vector) => {
    const source = { nonce: hex(vector.nonce), padding: vector.padding }
    const hello = { capabilities: vector.capabilities, extensions: extensionsOf(vector) }
    expect(encodeHello(vector.role, hello, keyOf(vector), hex(vector.peerNonce), source).toString('hex')).toBe(vector.hello)
  })

  it.each(vectors)('is decoded as docs/wire.md says: $hello', (vector) => {
    const hello = decodeHello(vector.role, hex(vector.hello), keyOf(vector), hex(vector.peerNonce))
    expect(hello?.version).toBe(1)
    expect(hello?.capabilities).toBe(vector.capabilities)
    expect([...(hello?.extensions ?? [])].map(([type, value]) => [type, Buffer.from(value).toString('hex')])).toEqual(vector.extensions)
  })

  it('comes back from any capabilities and extensions', () => {
    const extension = fc.tuple(fc.integer({ min: 1, max: 255 }), fc.uint8Array({ maxLength: 20 }))
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 65535 }), fc.array(extension, { maxLength: 5 }), (capabilities, list) => {
        const extensions = new Map(list)
        const payload = encodeHello('dialler', { capabilities, extensions })
        expect(payload.length).toBeGreaterThanOrEqual(HELLO_MIN)
        expect(payload.length).toBeLessThanOrEqual(HELLO_MAX)
        const decoded = decodeHello('dialler', payload)
        expect(decoded?.capabilities).toBe(capabilities)
        expect([...(decoded?.extensions ?? [])].map(([type, value]) => [type, [...value]])).toEqual(
          [...extensions].map(([type, value]) => [type, [...value]]),
        )
      }),
    )
  })

  it('is nothing else once any bit of it has changed', () => {
    fc.assert(
      fc.property(fc.nat(), (bit) => {
        const payload = encodeHello('dialler', { capabilities: 1, extensions: new Map() })
        const at = bit % (payload.length * 8)
        payload[at >> 3] ^= 1 << (at & 7)
        expect(decodeHello('dialler', payload)).toBeUndefined()
      }),
    )
  })

  it('is not taken from the wrong side, nor as the answer to another question', () => {
    const question = encodeHello('dialler', { capabilities: 1, extensions: new Map() })
    expect(decodeHello('listener', question)).toBeUndefined()
    const answer = encodeHello('listener', { capabilities: 1, extensions: new Map() }, PUBLIC_KEY, nonceOf(question))
    expect(decodeHello('listener', answer, PUBLIC_KEY, nonceOf(question))).toBeDefined()
    expect(decodeHello('listener', answer, PUBLIC_KEY, NO_NONCE)).toBeUndefined()
    expect(decodeHello('dialler', answer)).toBeUndefined()
  })

  it('is nothing to whoever has another key, in one bit or in length, or none', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 64 }), fc.nat(), (key, bit) => {
        const payload = encodeHello('dialler', { capabilities: 1, extensions: new Map() }, key)
        const other = Uint8Array.from(key)
        other[(bit >> 3) % key.length] ^= 1 << (bit & 7)
        expect(decodeHello('dialler', payload, key)).toBeDefined()
        for (const wrong of [other, Uint8Array.of(...key.subarray(1)), PUBLIC_KEY]) {
          expect(decodeHello('dialler', payload, wrong)).toBeUndefined()
        }
      }),
    )
  })

  it('is not found in arbitrary messages, of whatever length', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (payload) => {
        expect(decodeHello('dialler', payload)).toBeUndefined()
      }),
    )
  })

  it('has no byte and no length in common with the next one, but by chance', () => {
    const hellos = Array.from({ length: 200 }, () => encodeHello('dialler', { capabilities: 1, extensions: new Map() }))
    for (let at = 0; at < HELLO_MIN; at++) expect(new Set(hellos.map((hello) => hello[at])).size).toBeGreaterThan(50)
    expect(new Set(hellos.map((hello) => hello.length)).size).toBeGreaterThan(20)
  })

  it('is recognised again where it lies in memory', () => {
    const payload = encodeHello('dialler', { capabilities: 1, extensions: new Map() })
    const memory = new Uint8Array(1000)
    memory.set(payload, 100)
    expect(sameHello(payload, memory, 100, payload.length)).toBe(true)
    expect(sameHello(payload, memory, 99, payload.length)).toBe(false)
    expect(sameHello(payload, memory, 100, payload.length - 1)).toBe(false)
  })

  it('refuses extensions that do not fit', () => {
    const extensions = new Map([
      [1, new Uint8Array(200)],
      [2, new Uint8Array(200)],
    ])
    expect(() => encodeHello('dialler', { capabilities: 0, extensions })).toThrow(RangeError)
  })
})
