// listen: accepts connections on one address.
import { openTtlGuard } from './carrier/ttl-guard.ts'
import type { ConnOptions } from './conn.ts'
import { channels } from './diagnostics.ts'
import { EngineAcceptor } from './engine/acceptor.ts'
import { FakeTcpListener } from './listener.ts'
import type { Binding } from './native/binding.ts'
import { requireBinding } from './native/require.ts'
import { addressToListen, openOn, unlessAborted } from './opening.ts'
import { type ListenOptions, type ParsedListen, parseListen } from './options.ts'
import type { Acceptor } from './transport.ts'

/**
 * Listens on one address.
 *
 * @param target `'host:port'`, a port, or options with `host` and `port`. Without a host: every address of both families
 * @throws (rejects) `EADDRINUSE`, `EADDRNOTAVAIL`, `EPERM` without CAP_NET_RAW (`guard: 'ttl'`: or CAP_NET_ADMIN), AbortError, `ERR_FAKETCP_INVALID_ADDRESS`,
 * `ERR_FAKETCP_INVALID_OPTION`, `ERR_FAKETCP_GUARD`, `ERR_FAKETCP_UNSUPPORTED`
 */
export async function listen(target: string | number | ListenOptions, options?: ListenOptions): Promise<FakeTcpListener> {
  const parsed = parseListen(target, options)
  const acceptor = await openAcceptor(requireBinding(), parsed)
  return makeListener([{ acceptor, conn: parsed.conn }], parsed)
}

/** @internal Shared with listeners. */
export function makeListener(
  acceptors: ReadonlyArray<{ acceptor: Acceptor; conn: ConnOptions }>,
  parsed: Pick<ParsedListen, 'listener'>,
): FakeTcpListener {
  const listener = new FakeTcpListener(acceptors, parsed.listener)
  if (channels.listening.hasSubscribers) channels.listening.publish({ listener })
  return listener
}

/** @internal Shared with listeners. */
export async function openAcceptor(binding: Binding, parsed: ParsedListen): Promise<Acceptor> {
  const { signal } = parsed
  const address = await addressToListen(parsed)
  const opening = parsed.ttlGuard && openTtlGuard(parsed.ttlGuard)
  try {
    const guard = opening && (await unlessAborted(opening, signal))
    const target = { ...parsed, guard }
    return openOn(address, (address) => new EngineAcceptor(binding, parsed.table, { ...target, address }))
  } finally {
    // The acceptor holds it by now; and where nobody waited for it, it comes for nobody.
    opening?.then((guard) => guard.release()).catch(() => {})
  }
}
