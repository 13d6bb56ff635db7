// listen and listeners over UDP: accept connections on one address, or several as one listener.
import { invalidOption } from '../errors.ts'
import { makeListener } from '../listen.ts'
import type { FakeTcpListener } from '../listener.ts'
import type { Binding } from '../native/binding.ts'
import { requireBinding } from '../native/require.ts'
import { addressToListen, openAll, openOn } from '../opening.ts'
import type { Acceptor } from '../transport.ts'
import { UdpAcceptor } from './acceptor.ts'
import { type ParsedUdpListen, parseUdpListen, type UdpListenOptions } from './options.ts'

/**
 * Listens on one address over UDP. Needs no capability.
 *
 * @param target `'host:port'`, a port, or options with `host` and `port`. Without a host: every address of both families
 * @throws (rejects) `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` for ports of the system, AbortError, `ERR_FAKETCP_INVALID_ADDRESS`, `ERR_FAKETCP_INVALID_OPTION`,
 * `ERR_FAKETCP_UNSUPPORTED`
 */
export function listen(target: string | number | UdpListenOptions, options?: UdpListenOptions): Promise<FakeTcpListener> {
  return listeners([target], options)
}

/**
 * Listens on several addresses at once: all of them, or none. When one fails to open, the others are closed and its error is thrown.
 *
 * @param targets as for `listen`; options that concern the whole listener (`maxConnections`, `backlog`, `signal`) are given in `options`
 * @throws (rejects) as `listen`
 */
export async function listeners(
  targets: ReadonlyArray<string | number | UdpListenOptions>,
  options?: UdpListenOptions,
): Promise<FakeTcpListener> {
  if (!Array.isArray(targets) || targets.length === 0) throw invalidOption('addresses', 'an array of at least one address', targets)
  const parsed = targets.map((target) => parseUdpListen(target, options))
  const binding = requireBinding()
  return makeListener(await openAll(parsed, (one) => openAcceptor(binding, one)), parsed[0])
}

async function openAcceptor(binding: Binding, parsed: ParsedUdpListen): Promise<Acceptor> {
  return openOn(await addressToListen(parsed), (address) => new UdpAcceptor(binding, parsed, address))
}
