// What opening a connection or a listener takes over any transport: names, the end of patience, one address after the other, the stream on top.
// It knows no transport.
import { lookup } from 'node:dns/promises'
import { familyOf, unmapped } from './address.ts'
import { LONGEST_MS } from './clock.ts'
import { type ConnOptions, FakeTcpConn } from './conn.ts'
import { channels } from './diagnostics.ts'
import { abortError, ETIMEDOUT, systemError } from './errors.ts'
import { MessageArena } from './message-arena.ts'
import type { Acceptor, Channel } from './transport.ts'

/** Received messages of all dialled connections lie here. */
let arena: MessageArena | undefined

/** What is dialled, and for how long at most. */
export interface Opening {
  readonly host: string
  readonly port: number
  readonly family: 0 | 4 | 6
  readonly connectTimeoutMs: number
  readonly signal: AbortSignal | undefined
}

/** A handshake that is under way. */
export interface Attempt {
  /** Gives it up; nothing is settled afterwards. */
  cancel(): void
  /** What it waits for, if its time being up has an error of its own. */
  readonly missing?: Error | undefined
}

/** The addresses of the host, in the resolver's order. */
export async function resolveHost({ host, family }: Pick<Opening, 'host' | 'family'>): Promise<string[]> {
  if (familyOf(host) !== 0) return [unmapped(host)]
  return (await lookup(host, { all: true, family })).map((one) => unmapped(one.address))
}

/**
 * The first of the addresses that can be opened.
 *
 * @param open gets one of them and its share of the time
 * @throws (rejects) the last one's error
 */
export async function openFirst<T>(
  addresses: readonly string[],
  opening: Opening,
  limit: TimeLimit,
  open: (address: string, shareMs: number) => Promise<T>,
): Promise<T> {
  let failure: unknown
  // One address that swallows packets must not use up the time of the next one.
  const shareMs = opening.connectTimeoutMs / addresses.length
  for (const address of addresses) {
    try {
      return await open(address, shareMs)
    } catch (error) {
      failure = error
      // Time that is up while a peer's hello is awaited has an error of its own.
      if (limit.error !== undefined) throw opening.signal?.aborted ? limit.error : error
    }
  }
  throw failure
}

/** One address: starts the attempt, and waits for its channel no longer than its share and the limit. */
export function openChannel(
  opening: Opening & { readonly conn: ConnOptions },
  address: string,
  shareMs: number,
  limit: TimeLimit,
  start: (settle: (error: unknown, channel?: Channel) => void) => Attempt,
): Promise<FakeTcpConn> {
  return new Promise((resolve, reject) => {
    if (limit.error !== undefined) {
      reject(limit.error)
      return
    }
    let attempt: Attempt | undefined
    const fail = (error: unknown) => {
      clearTimeout(timer)
      limit.onOver = undefined
      attempt?.cancel()
      reject(error)
    }
    const timeOut = (error: Error) => fail(attempt?.missing ?? error)
    const timer = setTimeout(
      () => timeOut(systemError(ETIMEDOUT, 'connect', { address, port: opening.port })),
      Math.min(shareMs, LONGEST_MS),
    )
    limit.onOver = (error) => (opening.signal?.aborted ? fail(error) : timeOut(error))
    try {
      attempt = start((error, channel) => {
        attempt = undefined
        if (channel === undefined) return fail(error)
        clearTimeout(timer)
        limit.onOver = undefined
        resolve(makeConn(channel, opening.conn))
      })
    } catch (error) {
      fail(error)
    }
  })
}

/** The stream takes over at once: messages may arrive before the promise's reaction runs. */
function makeConn(channel: Channel, options: ConnOptions): FakeTcpConn {
  arena ??= new MessageArena()
  const conn = new FakeTcpConn(channel, arena, options)
  FakeTcpConn.start(conn)
  if (channels.connOpen.hasSubscribers) channels.connOpen.publish({ conn })
  return conn
}

/** The address that a host to listen on stands for; '' for any. */
export async function addressToListen({ host, signal }: Pick<Opening, 'host' | 'signal'>): Promise<string> {
  if (signal?.aborted) throw abortError(signal)
  return host === '' || familyOf(host) !== 0 ? host : (await unlessAborted(lookup(host), signal)).address
}

/** For any address as `node:net` does: both families, or IPv4 alone where the host has no IPv6. */
export function openOn(address: string, open: (address: string) => Acceptor): Acceptor {
  if (address !== '') return open(unmapped(address))
  try {
    return open('::')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error
    return open('0.0.0.0')
  }
}

/** Opens all, or none. */
export async function openAll<P extends { readonly conn: ConnOptions }>(
  parsed: readonly P[],
  open: (one: P) => Promise<Acceptor>,
): Promise<Array<{ acceptor: Acceptor; conn: ConnOptions }>> {
  const acceptors: Array<{ acceptor: Acceptor; conn: ConnOptions }> = []
  try {
    for (const one of parsed) acceptors.push({ acceptor: await open(one), conn: one.conn })
  } catch (error) {
    await Promise.all(acceptors.map(({ acceptor }) => acceptor.close()))
    throw error
  }
  return acceptors
}

/** A look-up cannot be cancelled, nor can a firewall tool, but nobody has to wait for them. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(abortError(signal as AbortSignal))
    signal?.addEventListener('abort', onAbort, { once: true })
    promise.then(resolve, reject).finally(() => signal?.removeEventListener('abort', onAbort))
  })
}

/** The end of patience for one dial, by timeout or by the caller's signal, whatever it is waiting for. */
export class TimeLimit {
  /** Set while something has to be undone. */
  onOver: ((error: Error) => void) | undefined
  error: Error | undefined
  readonly #clear: () => void

  constructor({ host, port, connectTimeoutMs, signal }: Opening) {
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
