// A client's way to the server: dials, makes the tunnel's handshake, and when the flow has ended does it again, from another port, for as long as it is
// wanted. Datagrams that come while there is no flow wait for a short time. A flow whose keys have been used a lot is replaced while it is open.
import { formatHostPort } from '../address.ts'
import { FakeTcpConn } from '../conn.ts'
import { dial } from '../dial.ts'
import { abortError, FakeTcpError } from '../errors.ts'
import { BackOff } from './back-off.ts'
import { openCodec } from './codec.ts'
import { type Agreed, Initiator } from './handshake.ts'
import type { Secrets } from './keys.ts'
import type { OpenFlows } from './open-flows.ts'
import type { ParsedTunnelClient } from './options.ts'
import type { Shared } from './shared.ts'
import { type FlowSink, TunnelFlow } from './tunnel-flow.ts'
import type { Turns } from './turns.ts'
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
  /** To open a flow. */
  readonly turns: Turns
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
  #current: { readonly flow: TunnelFlow; readonly ended: Promise<void> } | undefined
  /** Why the last one ended. */
  #reason = ''
  /** While one is being replaced. */
  #renewal: Promise<void> | undefined
  #startedMs = 0
  /** Set while it waits for the next attempt. */
  #hurry: (() => void) | undefined

  constructor(context: ClientContext) {
    this.#context = context
    this.id = context.shared.nextId()
    this.#waiting = new WaitingTrains(context.shared)
    this.#run().catch((error: unknown) => {
      // A programming error: nothing else gets this far.
      process.nextTick(() => {
        throw error
      })
    })
  }

  /** While it is open. */
  get open(): TunnelFlow | undefined {
    return this.#current?.flow
  }

  send(session: number, memory: Uint8Array, offset: number, length: number, segment: number): void {
    if (this.#current !== undefined) {
      this.#current.flow.send(session, memory, offset, length, segment)
      return
    }
    this.#waiting.push(session, memory, offset, length, segment)
    this.#hurry?.()
  }

  /** A conversation is over. */
  forget(session: number): void {
    if (this.sessions.delete(session)) this.open?.sendClose([session])
  }

  /** Once a second. */
  tick(): void {
    this.#waiting.expire()
    const { secrets, options } = this.#context
    if (!secrets.keyed || this.#renewal !== undefined || this.#closing.signal.aborted || this.open === undefined) return
    if (this.open.messages >= options.renewAfterMessages) this.#renewal = this.#renew()
  }

  /** Another flow, with keys of its own, takes over once it is open. While there is none the old one goes on. */
  async #renew(): Promise<void> {
    try {
      await this.#connect()
    } catch (error) {
      this.#complain(error)
    } finally {
      this.#renewal = undefined
    }
  }

  /** Ends it in good order; the server forgets its conversations. */
  async close(): Promise<void> {
    this.#closing.abort()
    this.#hurry?.()
    this.#waiting.clear()
    this.open?.sendClose([...this.sessions])
    await this.open?.close()
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing
    const { shared } = this.#context
    while (!signal.aborted) {
      this.#startedMs = performance.now()
      try {
        await this.#connect()
        const openedMs = performance.now()
        while (this.#current !== undefined) {
          await this.#current.ended
          await this.#renewal
        }
        if (signal.aborted) return
        // One that ends at once each time is no better than none.
        if (performance.now() - openedMs > LASTING_MS) this.#backOff.reset()
        this.#startedMs = performance.now()
        shared.warnings.warn('reconnect', () => `A flow has ended (${this.#reason}); dialling again`)
        shared.reconnects++
        this.id = shared.nextId()
      } catch (error) {
        this.#complain(error)
      }
      if (!signal.aborted) await this.#pause()
    }
  }

  #complain(error: unknown): void {
    if (this.#closing.signal.aborted) return
    const { shared, options } = this.#context
    const place = formatHostPort(options.to.host, options.to.port)
    const unanswered = () => `${place} takes connections, but does not answer the tunnel: wrong key, or no tunnel server`
    const unreachable = () => `${place} cannot be reached: ${error instanceof Error ? error.message : String(error)}`
    if (isUnanswered(error)) shared.warnings.warn('no-answer', unanswered)
    else shared.warnings.warn('unreachable', unreachable)
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

  /** Resolves once the flow is open, and then it is the current one. */
  async #connect(): Promise<void> {
    const { turns } = this.#context
    await turns.take(this.#closing.signal)
    this.#startedMs = performance.now()
    try {
      await this.#open(this.#startedMs)
    } finally {
      turns.pass()
    }
  }

  async #open(startedMs: number): Promise<void> {
    const { options, secrets, clientId } = this.#context
    const { to, carried, connectTimeoutMs } = options
    const { signal } = this.#closing
    const { helloKey } = secrets
    const target = { host: to.host || 'localhost', port: to.port, connectTimeoutMs, writableHighWaterMark: SEND_QUEUE_BYTES, signal }
    const conn = await dial({ ...carried, ...target, ...(helloKey === undefined ? {} : { helloKey }) })
    if (signal.aborted) {
      conn.destroy()
      throw abortError(signal)
    }
    const leftMs = Math.max(1, startedMs + connectTimeoutMs - performance.now())
    await new Promise<void>((resolve, reject) => {
      new Handshake(conn, new Initiator(secrets, clientId, options.wish), leftMs, signal, reject, (agreed, message) => {
        resolve()
        return this.#opened(conn, agreed, message)
      })
    })
  }

  #opened(conn: FakeTcpConn, { keys }: Agreed, message: Buffer): TunnelFlow {
    const { shared, flows, sink } = this.#context
    const before = this.open
    if (before !== undefined) this.id = shared.nextId()
    let end = () => {}
    const ended = new Promise<void>((resolve) => {
      end = resolve
    })
    const codec = openCodec(keys === undefined ? {} : { seal: keys.client, open: keys.server })
    const flow = new TunnelFlow({
      id: this.id,
      shared,
      conn,
      codec,
      sink,
      repeat: { message, answer: undefined },
      silenceTicks: SILENCE_TICKS,
      onEnd: (_flow, reason) => {
        if (this.open === flow) this.#current = undefined
        this.#reason = reason
        flows.remove(flow, reason)
        end()
      },
    })
    shared.encrypted = keys?.client.cipher ?? 'none'
    this.#current = { flow, ended }
    flows.add(flow)
    // The server has seen nothing so far that could not have been recorded.
    flow.report(true)
    flow.sendBind([...this.sessions])
    this.#waiting.flush(flow)
    void before?.close('replaced by a new one')
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
