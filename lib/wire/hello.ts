// The hello: how two ends of this library recognise each other without a constant pattern on the wire. docs/wire.md specifies every byte.
// Pure: bytes in, bytes out.
import { createHmac, randomBytes, randomInt, timingSafeEqual } from 'node:crypto'

/** Capability bits, as both ends tell them. */
export const SPLITS_TRAINS = 1 << 0
/** Every message has a frame header, see frames.ts. Both ends tell it, or neither. */
export const COUNTED_FRAMES = 1 << 1

/** What one end tells the other. */
export interface Hello {
  readonly version: number
  readonly capabilities: number
  /** By type; type 0 is padding and never shown. Unknown types are the receiver's to ignore. */
  readonly extensions: ReadonlyMap<number, Uint8Array>
}

export const HELLO_VERSION = 1
const NONCE = 8
const TAG = 8
const HEAD = NONCE + TAG
/** version, capabilities */
const FIXED = 3
export const HELLO_MIN = HEAD + FIXED
export const HELLO_MAX = 255
const PADDING_TYPE = 0
const MAX_PADDING = 48

const ROLE = { dialler: 1, listener: 2 } as const
export type Role = keyof typeof ROLE

/** Of ends that were given none: it recognises, it does not keep anybody out. */
export const PUBLIC_KEY: Uint8Array = Buffer.from('faketcp hello 1')
const NO_NONCE = Buffer.alloc(NONCE)

/**
 * Encodes a hello.
 *
 * @param role who sends it: a listener's answer names the dialler's nonce, so that it answers exactly one hello
 * @param key of both ends
 * @param peerNonce the first 8 bytes of the dialler's hello, for the listener's answer
 * @param source random bytes and padding length, for test vectors only
 * @returns 19..255 bytes
 */
export function encodeHello(
  role: Role,
  hello: Omit<Hello, 'version'>,
  key: Uint8Array = PUBLIC_KEY,
  peerNonce: Uint8Array = NO_NONCE,
  source: { nonce: Uint8Array; padding: number } = { nonce: randomBytes(NONCE), padding: randomInt(MAX_PADDING) },
): Buffer {
  const parts: Uint8Array[] = [Uint8Array.of(HELLO_VERSION, hello.capabilities >> 8, hello.capabilities & 255)]
  for (const [type, value] of hello.extensions) parts.push(Uint8Array.of(type, value.length), value)
  parts.push(Uint8Array.of(PADDING_TYPE, source.padding), Buffer.alloc(source.padding))
  const body = Buffer.concat(parts)
  if (HEAD + body.length > HELLO_MAX) throw new RangeError(`A hello has at most ${HELLO_MAX} bytes; got ${HEAD + body.length}`)
  const tag = tagOf(key, role, peerNonce, source.nonce, body)
  mask(key, body, role, source.nonce, tag)
  return Buffer.concat([source.nonce, tag, body])
}

/**
 * Decodes a segment's payload if it is a hello of this key.
 *
 * @returns undefined when it is not one (chance of error 2^-64)
 */
export function decodeHello(
  role: Role,
  payload: Uint8Array,
  key: Uint8Array = PUBLIC_KEY,
  peerNonce: Uint8Array = NO_NONCE,
): Hello | undefined {
  if (payload.length < HELLO_MIN || payload.length > HELLO_MAX) return undefined
  const nonce = payload.subarray(0, NONCE)
  const tag = payload.subarray(NONCE, HEAD)
  const body = Buffer.from(payload.subarray(HEAD))
  mask(key, body, role, nonce, tag)
  if (!timingSafeEqual(tagOf(key, role, peerNonce, nonce, body), tag)) return undefined
  const extensions = new Map<number, Uint8Array>()
  for (let at = FIXED; at + 2 <= body.length; ) {
    const end = at + 2 + body[at + 1]
    if (end > body.length) return undefined
    if (body[at] !== PADDING_TYPE) extensions.set(body[at], body.subarray(at + 2, end))
    at = end
  }
  return { version: body[0], capabilities: (body[1] << 8) | body[2], extensions }
}

/** The nonce that an answer to this hello names. */
export function nonceOf(payload: Uint8Array): Uint8Array {
  return payload.slice(0, NONCE)
}

/** True when two payloads are the same hello; nonce and tag are 128 bits that no message of an application repeats. */
export function sameHello(a: Uint8Array, memory: Uint8Array, offset: number, length: number): boolean {
  if (length !== a.length) return false
  for (let i = 0; i < HEAD; i++) if (a[i] !== memory[offset + i]) return false
  return true
}

function tagOf(key: Uint8Array, role: Role, peerNonce: Uint8Array, nonce: Uint8Array, body: Uint8Array): Buffer {
  return createHmac('sha256', key).update(Uint8Array.of(ROLE[role])).update(peerNonce).update(nonce).update(body).digest().subarray(0, TAG)
}

/** XORs the body with blocks of HMAC(key, 0x80 | role, nonce, tag, block number), in place. */
function mask(key: Uint8Array, body: Uint8Array, role: Role, nonce: Uint8Array, tag: Uint8Array): void {
  for (let block = 0; block * 32 < body.length; block++) {
    const stream = createHmac('sha256', key)
      .update(Uint8Array.of(0x80 | ROLE[role]))
      .update(nonce)
      .update(tag)
      .update(Uint8Array.of(block))
      .digest()
    for (let i = 0; i < 32 && block * 32 + i < body.length; i++) body[block * 32 + i] ^= stream[i]
  }
}
