// A client's way to the server: dials, makes the tunnel's handshake, and when the flow has ended does it again, from another port, for as long as it is
// wanted. Datagrams that come while there is no flow wait for a short time.
import { formatHostPort } from '../address.ts'
import { FakeTcpConn } from '../conn.ts'
import { dial } from '../dial.ts'
import { FakeTcpError } from '../errors.ts'
import { BackOff } from './back-off.ts'
import { openCodec } from './codec.ts'
import { type Agreed, Initiator } from './handshake.ts'
import type { Secrets } from './keys.ts'
import type { OpenFlows } from './open-flows.ts'
import type { ParsedTunnelClient } from './options.ts'
import type { Shared } from './shared.ts'
import { type FlowSink, TunnelFlow } from './tunnel-flow.ts'
import { WaitingTrains } from './waiting-trains.ts'

/** The first message is repeated after so long, then after twice as long each time. */
const REPEAT_MS = 200
/** A flow is given up when nothing has answered what was sent for so many seconds; the server reports every second. */
const SILENCE_TICKS = 5
/** A flow that was open for so long was a good one. */
const LASTING_MS = 3000
/** Bytes that may wait for the kernel in one flow; what comes beyond is dropped. */
const SEND_QUEUE_BYTES = 4 << 20

/** What all of a client's flows need. */
export interface ClientContext {
  readonly options: ParsedTunnelClient
  readonly shared: Shared
  readonly flows: OpenFlows
  readonly secrets: Secrets
  readonly clientId: Uint8Array
  readonly sink: FlowSink
}

export class ClientFlow {
  /** Conversations that use it, by session. */
  readonly sessions = new Set<number>()
  /** Of the attempt, or of the flow. */
  id: number
  readonly #context: ClientContext
  readonly #backOff = new BackOff()
  readonly #waiting: WaitingTrains
  readonly #closing = new AbortController()
  #flow: TunnelFlow | undefined
  #startedMs = 0
  /** Set while it waits for the next attempt. */
  #hurry: (() => void) | undefined

  constructor(context: ClientContext) {
    this.#context = context
    this.id = context.shared.nextId()
    this.#waiting = new WaitingTrains(context.shared.drops)
    this.#run().catch((error: unknown) => {
      // A programming error: nothing else gets this far.
      process.nextTick(() => {
        throw error
      })
    })
  }

  /** While it is open. */
  get open(): TunnelFlow | undefined {
    return this.#flow
  }

  send(session: number, memory: Uint8Array, offset: number, length: number, segment: number): void {
    if (this.#flow !== undefined) {
      this.#flow.send(session, memory, offset, length, segment)
      return
    }
    this.#waiting.push(session, memory, offset, length, segment)
    this.#hurry?.()
  }

  /** A conversation is over. */
  forget(session: number): void {
    if (this.sessions.delete(session)) this.#flow?.sendClose([session])
  }

  /** Ends it in good order; the server forgets its conversations. */
  async close(): Promise<void> {
    this.#closing.abort()
    this.#hurry?.()
    this.#waiting.clear()
    const flow = this.#flow
    if (flow === undefined) return
    flow.sendClose([...this.sessions])
    await flow.close()
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing
    const { shared, options } = this.#context
    const { warnings } = shared
    const place = formatHostPort(options.to.host, options.to.port)
    while (!signal.aborted) {
      this.#startedMs = performance.now()
      try {
        const ended = await this.#connect()
        const openedMs = performance.now()
        const reason = await ended
        if (signal.aborted) return
        // One that ends at once each time is no better than none.
        if (performance.now() - openedMs > LASTING_MS) this.#backOff.reset()
        this.#startedMs = performance.now()
        warnings.warn('reconnect', () => `A flow has ended (${reason}); dialling again`)
        shared.reconnects++
        this.id = shared.nextId()
      } catch (error) {
        if (signal.aborted) return
        if (isUnanswered(error))
          warnings.warn('no-answer', () => `${place} takes connections, but does not answer the tunnel: wrong key, or no tunnel server`)
        else warnings.warn('unreachable', () => `${place} cannot be reached: ${error instanceof Error ? error.message : String(error)}`)
      }
      await this.#pause()
    }
  }

  /** Until the next attempt; attempts that time out do not wait any longer. */
  #pause(): Promise<void> {
    const due = this.#startedMs + this.#backOff.next()
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#hurry = undefined
        resolve()
      }
      const left = (until: number) => Math.max(0, until - performance.now())
      const wanted = Math.min(due, this.#startedMs + this.#backOff.longestWantedMs)
      let timer = setTimeout(done, left(this.#waiting.empty ? due : wanted))
      this.#hurry = () => {
        if (this.#closing.signal.aborted) return done()
        clearTimeout(timer)
        timer = setTimeout(done, left(wanted))
      }
    })
  }

  /** @returns once the flow is open: what resolves with the reason when it has ended */
  async #connect(): Promise<Promise<string>> {
    const { options, secrets, clientId } = this.#context
    const { to, carried, connectTimeoutMs } = options
    const { signal } = this.#closing
    const { helloKey } = secrets
    const target = { host: to.host || 'localhost', port: to.port, connectTimeoutMs, writableHighWaterMark: SEND_QUEUE_BYTES, signal }
    const conn = await dial({ ...carried, ...target, ...(helloKey === undefined ? {} : { helloKey }) })
    const leftMs = Math.max(1, this.#startedMs + connectTimeoutMs - performance.now())
    return new Promise((resolve, reject) => {
      new Handshake(conn, new Initiator(secrets, clientId, options.wish), leftMs, signal, reject, (agreed, message) => {
        const { promise, end } = ending()
        resolve(promise)
        return this.#opened(conn, agreed, message, end)
      })
    })
  }

  #opened(conn: FakeTcpConn, { keys }: Agreed, message: Buffer, end: (reason: string) => void): TunnelFlow {
    const { shared, flows, sink } = this.#context
    const codec = openCodec(keys === undefined ? {} : { seal: keys.client, open: keys.server })
    const flow = new TunnelFlow({
      id: this.id,
      shared,
      conn,
      codec,
      sink,
      repeat: { message, answer: undefined },
      silenceTicks: SILENCE_TICKS,
      onEnd: (ended, reason) => {
        this.#flow = undefined
        flows.remove(ended, reason)
        end(reason)
      },
    })
    shared.encrypted = keys?.client.cipher ?? 'none'
    this.#flow = flow
    flows.add(flow)
    // The server has seen nothing so far that could not have been recorded.
    flow.report(true)
    flow.sendBind([...this.sessions])
    this.#waiting.flush(flow)
    return flow
  }
}

class NoAnswer extends Error {}

/** The keyed hello finds out before the tunnel's own handshake. */
function isUnanswered(error: unknown): error is Error {
  return error instanceof NoAnswer || (error instanceof FakeTcpError && error.code === 'ERR_FAKETCP_HELLO')
}

/** One connection's handshake, by messages and a timer of its own: messages of a fake connection can be lost. */
class Handshake {
  readonly #conn: FakeTcpConn
  readonly #initiator: Initiator
  readonly #signal: AbortSignal
  readonly #onFail: (error: Error) => void
  readonly #onOpen: (agreed: Agreed, message: Buffer) => TunnelFlow
  readonly #limit: NodeJS.Timeout
  #timer: NodeJS.Timeout | undefined
  /** What takes over. */
  #flow: TunnelFlow | undefined
  #failed = false

  constructor(
    conn: FakeTcpConn,
    initiator: Initiator,
    limitMs: number,
    signal: AbortSignal,
    onFail: (error: Error) => void,
    onOpen: (agreed: Agreed, message: Buffer) => TunnelFlow,
  ) {
    this.#conn = conn
    this.#initiator = initiator
    this.#signal = signal
    this.#onFail = onFail
    this.#onOpen = onOpen
    this.#limit = setTimeout(() => this.#fail(new NoAnswer()), limitMs)
    signal.addEventListener('abort', this.#onAbort)
    conn.on('error', this.#onError).on('end', this.#onGone).on('close', this.#onGone)
    this.#send(REPEAT_MS)
    FakeTcpConn.tap(conn, (memory, offset, length, segment) => this.#take(memory, offset, length, segment))
  }

  readonly #onAbort = () => this.#fail(new Error('closed'))
  readonly #onError = (error: Error) => this.#fail(error)
  readonly #onGone = () => this.#fail(new Error('the server has closed the connection'))

  #take(memory: Uint8Array, offset: number, length: number, segment: number): void {
    if (this.#flow !== undefined) this.#flow.receive(memory, offset, length, segment)
    else if (!this.#failed && length <= segment) {
      const message = Buffer.from(memory.subarray(offset, offset + length))
      const agreed = this.#initiator.finish(message)
      if (agreed === undefined) return
      this.#done()
      this.#flow = this.#onOpen(agreed, message)
    }
  }

  #send(againMs: number): void {
    this.#conn.write(this.#initiator.message)
    this.#timer = setTimeout(() => this.#send(againMs * 2), againMs)
  }

  #done(): void {
    clearTimeout(this.#limit)
    clearTimeout(this.#timer)
    this.#signal.removeEventListener('abort', this.#onAbort)
    this.#conn.off('end', this.#onGone).off('close', this.#onGone)
  }

  #fail(error: Error): void {
    if (this.#flow !== undefined || this.#failed) return
    this.#failed = true
    this.#done()
    this.#conn.destroy()
    this.#onFail(error)
  }
}

function ending(): { promise: Promise<string>; end: (reason: string) => void } {
  let end: (reason: string) => void = () => {}
  const promise = new Promise<string>((resolve) => {
    end = resolve
  })
  return { promise, end }
}
