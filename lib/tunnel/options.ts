// The options of the tunnel's two ends: types, defaults and checks. Parsed here, once.
import { readFileSync } from 'node:fs'
import { type HostPort, parseHostPort } from '../address.ts'
import { invalidOption } from '../errors.ts'
import { parseDial, type StreamOptions } from '../options.ts'
import type { CipherWish } from './handshake.ts'
import type { Cipher } from './keys.ts'

/** Options of fake TCP that the tunnel passes on as they are. */
export type CarriedOptions = Pick<StreamOptions, 'link' | 'capture' | 'guard' | 'firewall' | 'keepAliveMs' | 'dscp' | 'strict'>

/** Options of both ends. */
export interface TunnelOptions extends CarriedOptions {
  /** Server: where flows are accepted (fake TCP). Client: where UDP peers send to. `host:port`, `[v6]:port` or `:port`; port 0: the kernel chooses. */
  readonly listen: string
  /** Server: where each conversation's datagrams go (UDP), a name is resolved once. Client: the tunnel server (fake TCP), whose name is resolved anew for each dial. */
  readonly to: string
  /** Pre-shared secret, the same at both ends, at least 16 bytes; a text counts as UTF-8 without the white space around it. Default: none, nothing is encrypted. */
  readonly key?: Uint8Array | string
  /** With a key. Default 'auto': AES where both processors have instructions for it, else ChaCha20. */
  readonly cipher?: Cipher | 'auto'
  /** A conversation without a datagram for so long is forgotten. Default 180 000. */
  readonly idleTimeoutMs?: number
  /** Conversations at once, 1 to 65 535; datagrams of further peers are dropped. Default 4 096. */
  readonly maxPeers?: number
  /** Receive buffer asked of the kernel: client: of its UDP socket, default 8 MiB; server: of each conversation's, default 1 MiB. */
  readonly receiveBufferBytes?: number
  /** Aborted while the tunnel is being opened it rejects with an AbortError; afterwards it closes the tunnel. */
  readonly signal?: AbortSignal
}

export interface TunnelClientOptions extends TunnelOptions {
  /** Default 0: each UDP peer has a flow of its own. n (1 to 256): all share n flows, which are opened at once. */
  readonly flows?: number
  /** For one attempt to open a flow, name, connection and handshake together; attempts follow each other without end. Default 5 000. */
  readonly connectTimeoutMs?: number
}

/** @internal */
export interface ParsedTunnel {
  readonly listen: HostPort
  readonly to: HostPort
  readonly key: Uint8Array | undefined
  readonly wish: CipherWish
  readonly idleTimeoutMs: number
  readonly maxPeers: number
  readonly receiveBufferBytes: number | undefined
  readonly signal: AbortSignal | undefined
  readonly carried: CarriedOptions
}

/** @internal */
export interface ParsedTunnelClient extends ParsedTunnel {
  readonly flows: number
  readonly connectTimeoutMs: number
  /** A flow is replaced after so many messages in either direction. */
  readonly renewAfterMessages: number
}

/** The confidentiality limit of AES-GCM for packets of up to 2 048 bytes (RFC 9001, B.1.1). ChaCha20 has none, but a new flow costs little. */
const RENEW_AFTER_MESSAGES = 2 ** 28
const MIN_KEY_BYTES = 16
/** Session ids have 16 bits, and 0 is none. */
const MAX_PEERS = 65_535
const MAX_FLOWS = 256

/** @internal */
export function parseTunnel(options: TunnelOptions): ParsedTunnel {
  if (typeof options !== 'object' || options === null) throw invalidOption('options', 'an object', options)
  const { listen, to, key, cipher = 'auto', idleTimeoutMs = 180_000, maxPeers = 4096, receiveBufferBytes, signal } = options
  const { link, capture, guard, firewall, keepAliveMs, dscp, strict } = options
  const carried = dropUndefined({ link, capture, guard, firewall, keepAliveMs, dscp, strict })
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw invalidOption('signal', 'an AbortSignal', signal)
  const target = address('to', to)
  if (target.port === 0) throw invalidOption('to', 'an address with a port from 1 to 65535', to)
  // The same checks as of every dial, but before the first one.
  parseDial({ host: target.host || 'localhost', port: target.port, ...carried })
  if (cipher !== 'auto' && key === undefined) throw invalidOption('cipher', 'left out without a key', cipher)
  return {
    listen: address('listen', listen),
    to: target,
    key: key === undefined ? undefined : keyBytes(key),
    wish: wishFor(cipher),
    idleTimeoutMs: integer('idleTimeoutMs', idleTimeoutMs, 1, Number.MAX_SAFE_INTEGER),
    maxPeers: integer('maxPeers', maxPeers, 1, MAX_PEERS),
    receiveBufferBytes:
      receiveBufferBytes === undefined ? undefined : integer('receiveBufferBytes', receiveBufferBytes, 1, Number.MAX_SAFE_INTEGER),
    signal,
    carried,
  }
}

/** @internal */
export function parseTunnelClient(options: TunnelClientOptions): ParsedTunnelClient {
  const parsed = parseTunnel(options)
  const { flows = 0, connectTimeoutMs = 5000 } = options
  return {
    ...parsed,
    flows: integer('flows', flows, 0, MAX_FLOWS),
    connectTimeoutMs: integer('connectTimeoutMs', connectTimeoutMs, 1, Number.MAX_SAFE_INTEGER),
    renewAfterMessages: RENEW_AFTER_MESSAGES,
  }
}

function address(name: string, text: unknown): HostPort {
  if (typeof text !== 'string') throw invalidOption(name, "an address such as '192.0.2.1:4000'", text)
  return parseHostPort(text)
}

function keyBytes(key: unknown): Uint8Array {
  const bytes = typeof key === 'string' ? Buffer.from(key.trim()) : key
  if (!(bytes instanceof Uint8Array)) throw invalidOption('key', 'a Uint8Array or a text', key)
  // Never shown, not even when it is wrong.
  if (bytes.length < MIN_KEY_BYTES) throw invalidOption('key', `at least ${MIN_KEY_BYTES} bytes long`, `${bytes.length} bytes`)
  return bytes
}

function wishFor(cipher: unknown): CipherWish {
  const ciphers: readonly Cipher[] = ['aes-256-gcm', 'chacha20-poly1305']
  if (cipher === 'auto') return { allowed: ciphers, preferred: ciphers[processorHasAes() ? 0 : 1] }
  const preferred = ciphers.find((one) => one === cipher)
  if (preferred === undefined) throw invalidOption('cipher', "one of 'auto', 'aes-256-gcm', 'chacha20-poly1305'", cipher)
  return { allowed: [preferred], preferred }
}

/** The word stands among the flags of x86 and the features of ARM. */
function processorHasAes(): boolean {
  try {
    return /^(?:flags|Features)\s*:.*\baes\b/m.test(readFileSync('/proc/cpuinfo', 'latin1'))
  } catch {
    return false
  }
}

function integer(name: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw invalidOption(name, max === Number.MAX_SAFE_INTEGER ? `an integer of at least ${min}` : `an integer from ${min} to ${max}`, value)
}

function dropUndefined<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>
}
