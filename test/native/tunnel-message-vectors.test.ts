// The vectors of docs/wire.md ("Tunnel messages"): node:crypto and the native codec both make and read them as the document says.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { TunnelKeys } from '../../lib/native/binding.ts'
import { binding } from './rig.ts'
import { CIPHERS, newKeys, packOne, unpackOne } from './tunnel-codec-rig.ts'
import { plain, sealed } from './tunnel-message-model.ts'

interface Vectors {
  keys: { key: string; iv: string; mask: string }
  messages: Array<{ cipher?: TunnelKeys['cipher']; number?: number; type: number; session: number; payload: string; message: string }>
}

const document = readFileSync(new URL('../../docs/wire.md', import.meta.url), 'utf8')
const section = document.slice(document.indexOf('### Tunnel message vectors'))
const { keys, messages } = JSON.parse(/```json\n([^`]*)```/.exec(section)?.[1] ?? '') as Vectors
const hex = (text: string) => Buffer.from(text, 'hex')
const vectors = messages.map(({ payload, ...rest }) => ({ ...rest, payload: hex(payload) }))

const keysOf = (cipher: TunnelKeys['cipher']): TunnelKeys => ({ cipher, key: hex(keys.key), iv: hex(keys.iv), mask: hex(keys.mask) })

/** With the document's keys for one direction, any for the other. */
function codecFor(cipher: TunnelKeys['cipher'] | undefined, direction: 'seal' | 'open') {
  if (cipher === undefined) return new binding.TunnelCodec({})
  return new binding.TunnelCodec({ seal: newKeys(cipher), open: newKeys(cipher), [direction]: keysOf(cipher) })
}

describe('the tunnel messages of docs/wire.md', () => {
  it('are plain, and sealed by either cipher, with and without payload', () => {
    for (const cipher of [undefined, ...CIPHERS]) {
      const of = vectors.filter((vector) => vector.cipher === cipher)
      expect(of.map(({ payload }) => payload.length > 0)).toEqual(expect.arrayContaining([true, false]))
    }
  })

  it.each(vectors)('are made by node:crypto: $message', ({ cipher, number, message, ...content }) => {
    expect((cipher === undefined ? plain(content) : sealed(keysOf(cipher), number ?? 0, content)).toString('hex')).toBe(message)
  })

  it.each(vectors)('are read by the codec: $message', ({ cipher, message, type, session, payload }) => {
    expect(unpackOne(codecFor(cipher, 'open'), hex(message))).toEqual([{ type, session, payload, segment: payload.length, messages: 1 }])
  })

  it.each([undefined, ...CIPHERS])('are made by the codec, whose numbers begin at 0 (%s)', (cipher) => {
    const codec = codecFor(cipher, 'seal')
    const first = vectors.filter((vector) => vector.cipher === cipher && (vector.number ?? 0) <= 1)
    expect(first.map((vector) => packOne(codec, vector).toString('hex'))).toEqual(first.map(({ message }) => message))
    expect(first.length).toBe(2)
  })
})
