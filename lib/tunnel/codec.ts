// The native codec of the tunnel's messages, or the one error that says why it cannot be had here.
import { FakeTcpError } from '../errors.ts'
import type { NativeTunnelCodec, TunnelCodecOptions } from '../native/binding.ts'
import { requireBinding } from '../native/require.ts'

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
