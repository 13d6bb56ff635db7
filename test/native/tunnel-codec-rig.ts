// Tunnel codecs as the tests use them: keys, pairs, whole trains in and out as lists of messages.
import { randomBytes } from 'node:crypto'
import type { NativeTunnelCodec, TunnelKeys } from '../../lib/native/binding.ts'
import * as layout from '../../lib/native/layout.ts'
import { binding } from './rig.ts'
import type { TunnelMessage } from './tunnel-message-model.ts'

export const CIPHERS = ['aes-256-gcm', 'chacha20-poly1305'] as const
export type Cipher = (typeof CIPHERS)[number]

export const PLAIN_OVERHEAD = 3
export const SEALED_OVERHEAD = 25

export function newKeys(cipher: Cipher): TunnelKeys {
  return { cipher, key: randomBytes(32), iv: randomBytes(12), mask: randomBytes(32) }
}

export interface Pair {
  readonly near: NativeTunnelCodec
  readonly far: NativeTunnelCodec
  /** What `near` seals with; undefined for a plain pair. */
  readonly keys: TunnelKeys | undefined
}

export function pairOf(cipher: Cipher | 'plain'): Pair {
  if (cipher === 'plain') return { near: new binding.TunnelCodec({}), far: new binding.TunnelCodec({}), keys: undefined }
  const keys = newKeys(cipher)
  const back = newKeys(cipher)
  return { near: new binding.TunnelCodec({ seal: keys, open: back }), far: new binding.TunnelCodec({ seal: back, open: keys }), keys }
}

/** Payloads of one size, the last of which may be shorter. */
export interface Train {
  readonly bytes: Buffer
  readonly segment: number
}

export function pack(codec: NativeTunnelCodec, { type, session }: Omit<TunnelMessage, 'payload'>, { bytes, segment }: Train): Train {
  const messages = bytes.length === 0 ? 1 : Math.ceil(bytes.length / segment)
  const out = Buffer.alloc(bytes.length + messages * codec.overhead)
  const written = codec.pack(type, session, bytes, 0, bytes.length, segment, out, 0)
  return { bytes: out.subarray(0, written), segment: (bytes.length === 0 ? 0 : segment) + codec.overhead }
}

/** One message, packed alone. */
export function packOne(codec: NativeTunnelCodec, message: TunnelMessage): Buffer {
  return pack(codec, message, { bytes: message.payload, segment: message.payload.length }).bytes
}

export interface Run extends TunnelMessage {
  readonly segment: number
  readonly messages: number
}

/** All runs of a train, which is copied first, into an allocation of its own: a sanitizer sees a byte too far. Room for `capacity` of them in a call. */
export function unpack(codec: NativeTunnelCodec, train: Train, capacity = 64): Run[] {
  const memory = Buffer.alloc(train.bytes.length)
  memory.set(train.bytes)
  const words = new Int32Array(capacity * layout.RUN_WORDS)
  const runs: Run[] = []
  let unread = memory.length
  do {
    const count = codec.unpack(memory, memory.length - unread, unread, train.segment, words)
    for (let at = 0; at < count * layout.RUN_WORDS; at += layout.RUN_WORDS) {
      const offset = words[at + layout.RUN_OFFSET]
      runs.push({
        type: words[at + layout.RUN_TYPE],
        session: words[at + layout.RUN_SESSION],
        payload: Buffer.from(memory.subarray(offset, offset + words[at + layout.RUN_LENGTH])),
        segment: words[at + layout.RUN_SEGMENT],
        messages: words[at + layout.RUN_MESSAGES],
      })
    }
    unread = codec.unread
  } while (unread > 0)
  return runs
}

/** What came out of a message that arrives alone. */
export function unpackOne(codec: NativeTunnelCodec, bytes: Buffer): Run[] {
  return unpack(codec, { bytes, segment: bytes.length })
}

export function countersOf(codec: NativeTunnelCodec) {
  const out = new Float64Array(layout.CODEC_COUNTERS)
  codec.counters(out)
  return {
    packed: out[layout.CODEC_PACKED],
    unpacked: out[layout.CODEC_UNPACKED],
    truncated: out[layout.CODEC_TRUNCATED],
    replayed: out[layout.CODEC_REPLAYED],
    forged: out[layout.CODEC_FORGED],
  }
}
