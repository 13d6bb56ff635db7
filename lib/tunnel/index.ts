// faketcp/tunnel: carries any UDP protocol over fake TCP. Two ends, a server in front of a UDP service and a client in front of its users.
import { abortError } from '../errors.ts'
import { requireBinding } from '../native/require.ts'
import { ClientEnd } from './client.ts'
import { usable } from './codec.ts'
import { deriveSecrets } from './keys.ts'
import { type ParsedTunnel, parseTunnel, parseTunnelClient, type TunnelClientOptions, type TunnelOptions } from './options.ts'
import { ServerEnd } from './server.ts'
import { Tunnel } from './tunnel.ts'

export type { ListenAddress } from '../transport.ts'
export type { Cipher } from './keys.ts'
export type { CarriedOptions, TunnelClientOptions, TunnelOptions } from './options.ts'
export type { FlowChange } from './shared.ts'
export type { Traffic, TunnelDropReason, TunnelDrops, TunnelFlowStats, TunnelStats } from './stats.ts'
export type { Tunnel, TunnelEvents } from './tunnel.ts'
export type { TunnelWarning, WarningCode } from './warnings.ts'

/**
 * Opens the server's end: flows are accepted at `listen`, and the datagrams of each of their conversations go to `to`, from a port of its own.
 *
 * @throws (rejects) as `listen` does; `ERR_FAKETCP_INVALID_OPTION`, `ERR_FAKETCP_INVALID_ADDRESS`, `ERR_FAKETCP_UNSUPPORTED`, name resolution's own
 * errors for `to`, AbortError
 */
export async function tunnelServer(options: TunnelOptions): Promise<Tunnel> {
  const parsed = withUsableCiphers(parseTunnel(options))
  const binding = requireBinding()
  const secrets = await deriveSecrets(parsed.key)
  if (parsed.signal?.aborted) throw abortError(parsed.signal)
  return Tunnel.open(parsed.signal, secrets.keyed, (shared) => ServerEnd.open(binding, parsed, secrets, shared))
}

/**
 * Opens the client's end: datagrams that arrive at `listen` go through the tunnel, and the answers go back to whoever sent them. Resolves when the UDP socket
 * is bound. Flows are dialled behind the scenes, again and again while the server cannot be reached, which is no error but a `'warning'`.
 *
 * @throws (rejects) `EADDRINUSE`, `EADDRNOTAVAIL`, `EPERM` without CAP_NET_RAW, `ERR_FAKETCP_INVALID_OPTION`, `ERR_FAKETCP_INVALID_ADDRESS`,
 * `ERR_FAKETCP_UNSUPPORTED`, AbortError
 */
export async function tunnelClient(options: TunnelClientOptions): Promise<Tunnel> {
  const parsed = withUsableCiphers(parseTunnelClient(options))
  const binding = requireBinding()
  const secrets = await deriveSecrets(parsed.key)
  if (parsed.signal?.aborted) throw abortError(parsed.signal)
  return Tunnel.open(parsed.signal, secrets.keyed, (shared) => ClientEnd.open(binding, parsed, secrets, shared))
}

function withUsableCiphers<T extends ParsedTunnel>(parsed: T): T {
  return parsed.key === undefined ? parsed : { ...parsed, wish: usable(parsed.wish) }
}
