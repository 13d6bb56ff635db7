// The tunnel's messages as docs/wire.md has them, made by node:crypto one at a time: what the native codec is compared with.
import { createCipheriv } from 'node:crypto'
import type { TunnelKeys } from '../../lib/native/binding.ts'

const COUNTER_BYTES = 6
const TAG_BYTES = 16
const SAMPLE_BYTES = 16

export interface TunnelMessage {
  readonly type: number
  readonly session: number
  readonly payload: Buffer
}

export function plain({ type, session, payload }: TunnelMessage): Buffer {
  return Buffer.concat([Buffer.from([type, session >> 8, session & 0xff]), payload])
}

export function sealed(keys: TunnelKeys, number: number, message: TunnelMessage): Buffer {
  const cipher = createCipheriv(keys.cipher as 'aes-256-gcm', keys.key, nonceOf(keys, number), { authTagLength: TAG_BYTES })
  const rest = Buffer.concat([cipher.update(plain(message)), cipher.final(), cipher.getAuthTag()])
  return Buffer.concat([masked(keys, counterOf(number), rest), rest])
}

function counterOf(number: number): Buffer {
  const counter = Buffer.alloc(COUNTER_BYTES)
  counter.writeUIntBE(number, 0, COUNTER_BYTES)
  return counter
}

function nonceOf(keys: TunnelKeys, number: number): Buffer {
  const nonce = Buffer.from(keys.iv)
  for (const [i, byte] of counterOf(number).entries()) nonce[nonce.length - COUNTER_BYTES + i] ^= byte
  return nonce
}

function masked(keys: TunnelKeys, counter: Buffer, rest: Buffer): Buffer {
  // A block of AES, as in RFC 9001, 5.4.3, whatever the cipher.
  const mask = createCipheriv('aes-256-ecb', keys.mask, null).setAutoPadding(false).update(rest.subarray(0, SAMPLE_BYTES))
  return counter.map((byte, i) => byte ^ mask[i]) as Buffer
}
