// listen: accepts connections on one address.
import { lookup } from 'node:dns/promises'
import { familyOf, unmapped } from './address.ts'
import { openTtlGuard, type TtlGuard } from './carrier/ttl-guard.ts'
import type { ConnOptions } from './conn.ts'
import { channels } from './diagnostics.ts'
import { EngineAcceptor } from './engine/acceptor.ts'
import { abortError } from './errors.ts'
import { FakeTcpListener } from './listener.ts'
import type { Binding } from './native/binding.ts'
import { requireBinding } from './native/require.ts'
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
export function makeListener(acceptors: ReadonlyArray<{ acceptor: Acceptor; conn: ConnOptions }>, parsed: ParsedListen): FakeTcpListener {
  const listener = new FakeTcpListener(acceptors, parsed.listener)
  if (channels.listening.hasSubscribers) channels.listening.publish({ listener })
  return listener
}

/** @internal Shared with listeners. */
export async function openAcceptor(binding: Binding, parsed: ParsedListen): Promise<Acceptor> {
  const { signal, host } = parsed
  if (signal?.aborted) throw abortError(signal)
  const address = host === '' || familyOf(host) !== 0 ? host : (await unlessAborted(lookup(host), signal)).address
  const opening = parsed.ttlGuard && openTtlGuard(parsed.ttlGuard)
  try {
    const guard = opening && (await unlessAborted(opening, signal))
    const target = { ...parsed, guard }
    if (address === '') return openAnyAddress(binding, target)
    return new EngineAcceptor(binding, parsed.table, { ...target, address: unmapped(address) })
  } finally {
    // The acceptor holds it by now; and where nobody waited for it, it comes for nobody.
    opening?.then((guard) => guard.release()).catch(() => {})
  }
}

/** A look-up cannot be cancelled, nor can a firewall tool, but nobody has to wait for them. */
function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortError(signal as AbortSignal))
    signal?.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal?.removeEventListener('abort', onAbort))
  })
}

/** As `node:net` does: both families, or IPv4 alone where the host has no IPv6. */
function openAnyAddress(binding: Binding, target: ParsedListen & { guard: TtlGuard | undefined }): Acceptor {
  try {
    return new EngineAcceptor(binding, target.table, { ...target, address: '::' })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error
    return new EngineAcceptor(binding, target.table, { ...target, address: '0.0.0.0' })
  }
}
