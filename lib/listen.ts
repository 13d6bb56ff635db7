// listen: accepts connections on one address.
import { lookup } from 'node:dns/promises'
import { familyOf, unmapped } from './address.ts'
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
 * @throws (rejects) `EADDRINUSE`, `EADDRNOTAVAIL`, `EPERM` without CAP_NET_RAW, AbortError, `ERR_FAKETCP_INVALID_ADDRESS`,
 * `ERR_FAKETCP_INVALID_OPTION`, `ERR_FAKETCP_UNSUPPORTED`
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
  if (host === '') return openAnyAddress(binding, parsed)
  const address = familyOf(host) !== 0 ? host : await resolve(host, signal)
  return new EngineAcceptor(binding, parsed.table, { ...parsed, address: unmapped(address) })
}

/** A look-up cannot be cancelled, but nobody has to wait for it. */
function resolve(host: string, signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortError(signal as AbortSignal))
    signal?.addEventListener('abort', onAbort, { once: true })
    lookup(host)
      .then(({ address }) => resolve(address), reject)
      .finally(() => signal?.removeEventListener('abort', onAbort))
  })
}

/** As `node:net` does: both families, or IPv4 alone where the host has no IPv6. */
function openAnyAddress(binding: Binding, parsed: ParsedListen): Acceptor {
  try {
    return new EngineAcceptor(binding, parsed.table, { ...parsed, address: '::' })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error
    return new EngineAcceptor(binding, parsed.table, { ...parsed, address: '0.0.0.0' })
  }
}
