// Addresses as text, as the nine words of a flow's key, and as what people write on a command line. Pure; knows no socket.
import { isIPv4, isIPv6 } from 'node:net'
import { FakeTcpError } from './errors.ts'

export interface HostPort {
  host: string
  port: number
}

const EXPECTED = "an address such as '192.0.2.1:9191', 'example.net:9191', '[2001:db8::1]:9191', or a port number"

/**
 * Reads `host:port`, `[v6]:port`, `:port` or a port alone. Without a host, `host` is the empty string.
 *
 * @throws FakeTcpError `ERR_FAKETCP_INVALID_ADDRESS`
 */
export function parseHostPort(text: string | number): HostPort {
  if (typeof text === 'number') return { host: '', port: checkPort(text, text) }
  if (typeof text !== 'string') throw invalid(text)
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text) ?? /^()()(\d{1,5})$/.exec(text)
  if (match === null) {
    throw invalid(text, isIPv6(text) ? `: an IPv6 address is written in brackets, '[${text}]:9191'` : '')
  }
  if (match[1] !== undefined && match[1] !== '' && !isIPv6(match[1])) throw invalid(text, `: '${match[1]}' is not an IPv6 address`)
  return { host: match[1] || match[2] || '', port: checkPort(Number(match[3]), text) }
}

/** @throws FakeTcpError `ERR_FAKETCP_INVALID_ADDRESS` unless 0..65535 */
export function checkPort(port: unknown, whole: unknown = port): number {
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 0 || port > 65535) {
    throw invalid(whole, ': a port is an integer from 0 to 65535')
  }
  return port
}

function invalid(got: unknown, why = ''): FakeTcpError {
  return new FakeTcpError(
    'ERR_FAKETCP_INVALID_ADDRESS',
    `Expected ${EXPECTED}; got ${typeof got === 'string' ? `'${got}'` : String(got)}${why}`,
  )
}

/** 4, 6, or 0 for a name. */
export function familyOf(host: string): 4 | 6 | 0 {
  return isIPv4(host) ? 4 : isIPv6(host) ? 6 : 0
}

/** An IPv4-mapped address (`::ffff:a.b.c.d`, as `socket.remoteAddress` of a dual-stack socket has it) as the IPv4 address it stands for. */
export function unmapped(address: string): string {
  return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1] ?? address
}

/** `host:port`, with brackets around an IPv6 address. */
export function formatHostPort(host: string, port: number): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

/** True when the four words at `at` hold an IPv4-mapped address. */
export function isMapped(words: Int32Array, at: number): boolean {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0xffff
}

/** True for fe80::/10. */
export function isLinkLocal(words: Int32Array, at: number): boolean {
  return (words[at] & 0xffc00000) >>> 0 === 0xfe800000
}

/** The text of the address in four words: dotted quad when IPv4-mapped, else RFC 5952. */
export function formatAddress(words: Int32Array, at: number): string {
  if (isMapped(words, at)) {
    const word = words[at + 3]
    return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`
  }
  const groups: string[] = []
  for (let i = 0; i < 8; i++) groups.push(((words[at + (i >> 1)] >>> (i & 1 ? 0 : 16)) & 0xffff).toString(16))
  return compress(groups)
}

/** RFC 5952, 4.2: the longest run of at least two zero groups, the first of equals, becomes `::`. */
function compress(groups: readonly string[]): string {
  let best = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let length = 0
    while (i + length < 8 && groups[i + length] === '0') length++
    if (length > bestLength) {
      best = i
      bestLength = length
    }
    i += length
  }
  if (best < 0) return groups.join(':')
  return `${groups.slice(0, best).join(':')}::${groups.slice(best + bestLength).join(':')}`
}
