// listen: accepts connections on one address.
import { lookup } from 'node:dns/promises'
import { familyOf } from './address.ts'
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
  return makeListener([acceptor], parsed)
}

/** @internal Shared with listeners. */
export function makeListener(acceptors: readonly Acceptor[], parsed: ParsedListen): FakeTcpListener {
  const listener = new FakeTcpListener(acceptors, parsed.listener)
  if (channels.listening.hasSubscribers) channels.listening.publish({ listener })
  return listener
}

/** @internal Shared with listeners. */
export async function openAcceptor(binding: Binding, parsed: ParsedListen): Promise<Acceptor> {
  const { signal, host } = parsed
  if (signal?.aborted) throw abortError(signal)
  if (host === '') return openAnyAddress(binding, parsed)
  const address = familyOf(host) !== 0 ? host : (await lookup(host)).address
  if (signal?.aborted) throw abortError(signal)
  return new EngineAcceptor(binding, parsed.table, parsed.capture, { ...parsed, address })
}

/** As `node:net` does: both families, or IPv4 alone where the host has no IPv6. */
function openAnyAddress(binding: Binding, parsed: ParsedListen): Acceptor {
  try {
    return new EngineAcceptor(binding, parsed.table, parsed.capture, { ...parsed, address: '::' })
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error
    return new EngineAcceptor(binding, parsed.table, parsed.capture, { ...parsed, address: '0.0.0.0' })
  }
}
