// The native codec of the tunnel's messages, or the one error that says why it cannot be had here.
import { randomBytes } from 'node:crypto'
import { FakeTcpError } from '../errors.ts'
import type { NativeTunnelCodec, TunnelCodecOptions, TunnelKeys } from '../native/binding.ts'
import { requireBinding } from '../native/require.ts'
import type { CipherWish } from './handshake.ts'
import { type Cipher, IV_BYTES, KEY_BYTES, MASK_BYTES } from './keys.ts'

/** @throws FakeTcpError `ERR_FAKETCP_UNSUPPORTED`: no addon for this platform, or this Node's OpenSSL does not have the cipher (FIPS, other libraries) */
export function openCodec(options: TunnelCodecOptions): NativeTunnelCodec {
  const { TunnelCodec } = requireBinding()
  try {
    return new TunnelCodec(options)
  } catch (cause) {
    if (!(cause instanceof Error && 'code' in cause && cause.code === 'ENOTSUP')) throw cause
    throw new FakeTcpError('ERR_FAKETCP_UNSUPPORTED', `${options.seal?.cipher}: ${cause.message}`, { cause })
  }
}

/**
 * What is left of a wish where not every cipher can be had. Asked before anybody is let in, for there is nobody to tell once a flow opens.
 *
 * @throws FakeTcpError `ERR_FAKETCP_UNSUPPORTED`: none is left
 */
export function usable({ allowed, preferred }: CipherWish): CipherWish {
  let failure: unknown
  const left = allowed.filter((cipher) => {
    try {
      openCodec({ seal: anyKeys(cipher), open: anyKeys(cipher) }).close()
      return true
    } catch (error) {
      failure = error
      return false
    }
  })
  if (left.length === 0) throw failure
  return { allowed: left, preferred: left.includes(preferred) ? preferred : left[0] }
}

function anyKeys(cipher: Cipher): TunnelKeys {
  return { cipher, key: randomBytes(KEY_BYTES), iv: randomBytes(IV_BYTES), mask: randomBytes(MASK_BYTES) }
}
