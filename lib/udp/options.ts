// The options of dial, listen and listeners over UDP: their types, defaults and checks. Parsed here, once.
import { isIP } from 'node:net'
import { checkPort, type HostPort } from '../address.ts'
import type { ConnOptions } from '../conn.ts'
import { invalidOption } from '../errors.ts'
import type { ListenerOptions } from '../listener.ts'
import { codePoint, count, flag, oneOf, parseConn, positive, text, withAddress } from '../options.ts'
import type { ChannelOptions } from './channel.ts'

/** Options of every connection over UDP, dialled or accepted. */
export interface UdpStreamOptions extends Partial<ConnOptions> {
  /**
   * Whether both ends meet, ask for signs of life and part by datagrams of their own, which the application never sees; messages carry nothing extra either way. Both ends
   * must agree on it. false is plain UDP, with any program at the other end: a dial is done at once, a listener makes a connection of whatever sends it anything,
   * also under a false address, and nobody hears of a close. Default true.
   */
  readonly handshake?: boolean
  /**
   * Ends a connection on which nothing was heard for so long: with `ERR_FAKETCP_IDLE`, or without a handshake as if the peer had ended. 0: never. Default 0;
   * 180 000 for what a listener accepts without a handshake.
   */
  readonly idleTimeoutMs?: number
  /** With a handshake: after so long without a sign of the peer it is asked for one; if it answers none of three questions, the connection ends with `ETIMEDOUT` after twice this time. Default 15 000, which keeps NAT entries alive; 0: never. */
  readonly keepAliveMs?: number
  /** Differentiated services code point (RFC 2474) of every packet, 0 to 63. Default 0. */
  readonly dscp?: number
  /** What the kernel keeps of each socket's datagrams while this thread is busy, default 4 MiB. Without CAP_NET_ADMIN the kernel gives at most `net.core.rmem_max`; if less than what was asked for here, the process emits a warning, code `FAKETCP_RECEIVE_BUFFER`. */
  readonly receiveBufferBytes?: number
  /** Cancels what is being opened; rejects with an AbortError. */
  readonly signal?: AbortSignal
}

export interface UdpDialOptions extends UdpStreamOptions {
  /** Name or address. Default 'localhost'. */
  readonly host?: string
  readonly port?: number
  /** Only addresses of this family, for a name. Default 0: both, in the resolver's order. */
  readonly family?: 0 | 4 | 6
  /** Address to dial from. Default: as the host's routes say. */
  readonly localAddress?: string
  /** Port to dial from. Default 0: the kernel chooses. */
  readonly localPort?: number
  /** Until the handshake is complete, names included. Default 10 000. Then `ETIMEDOUT`. */
  readonly connectTimeoutMs?: number
}

export interface UdpListenOptions extends UdpStreamOptions, Partial<ListenerOptions> {
  /** Name or address. Default '::' (every address, IPv4 too), or '0.0.0.0' on a host without IPv6. */
  readonly host?: string
  /** 0: the kernel chooses. */
  readonly port?: number
  /** With '::' only: no IPv4. Default false. */
  readonly ipv6Only?: boolean
  /** Connections open at once; further ones are refused. Default Infinity; 1024 without a handshake, where false addresses count, too. */
  readonly maxConnections?: number
}

/** @internal */
export interface ParsedUdpStream extends HostPort {
  readonly conn: ConnOptions
  readonly handshake: boolean
  readonly channel: ChannelOptions
  readonly dscp: number
  readonly receiveBufferBytes: number
  readonly receiveBufferAsked: boolean
  readonly signal: AbortSignal | undefined
}

/** @internal */
export interface ParsedUdpDial extends ParsedUdpStream {
  readonly family: 0 | 4 | 6
  readonly localAddress: string | undefined
  readonly localPort: number
  readonly connectTimeoutMs: number
}

/** @internal */
export interface ParsedUdpListen extends ParsedUdpStream {
  readonly ipv6Only: boolean
  readonly listener: ListenerOptions
}

const RECEIVE_BUFFER_BYTES = 4 << 20
const MOST_BUFFER_BYTES = 1 << 30
const PLAIN_IDLE_MS = 180_000
const PLAIN_CONNECTIONS = 1024

/** @internal */
export function parseUdpDial(target: string | UdpDialOptions, more: UdpDialOptions = {}): ParsedUdpDial {
  const options: UdpDialOptions = withAddress(target, more)
  const { host = 'localhost', port, family = 0, localAddress, localPort = 0, connectTimeoutMs = 10_000 } = options
  if (checkPort(port) === 0) throw invalidOption('port', 'an integer from 1 to 65535', port)
  if (localAddress !== undefined && isIP(localAddress) === 0) throw invalidOption('localAddress', 'an IP address', localAddress)
  return {
    ...parseStream(options, 0),
    host: text('host', host) || 'localhost',
    port: port as number,
    family: oneOf('family', family, [0, 4, 6]),
    localAddress,
    localPort: checkPort(localPort),
    connectTimeoutMs: positive('connectTimeoutMs', connectTimeoutMs),
  }
}

/** @internal */
export function parseUdpListen(target: string | number | UdpListenOptions, more: UdpListenOptions = {}): ParsedUdpListen {
  const options: UdpListenOptions = withAddress(target, more)
  const stream = parseStream(options, PLAIN_IDLE_MS)
  const { host = '', port, ipv6Only = false, backlog = 128 } = options
  const { maxConnections = stream.handshake ? Number.POSITIVE_INFINITY : PLAIN_CONNECTIONS } = options
  return {
    ...stream,
    host: text('host', host),
    port: checkPort(port),
    ipv6Only: flag('ipv6Only', ipv6Only),
    listener: {
      ...stream.conn,
      maxConnections: maxConnections === Number.POSITIVE_INFINITY ? maxConnections : count('maxConnections', maxConnections),
      backlog: count('backlog', backlog),
    },
  }
}

function parseStream(options: UdpStreamOptions, plainIdleMs: number): Omit<ParsedUdpStream, 'host' | 'port'> {
  const { handshake = true, keepAliveMs = 15_000, dscp = 0, signal, receiveBufferBytes = RECEIVE_BUFFER_BYTES } = options
  const { idleTimeoutMs = flag('handshake', handshake) ? 0 : plainIdleMs } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalidOption('signal', 'an AbortSignal', signal)
  if (positive('receiveBufferBytes', receiveBufferBytes) > MOST_BUFFER_BYTES) {
    throw invalidOption('receiveBufferBytes', `an integer from 1 to ${MOST_BUFFER_BYTES}`, receiveBufferBytes)
  }
  const conn = parseConn(options)
  return {
    conn,
    handshake,
    channel: {
      idleTimeoutMs: count('idleTimeoutMs', idleTimeoutMs),
      keepAliveMs: count('keepAliveMs', keepAliveMs),
      endsBoth: !conn.allowHalfOpen,
    },
    dscp: codePoint(dscp),
    receiveBufferBytes,
    receiveBufferAsked: options.receiveBufferBytes !== undefined,
    signal,
  }
}
