// dial: opens one connection. Resolves the name, makes the handshake, gives back the stream.
import { lookup } from 'node:dns/promises'
import { familyOf, unmapped } from './address.ts'
import { openTtlGuard, type TtlGuard } from './carrier/ttl-guard.ts'
import { FakeTcpConn } from './conn.ts'
import { channels } from './diagnostics.ts'
import { LONGEST_MS } from './engine/clock.ts'
import { type DialLinks, type Dialler, type Dialling, diallerFor } from './engine/dialler.ts'
import { abortError, ETIMEDOUT, FakeTcpError, systemError } from './errors.ts'
import { MessageArena } from './message-arena.ts'
import { requireBinding } from './native/require.ts'
import { type DialOptions, type ParsedDial, parseDial } from './options.ts'
import type { Channel } from './transport.ts'

/** Received messages of all dialled connections lie here. */
let arena: MessageArena | undefined

/**
 * Opens a connection.
 *
 * @param target `'host:port'`, `'[v6]:port'`, or options with `host` and `port`
 * @returns once the handshake is complete, with framing 'counted' or a `helloKey` once the listener has agreed
 * @throws (rejects) `ECONNREFUSED`, `ETIMEDOUT`, `EPERM` without CAP_NET_RAW (`guard: 'ttl'`: or CAP_NET_ADMIN), `EADDRINUSE`, name resolution's own errors, AbortError,
 * `ERR_FAKETCP_INVALID_ADDRESS`, `ERR_FAKETCP_INVALID_OPTION`, `ERR_FAKETCP_GUARD`, `ERR_FAKETCP_TABLE_FULL`, `ERR_FAKETCP_HANDSHAKE_UNSEEN`,
 * `ERR_FAKETCP_FRAMING`, `ERR_FAKETCP_HELLO`, `ERR_FAKETCP_UNSUPPORTED`
 */
export async function dial(target: string | DialOptions, options?: DialOptions): Promise<FakeTcpConn> {
  const parsed = parseDial(target, options)
  const binding = requireBinding()
  const { signal } = parsed
  if (signal?.aborted) throw abortError(signal)
  const limit = new TimeLimit(parsed)
  let opening: Promise<TtlGuard> | undefined
  try {
    const addresses = await limit.race(resolve(parsed))
    opening = parsed.ttlGuard && openTtlGuard(parsed.ttlGuard)
    const target = { ...parsed, guard: opening && (await limit.race(opening)) }
    let failure: unknown
    // One address that swallows packets must not use up the time of the next one.
    const shareMs = parsed.connectTimeoutMs / addresses.length
    for (const address of addresses) {
      try {
        return await dialAddress(target, address, shareMs, limit, (links) => diallerFor(binding, parsed.table, links))
      } catch (error) {
        failure = error
        // Time that is up while a peer's hello is awaited has an error of its own.
        if (limit.error !== undefined) throw signal?.aborted ? limit.error : error
      }
    }
    throw failure
  } finally {
    limit.clear()
    // The flow holds it by now; and where nobody waited for it, it comes for nobody.
    opening?.then((guard) => guard.release()).catch(() => {})
  }
}

type GuardedDial = ParsedDial & { readonly guard: TtlGuard | undefined }

async function resolve({ host, family }: ParsedDial): Promise<string[]> {
  if (familyOf(host) !== 0) return [unmapped(host)]
  return (await lookup(host, { all: true, family })).map((one) => unmapped(one.address))
}

async function dialAddress(
  parsed: GuardedDial,
  address: string,
  shareMs: number,
  limit: TimeLimit,
  diallerOf: (links: DialLinks) => Dialler,
): Promise<FakeTcpConn> {
  const dialler = diallerOf(parsed)
  try {
    return await connect(parsed, address, shareMs, limit, dialler)
  } catch (error) {
    // Where this host rewrites the packets of its own connections, a raw socket still sees them as the carrier does.
    const unseen = error instanceof FakeTcpError && error.code === 'ERR_FAKETCP_HANDSHAKE_UNSEEN'
    if (!unseen || !dialler.mayFallBack || parsed.link === 'packet' || limit.error !== undefined) throw error
    return await connect(parsed, address, shareMs, limit, diallerOf({ capture: 'raw', link: 'raw' }))
  }
}

function connect(parsed: GuardedDial, address: string, shareMs: number, limit: TimeLimit, dialler: Dialler): Promise<FakeTcpConn> {
  return new Promise((resolve, reject) => {
    if (limit.error !== undefined) {
      reject(limit.error)
      return
    }
    let dialling: Dialling | undefined
    const fail = (error: unknown) => {
      clearTimeout(timer)
      limit.onOver = undefined
      dialling?.cancel()
      reject(error)
    }
    const timeOut = (error: Error) => fail(dialling?.missing ?? error)
    const timer = setTimeout(
      () => timeOut(systemError(ETIMEDOUT, 'connect', { address, port: parsed.port })),
      Math.min(shareMs, LONGEST_MS),
    )
    limit.onOver = (error) => (parsed.signal?.aborted ? fail(error) : timeOut(error))
    try {
      dialling = dialler.dial({ ...parsed, address }, (error, channel) => {
        dialling = undefined
        if (channel === undefined) return fail(error)
        clearTimeout(timer)
        limit.onOver = undefined
        resolve(makeConn(channel, parsed))
      })
    } catch (error) {
      fail(error)
    }
  })
}

/** The stream takes over at once: messages may arrive before the promise's reaction runs. */
function makeConn(channel: Channel, parsed: ParsedDial): FakeTcpConn {
  arena ??= new MessageArena()
  const conn = new FakeTcpConn(channel, arena, parsed.conn)
  FakeTcpConn.start(conn)
  if (channels.connOpen.hasSubscribers) channels.connOpen.publish({ conn })
  return conn
}

/** The end of patience for one dial, by timeout or by the caller's signal, whatever it is waiting for. */
class TimeLimit {
  /** Set while something has to be undone. */
  onOver: ((error: Error) => void) | undefined
  error: Error | undefined
  readonly #clear: () => void

  constructor({ host, port, connectTimeoutMs, signal }: ParsedDial) {
    const end = (error: Error) => {
      this.error = error
      this.onOver?.(error)
    }
    const onAbort = () => end(abortError(signal as AbortSignal))
    const timer = setTimeout(() => end(systemError(ETIMEDOUT, 'connect', { address: host, port })), Math.min(connectTimeoutMs, LONGEST_MS))
    signal?.addEventListener('abort', onAbort, { once: true })
    this.#clear = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  /** Waits for a promise that cannot be cancelled, but no longer than the limit. */
  race<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.onOver = reject
      // Given back before the caller goes on, who will set its own.
      const settle = <V>(go: (value: V) => void) => {
        return (value: V) => {
          if (this.onOver === reject) this.onOver = undefined
          go(value)
        }
      }
      promise.then(settle(resolve), settle(reject))
    })
  }

  clear(): void {
    this.onOver = undefined
    this.#clear()
  }
}
