// The options of dial, listen and listeners: their types, defaults and checks. Parsed here, once; everything below takes them as given.
import { isIP } from 'node:net'
import { checkPort, type HostPort, parseHostPort } from './address.ts'
import type { Firewall } from './carrier/ttl-guard.ts'
import type { ConnOptions } from './conn.ts'
import type { FlowOptions, FramingMode } from './engine/flow-options.ts'
import { invalidOption } from './errors.ts'
import { FlowTable, type FlowTableOptions } from './flow/table.ts'
import type { CaptureMode } from './link/capture.ts'
import type { LinkMode } from './link/sender.ts'
import type { ListenerOptions } from './listener.ts'
import type { Dialect } from './wire/dialect.ts'
import type { Shard } from './wire/shards.ts'

export type { Firewall, FramingMode, Shard }

/** Options of every connection, dialled or accepted. */
export interface StreamOptions extends Partial<ConnOptions> {
  /** How packets are captured. Default 'auto': by AF_PACKET, which can split what the kernel's GRO has merged; 'raw' only where that cannot be had. */
  readonly capture?: CaptureMode | 'auto'
  /**
   * How packets are sent. 'packet': by AF_PACKET, runs of equal messages in one piece, past this host's OUTPUT and POSTROUTING rules and IPsec policies; 'raw': by IP raw
   * sockets. Default 'auto': by AF_PACKET where that can be had and the next hop is known, each connection for itself (see `stats.link`), else by
   * raw socket. With 'packet', opening fails where AF_PACKET cannot be had.
   */
  readonly link?: LinkMode | 'auto'
  /**
   * What keeps the kernel's own TCP socket mute once the handshake is complete. 'filter': a socket filter. 'ttl': that, and a rule of this host's firewall that
   * drops what such sockets send all the same; it needs CAP_NET_ADMIN and a firewall tool, and a peer is not told at once when this process is killed. See `stats.guard`. Default 'filter'.
   */
  readonly guard?: 'filter' | 'ttl'
  /** With `guard: 'ttl'`: which tool makes the rule, `nft` or `iptables` and `ip6tables`. Default 'auto': nftables where that works, else iptables. */
  readonly firewall?: Firewall | 'auto'
  /** Ends a connection on which nothing was heard for so long, with `ERR_FAKETCP_IDLE`. Default 0: never. */
  readonly idleTimeoutMs?: number
  /**
   * After so long without a sign of the peer it is asked for one, by an empty segment as the kernel's own keepalive sends it, so that NAT entries
   * in between outlive the silence. A peer of this library that answers none of three questions is gone: the connection ends with `ETIMEDOUT` after
   * twice this time. Other peers are asked too, but may never answer. Default 45 000; 0: never.
   */
  readonly keepAliveMs?: number
  /**
   * Whether segments of a peer of this library must show that it sees ours: acknowledge what was sent lately and echo a timestamp of the last
   * seconds, else they are dropped (`stats.rejected.ack`, `.timestamp`) and answered by a challenge ACK (RFC 5961). It keeps strangers who guess numbers from
   * getting a byte in. Default true; false where something in between removes or rewrites TCP timestamps. Other peers are never judged so.
   */
  readonly strict?: boolean
  /**
   * 'counted': each message carries a number, so that `stats.framing` knows what was lost, doubled and reordered either way, and the round-trip time; messages that come twice
   * are delivered once, empty ones can be sent, and `close` can tell the peer why. It costs 5 bytes of each message. Both ends must ask for it: a dial waits for the
   * listener's answer before it resolves, a listener for the client's hello before `'connection'`, and where they differ the dial, or the connection, ends with
   * `ERR_FAKETCP_FRAMING` and the listener emits `'drop'`. Default 'none'.
   */
  readonly framing?: FramingMode
  /**
   * With framing 'counted': messages are delivered in order. One that has overtaken others waits for them so long, and while no more than 1 MiB waits; what comes after
   * that is dropped (`stats.framing.ignored.overtaken`). So every lost message delays those behind it. Default 0: messages are delivered as they come.
   */
  readonly reorderWindowMs?: number
  /**
   * A secret of both ends, 16 to 64 bytes, that keys their hellos, and so keeps strangers out: a connection exists only between ends that have shown each other that they have it.
   * A dial waits for the listener's answer, and ends with `ERR_FAKETCP_HELLO` if none comes. To everybody else a listener is a TCP server that reads and says nothing, and closes
   * after 40 s; so it is to recordings of hellos that it has answered, of which it remembers at least the newest 65 536. Its application gets no `'connection'` but a
   * `'drop'`, with the reason 'hello' or 'replay'. The key neither encrypts nor authenticates messages: who is on the way can read them, and send others. Default: none, everybody is let in.
   */
  readonly helloKey?: Uint8Array
  /** Differentiated services code point (RFC 2474) of every packet, the handshake's too, 0 to 63. Default 0. */
  readonly dscp?: number
  /** Where the flows are kept; see `createFlowTable`. Default: one of this thread's own. */
  readonly table?: FlowTable
  /** Cancels what is being opened; rejects with an AbortError. */
  readonly signal?: AbortSignal
}

export interface DialOptions extends StreamOptions {
  /** Name or address. Default 'localhost'. */
  readonly host?: string
  readonly port?: number
  /** Only addresses of this family, for a name. Default 0: both, in the resolver's order. */
  readonly family?: 0 | 4 | 6
  /** Address to dial from. Default: as the host's routes say. */
  readonly localAddress?: string
  /** Port to dial from. Default 0: the kernel chooses. */
  readonly localPort?: number
  /**
   * Until the handshake is complete, names included. Default 10 000. Then `ETIMEDOUT`. With framing 'counted' or a `helloKey` until the listener has agreed, too, which a
   * kernel that completes handshakes for somebody else never does: then `ERR_FAKETCP_FRAMING`, or `ERR_FAKETCP_HELLO`.
   */
  readonly connectTimeoutMs?: number
  /**
   * 'native': the peer is this library (or answers nothing to a hello). 'tcpraw': it is a fake TCP without a hello, such as kcptun --tcp. Default 'native'.
   *
   * 'tcp': the peer is an ordinary TCP server, and what is exchanged is a byte stream: `'data'` gives chunks of it, in order and complete, of any
   * length, and what is written may arrive in other pieces. Nothing is ever sent again, so one lost segment of ours ends the
   * connection: with `ERR_FAKETCP_STALLED`, when for 5 s nothing that was sent has been acknowledged.
   */
  readonly dialect?: 'native' | 'tcpraw' | 'tcp'
}

export interface ListenOptions extends StreamOptions, Partial<ListenerOptions> {
  /** Name or address. Default '::' (every address, IPv4 too), or '0.0.0.0' on a host without IPv6. */
  readonly host?: string
  /** 0: the kernel chooses. */
  readonly port?: number
  /** With '::' only: no IPv4. Default false. */
  readonly ipv6Only?: boolean
  /**
   * This listener is number `index` of `count` (1 to 64) that divide the port, in threads or processes of one user: each remote address and port
   * belongs to one of them. All of them give the same `count`, and no port 0. `EADDRINUSE` while another has the same `index`. Default: the port is this listener's alone.
   */
  readonly shard?: Shard
}

/** @internal */
export interface ParsedStream {
  readonly conn: ConnOptions
  readonly capture: CaptureMode | 'auto'
  readonly link: LinkMode | 'auto'
  /** undefined: the filter alone. */
  readonly ttlGuard: Firewall | 'auto' | undefined
  readonly flow: FlowOptions
  readonly table: FlowTable
  readonly signal: AbortSignal | undefined
}

/** @internal */
export interface ParsedDial extends ParsedStream, HostPort {
  readonly family: 0 | 4 | 6
  readonly localAddress: string | undefined
  readonly localPort: number
  readonly connectTimeoutMs: number
  readonly dialect: Dialect
}

/** @internal */
export interface ParsedListen extends ParsedStream, HostPort {
  readonly ipv6Only: boolean
  readonly shard: Shard | undefined
  readonly listener: ListenerOptions
}

/** Every packet of the port costs each shard's capture one run of its filter, so a great many would be slower than a few. */
const MAX_SHARDS = 64

/** HMAC-SHA-256 hashes longer ones (RFC 2104), and shorter ones can be guessed. */
const [MIN_KEY, MAX_KEY] = [16, 64]
const KEY_SHAPE = `a Uint8Array of ${MIN_KEY} to ${MAX_KEY} bytes`

let ownTable: FlowTable | undefined

/** The table of this thread, for flows that were given none. */
function threadTable(): FlowTable {
  ownTable ??= FlowTable.create()
  return ownTable
}

/**
 * Makes a flow table to be shared: hand its `handle` to worker threads, open it there with `FlowTable.attach(handle)`, and pass it as `table`. Its
 * capacity then counts for all threads together, and `entries()` lists the flows of all.
 *
 * @throws RangeError when `capacity` or `shards` is out of range
 */
export function createFlowTable(options?: FlowTableOptions): FlowTable {
  return FlowTable.create(options)
}

/** @internal */
export function parseDial(target: string | DialOptions, more: DialOptions = {}): ParsedDial {
  const options: DialOptions = withAddress(target, more)
  const { host = 'localhost', port, family = 0, localAddress, localPort = 0, connectTimeoutMs = 10_000, dialect = 'native' } = options
  if (checkPort(port) === 0) throw invalidOption('port', 'an integer from 1 to 65535', port)
  if (dialect !== 'native' && options.framing === 'counted') {
    throw invalidOption('framing', `'none' with dialect '${dialect}', which has no hello`, 'counted')
  }
  if (dialect !== 'native' && options.helloKey !== undefined) {
    throw invalidOption('helloKey', `left out with dialect '${dialect}', which has no hello`, 'one')
  }
  if (localAddress !== undefined && isIP(localAddress) === 0) throw invalidOption('localAddress', 'an IP address', localAddress)
  return {
    // Of a byte stream there is no message that would not fit.
    ...parseStream(options, dialect === 'tcp' ? 'split' : 'error'),
    host: text('host', host) || 'localhost',
    port: port as number,
    family: oneOf('family', family, [0, 4, 6]),
    localAddress,
    localPort: checkPort(localPort),
    connectTimeoutMs: positive('connectTimeoutMs', connectTimeoutMs),
    dialect: oneOf('dialect', dialect, ['native', 'tcpraw', 'tcp']),
  }
}

/** @internal */
export function parseListen(target: string | number | ListenOptions, more: ListenOptions = {}): ParsedListen {
  const options: ListenOptions = withAddress(target, more)
  const { host = '', port, ipv6Only = false, maxConnections = Number.POSITIVE_INFINITY, backlog = 128 } = options
  const stream = parseStream(options)
  const shard = parseShard(options.shard)
  if (shard !== undefined && port === 0) throw invalidOption('port', 'from 1 to 65535 with a shard: shards have to agree on it', port)
  return {
    ...stream,
    host: text('host', host),
    port: checkPort(port),
    ipv6Only: flag('ipv6Only', ipv6Only),
    shard,
    listener: {
      ...stream.conn,
      maxConnections: maxConnections === Number.POSITIVE_INFINITY ? maxConnections : count('maxConnections', maxConnections),
      backlog: count('backlog', backlog),
    },
  }
}

function parseShard(shard: unknown): Shard | undefined {
  if (shard === undefined) return undefined
  if (typeof shard !== 'object' || shard === null || !('index' in shard) || !('count' in shard)) {
    throw invalidOption('shard', '{ index, count }', shard)
  }
  const { index, count } = shard
  if (!isInteger(count, 1, MAX_SHARDS)) throw invalidOption('shard.count', `an integer from 1 to ${MAX_SHARDS}`, count)
  if (!isInteger(index, 0, count - 1)) throw invalidOption('shard.index', `an integer from 0 to ${count - 1} (shard.count - 1)`, index)
  return { index, count }
}

function isInteger(value: unknown, min: number, max: number): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
}

/** @internal */
export function withAddress<T extends { host?: string; port?: number }>(target: string | number | T, more: T): T {
  if (typeof target === 'string' || typeof target === 'number') {
    const { host, port } = parseHostPort(target)
    return { ...more, port, ...(host === '' ? {} : { host }) }
  }
  if (typeof target !== 'object' || target === null) throw invalidOption('address', 'an address or an options object', target)
  return { ...target, ...more }
}

function parseStream(options: StreamOptions, oversize: ConnOptions['oversize'] = 'error'): ParsedStream {
  const { capture = 'auto', link = 'auto', idleTimeoutMs = 0, keepAliveMs = 45_000, strict = true, dscp = 0, signal, table } = options
  const { framing = 'none', reorderWindowMs = 0 } = options
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalidOption('signal', 'an AbortSignal', signal)
  if (table !== undefined && !(table instanceof FlowTable))
    throw invalidOption('table', 'a FlowTable (createFlowTable, FlowTable.attach)', table)
  // The local connection tracking would see one direction only, and an INPUT rule would drop the other before the raw socket.
  if (capture === 'raw' && link === 'packet') throw invalidOption('link', "'auto' or 'raw' where packets are captured by raw socket", link)
  if (framing === 'none' && reorderWindowMs !== 0) throw invalidOption('reorderWindowMs', "0 unless framing is 'counted'", reorderWindowMs)
  return {
    capture: oneOf('capture', capture, ['auto', 'packet', 'raw']),
    link: oneOf('link', link, ['auto', 'packet', 'raw']),
    ttlGuard: parseGuard(options),
    flow: {
      idleTimeoutMs: count('idleTimeoutMs', idleTimeoutMs),
      keepAliveMs: count('keepAliveMs', keepAliveMs),
      strict: flag('strict', strict),
      framing: oneOf('framing', framing, ['none', 'counted']),
      helloKey: parseKey(options.helloKey),
      reorderWindowMs: count('reorderWindowMs', reorderWindowMs),
      dscp: codePoint(dscp),
    },
    signal,
    table: table ?? threadTable(),
    conn: parseConn(options, oversize),
  }
}

/** A copy, so that the caller may wipe his. No error shows what came. */
function parseKey(key: unknown): Uint8Array | undefined {
  if (key === undefined) return undefined
  if (!(key instanceof Uint8Array)) throw invalidOption('helloKey', KEY_SHAPE, typeof key)
  if (key.length < MIN_KEY || key.length > MAX_KEY) throw invalidOption('helloKey', KEY_SHAPE, `${key.length} bytes`)
  return Uint8Array.from(key)
}

/** @internal */
export function parseConn(options: Partial<ConnOptions>, oversize: ConnOptions['oversize'] = 'error'): ConnOptions {
  return {
    writableHighWaterMark: positive('writableHighWaterMark', options.writableHighWaterMark ?? 256 << 10),
    readableHighWaterMark: positive('readableHighWaterMark', options.readableHighWaterMark ?? 64),
    receiveQueueBytes: positive('receiveQueueBytes', options.receiveQueueBytes ?? 1 << 20),
    oversize: oneOf('oversize', options.oversize ?? oversize, ['error', 'split']),
    allowHalfOpen: flag('allowHalfOpen', options.allowHalfOpen ?? false),
  }
}

function parseGuard({ guard = 'filter', firewall }: StreamOptions): Firewall | 'auto' | undefined {
  const wanted = oneOf('firewall', firewall ?? 'auto', ['auto', 'nftables', 'iptables'])
  if (oneOf('guard', guard, ['filter', 'ttl']) === 'ttl') return wanted
  if (firewall !== undefined) throw invalidOption('guard', "'ttl' where a firewall is named", guard)
  return undefined
}

/** @internal */
export function text(name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalidOption(name, 'a string', value)
  return value
}

/** @internal */
export function flag(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw invalidOption(name, 'true or false', value)
  return value
}

/** @internal */
export function count(name: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw invalidOption(name, 'an integer of at least 0', value)
  return value
}

/** @internal */
export function positive(name: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 1) throw invalidOption(name, 'an integer of at least 1', value)
  return value
}

/** @internal */
export function codePoint(dscp: unknown): number {
  if (!isInteger(dscp, 0, 63)) throw invalidOption('dscp', 'an integer from 0 to 63', dscp)
  return dscp
}

/** @internal */
export function oneOf<T extends string | number>(name: string, value: unknown, allowed: readonly T[]): T {
  if (!allowed.includes(value as T)) throw invalidOption(name, `one of ${allowed.map((one) => JSON.stringify(one)).join(', ')}`, value)
  return value as T
}
