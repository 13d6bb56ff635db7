// dial: opens one connection. Resolves the name, makes the handshake, gives back the stream.
import { openTtlGuard, type TtlGuard } from './carrier/ttl-guard.ts'
import type { FakeTcpConn } from './conn.ts'
import { type DialLinks, type Dialler, diallerFor } from './engine/dialler.ts'
import { abortError, FakeTcpError } from './errors.ts'
import { requireBinding } from './native/require.ts'
import { openChannel, openFirst, resolveHost, TimeLimit } from './opening.ts'
import { type DialOptions, type ParsedDial, parseDial } from './options.ts'

/**
 * Opens a connection.
 *
 * @param target `'host:port'`, `'[v6]:port'`, or options with `host` and `port`
 * @returns once the handshake is complete, with framing 'counted' or a `helloKey` once the listener has agreed
 * @throws (rejects) `ECONNREFUSED`, `ETIMEDOUT`, `EPERM` without CAP_NET_RAW (`guard: 'ttl'`: or CAP_NET_ADMIN), `EADDRINUSE`, name resolution's own errors, AbortError,
 * `ERR_FAKETCP_INVALID_ADDRESS`, `ERR_FAKETCP_INVALID_OPTION`, `ERR_FAKETCP_GUARD`, `ERR_FAKETCP_TABLE_FULL`, `ERR_FAKETCP_HANDSHAKE_UNSEEN`,
 * `ERR_FAKETCP_FRAMING`, `ERR_FAKETCP_HELLO`, `ERR_FAKETCP_UNSUPPORTED`
 */
export async function dial(target: string | DialOptions, options?: DialOptions): Promise<FakeTcpConn> {
  const parsed = parseDial(target, options)
  const binding = requireBinding()
  const { signal } = parsed
  if (signal?.aborted) throw abortError(signal)
  const limit = new TimeLimit(parsed)
  let opening: Promise<TtlGuard> | undefined
  try {
    const addresses = await limit.race(resolveHost(parsed))
    opening = parsed.ttlGuard && openTtlGuard(parsed.ttlGuard)
    const target = { ...parsed, guard: opening && (await limit.race(opening)) }
    return await openFirst(addresses, parsed, limit, (address, shareMs) =>
      dialAddress(target, address, shareMs, limit, (links) => diallerFor(binding, parsed.table, links)),
    )
  } finally {
    limit.clear()
    // The flow holds it by now; and where nobody waited for it, it comes for nobody.
    opening?.then((guard) => guard.release()).catch(() => {})
  }
}

type GuardedDial = ParsedDial & { readonly guard: TtlGuard | undefined }

async function dialAddress(
  parsed: GuardedDial,
  address: string,
  shareMs: number,
  limit: TimeLimit,
  diallerOf: (links: DialLinks) => Dialler,
): Promise<FakeTcpConn> {
  const dialler = diallerOf(parsed)
  try {
    return await connect(parsed, address, shareMs, limit, dialler)
  } catch (error) {
    // Where this host rewrites the packets of its own connections, a raw socket still sees them as the carrier does.
    const unseen = error instanceof FakeTcpError && error.code === 'ERR_FAKETCP_HANDSHAKE_UNSEEN'
    if (!unseen || !dialler.mayFallBack || parsed.link === 'packet' || limit.error !== undefined) throw error
    return await connect(parsed, address, shareMs, limit, diallerOf({ capture: 'raw', link: 'raw' }))
  }
}

function connect(parsed: GuardedDial, address: string, shareMs: number, limit: TimeLimit, dialler: Dialler): Promise<FakeTcpConn> {
  return openChannel(parsed, address, shareMs, limit, (settle) => dialler.dial({ ...parsed, address }, settle))
}
