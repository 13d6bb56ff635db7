// Every error the library gives out is made here: its own codes, and failed system calls in the form of Node's own.
import { getSystemErrorName } from 'node:util'

/** Codes of the library's own errors; failed system calls keep their `errno` names (`EPERM`, `ECONNREFUSED`, ...). */
export type FakeTcpErrorCode =
  /** Not Linux, or no addon for this platform. */
  | 'ERR_FAKETCP_UNSUPPORTED'
  /** An address that cannot be read. */
  | 'ERR_FAKETCP_INVALID_ADDRESS'
  /** An option of the wrong type or outside its range. */
  | 'ERR_FAKETCP_INVALID_OPTION'
  /** A message longer than `maxMessageSize`. */
  | 'ERR_FAKETCP_MESSAGE_SIZE'
  /** A message without a byte: on the wire it would be a pure ACK. */
  | 'ERR_FAKETCP_MESSAGE_EMPTY'
  /** The flow table has no room for another flow. */
  | 'ERR_FAKETCP_TABLE_FULL'
  /** The handshake completed but was never captured. */
  | 'ERR_FAKETCP_HANDSHAKE_UNSEEN'
  /** Nothing was heard for `idleTimeoutMs`. */
  | 'ERR_FAKETCP_IDLE'
  /** The firewall rule of the guard 'ttl' could not be made. */
  | 'ERR_FAKETCP_GUARD'
  /** Dialect `tcp`: the peer acknowledges nothing any more, as a segment was lost and is not sent again. */
  | 'ERR_FAKETCP_STALLED'
  /** The peer does not frame messages as this side does (`framing`). */
  | 'ERR_FAKETCP_FRAMING'
  /** No hello of this side's `helloKey` came from the peer. */
  | 'ERR_FAKETCP_HELLO'
  /** A method that would break message boundaries. */
  | 'ERR_FAKETCP_METHOD'

/** An error of this library. Match by `code`. */
export class FakeTcpError extends Error {
  readonly code: FakeTcpErrorCode
  override readonly name = 'FakeTcpError'

  constructor(code: FakeTcpErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** Errno numbers of Linux, negative as in libuv, for errors that no system call of ours reported. */
export const EPERM = -1
export const EAGAIN = -11
export const EINVAL = -22
export const EMSGSIZE = -90
export const EADDRINUSE = -98
export const EADDRNOTAVAIL = -99
export const ECONNRESET = -104
export const ENOBUFS = -105
export const ETIMEDOUT = -110
export const ECONNREFUSED = -111

/** A failed system call, in the form of Node's own (`code`, `errno`, `syscall`, `address`, `port`). */
export interface SystemError extends Error {
  code: string
  /** Negative, as in libuv. */
  errno: number
  syscall: string
  address?: string
  port?: number
}

const HINTS: Readonly<Record<string, string>> = {
  EPERM:
    'raw and packet sockets need the capability CAP_NET_RAW: run as root, give it to the binary (setcap cap_net_raw+ep) or to the service (AmbientCapabilities=CAP_NET_RAW)',
  EACCES: 'ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE',
}

/**
 * @param errno negative errno
 * @param where the address and port the call was about
 * @param hint what to do about it; for some errors there is a usual one
 */
export function systemError(
  errno: number,
  syscall: string,
  where: { address?: string; port?: number } = {},
  hint: string | undefined = HINTS[getSystemErrorName(errno)],
): SystemError {
  const code = getSystemErrorName(errno)
  const place = where.address === undefined ? '' : ` ${where.address}${where.port === undefined ? '' : `:${where.port}`}`
  const error = new Error(`${syscall} ${code}${place}${hint === undefined ? '' : ` (${hint})`}`)
  return Object.assign(error, { code, errno, syscall, ...where })
}

/**
 * Gives an error thrown by the addon (`errno`, `syscall`) the address, the port and a hint; other errors pass through.
 *
 * @param hints by negative errno, in place of the usual ones
 */
export function fromNative(
  error: unknown,
  where: { address?: string; port?: number } = {},
  hints: Readonly<Record<number, string>> = {},
): unknown {
  if (!(error instanceof Error) || !('errno' in error) || !('syscall' in error)) return error
  const errno = Number(error.errno)
  return systemError(errno, String(error.syscall), where, hints[errno])
}

/** What an aborted `dial` or `listen` rejects with: `name` 'AbortError', `code` 'ABORT_ERR', the signal's reason as cause. */
export function abortError(signal: AbortSignal): Error {
  const error = new Error('The operation was aborted', { cause: signal.reason })
  error.name = 'AbortError'
  return Object.assign(error, { code: 'ABORT_ERR' })
}

/** An exception of the application's handler must not cost others what they are owed: it surfaces a tick later, as uncaught. */
export function rethrowLater(error: unknown): void {
  process.nextTick(() => {
    throw error
  })
}

/** Runs what may run the application's code, of which an exception must not cut short what the caller is doing. */
export function guarded(run: () => void): void {
  try {
    run()
  } catch (error) {
    rethrowLater(error)
  }
}

/** A wrong option: says what was expected and what came. */
export function invalidOption(name: string, expected: string, got: unknown): FakeTcpError {
  const shown =
    typeof got === 'string'
      ? JSON.stringify(got)
      : typeof got === 'object' && got !== null
        ? `an object (${got.constructor?.name ?? 'null prototype'})`
        : String(got)
  return new FakeTcpError('ERR_FAKETCP_INVALID_OPTION', `Option '${name}' must be ${expected}; got ${shown}`)
}
