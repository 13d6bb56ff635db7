// dial over UDP: opens one connection.
import type { FakeTcpConn } from '../conn.ts'
import { abortError } from '../errors.ts'
import { requireBinding } from '../native/require.ts'
import { openChannel, openFirst, resolveHost, TimeLimit } from '../opening.ts'
import { connectUdp } from './connector.ts'
import { parseUdpDial, type UdpDialOptions } from './options.ts'

/**
 * Opens a connection over UDP. Needs no capability.
 *
 * @param target `'host:port'`, `'[v6]:port'`, or options with `host` and `port`
 * @returns once the listener has accepted; without a handshake at once
 * @throws (rejects) `ECONNREFUSED`, `ETIMEDOUT`, `EADDRINUSE`, name resolution's own errors, AbortError, `ERR_FAKETCP_INVALID_ADDRESS`, `ERR_FAKETCP_INVALID_OPTION`,
 * `ERR_FAKETCP_UNSUPPORTED`
 */
export async function dial(target: string | UdpDialOptions, options?: UdpDialOptions): Promise<FakeTcpConn> {
  const parsed = parseUdpDial(target, options)
  const binding = requireBinding()
  if (parsed.signal?.aborted) throw abortError(parsed.signal)
  const limit = new TimeLimit(parsed)
  try {
    const addresses = await limit.race(resolveHost(parsed))
    return await openFirst(addresses, parsed, limit, (address, shareMs) =>
      openChannel(parsed, address, shareMs, limit, (settle) => connectUdp(binding, parsed, address, settle)),
    )
  } finally {
    limit.clear()
  }
}
