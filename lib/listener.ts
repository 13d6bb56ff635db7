// FakeTcpListener: accepts connections on one or several acceptors. It stands on the Acceptor interface and knows no fake TCP.
import { EventEmitter } from 'node:events'
import { type ConnOptions, FakeTcpConn } from './conn.ts'
import { channels } from './diagnostics.ts'
import { guarded } from './errors.ts'
import { MessageArena } from './message-arena.ts'
import type { ListenerStats } from './stats.ts'
import type { Acceptor, AcceptorSink, Channel, ListenAddress, RefusedConnection } from './transport.ts'

export interface ListenerOptions extends ConnOptions {
  /** Connections open at once; further ones are refused. Default Infinity. */
  readonly maxConnections: number
  /** Connections that wait for the first `'connection'` listener or iterator; further ones are refused. Default 128. */
  readonly backlog: number
}

export interface FakeTcpListenerEvents {
  connection: [conn: FakeTcpConn]
  /** A connection was refused. */
  drop: [refused: RefusedConnection]
  error: [error: Error]
  close: []
}

/**
 * Listens on one address (`listen`) or several (`listeners`). Emits `'connection'` when a handshake has completed, before any message is delivered,
 * and can be iterated: `for await (const conn of listener)`. Until there is a `'connection'` listener or an iterator, connections wait.
 */
export class FakeTcpListener extends EventEmitter<FakeTcpListenerEvents> implements AsyncIterable<FakeTcpConn> {
  /** Connections open at once; further ones are refused with a reset and a `'drop'` event. May be changed at any time. */
  maxConnections: number
  readonly #acceptors: readonly Acceptor[]
  readonly #backlog: number
  readonly #arena = new MessageArena()
  readonly #open = new Set<FakeTcpConn>()
  #waiting: FakeTcpConn[] = []
  #closing: Promise<void> | undefined

  /** @internal Made by listen and listeners. */
  constructor(
    acceptors: ReadonlyArray<{ acceptor: Acceptor; conn: ConnOptions }>,
    options: Pick<ListenerOptions, 'maxConnections' | 'backlog'>,
  ) {
    super()
    this.#acceptors = acceptors.map(({ acceptor }) => acceptor)
    this.#backlog = options.backlog
    this.maxConnections = options.maxConnections
    const sink: Omit<AcceptorSink, 'onChannel'> = {
      refuse: () => this.#refusal(),
      onRefused: (refused) => {
        if (channels.refused.hasSubscribers) channels.refused.publish({ listener: this, refused })
        this.emit('drop', refused)
      },
      // Running out of files is no reason to crash a process that does not care: the acceptor tries again.
      onError: (error) => this.listenerCount('error') > 0 && this.emit('error', error),
    }
    EventEmitter.prototype.on.call(this, 'newListener', (event: string) => {
      if (event === 'connection') process.nextTick(() => this.#handOver())
    })
    for (const { acceptor, conn } of acceptors) acceptor.attach({ ...sink, onChannel: (channel) => this.#accept(channel, conn) })
  }

  /** The first address listened on; `null` once closed, as in `node:net`. */
  address(): ListenAddress | null {
    return this.#closing === undefined ? this.#acceptors[0].address : null
  }

  /** All addresses listened on. */
  addresses(): ListenAddress[] {
    return this.#closing === undefined ? this.#acceptors.map((acceptor) => acceptor.address) : []
  }

  /** True until `close`. */
  get listening(): boolean {
    return this.#closing === undefined
  }

  /** Connections accepted here that are open now. */
  get connections(): number {
    return this.#open.size
  }

  /** Figures for each address, in the order of `addresses()`. */
  get stats(): readonly ListenerStats[] {
    return this.#acceptors.map((acceptor) => acceptor.stats)
  }

  /** Keeps the process alive while listening (the default). */
  ref(): this {
    for (const acceptor of this.#acceptors) acceptor.ref()
    return this
  }

  /** Lets the process end although this listener is open. */
  unref(): this {
    for (const acceptor of this.#acceptors) acceptor.unref()
    return this
  }

  /**
   * Stops listening. Open connections live on unless `connections` is true: then they are closed too and awaited. Connections that nobody has
   * taken yet are reset. Idempotent.
   */
  async close(options: { connections?: boolean } = {}): Promise<void> {
    this.#closing ??= this.#stop()
    if (options.connections === true) await Promise.all([...this.#open].map((conn) => conn.close()))
    await this.#closing
  }

  async #stop(): Promise<void> {
    for (const conn of this.#waiting.splice(0)) conn.destroy()
    // Acceptors stop accepting synchronously; what is awaited is the release of their sockets.
    await Promise.all(this.#acceptors.map((acceptor) => acceptor.close()))
    if (channels.listenerClose.hasSubscribers) channels.listenerClose.publish({ listener: this })
    this.emit('close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  /** Yields connections until the listener is closed; leaving the loop leaves the listener open. */
  async *[Symbol.asyncIterator](): AsyncIterator<FakeTcpConn> {
    if (this.#closing !== undefined) return
    const arrived: FakeTcpConn[] = []
    let wake: (() => void) | undefined
    const onConnection = (conn: FakeTcpConn) => {
      conn.on('error', ignore)
      arrived.push(conn)
      wake?.()
    }
    const onClose = () => wake?.()
    this.on('connection', onConnection).on('close', onClose)
    try {
      while (true) {
        const conn = arrived.shift()
        if (conn !== undefined) {
          if (conn.destroyed) continue
          conn.off('error', ignore)
          yield conn
        } else if (this.#closing !== undefined) return
        else await new Promise<void>((resolve) => (wake = resolve))
      }
    } finally {
      this.off('connection', onConnection).off('close', onClose)
      if (this.#closing === undefined) this.#waiting.push(...arrived)
      else for (const conn of arrived) conn.destroy()
      this.#handOver()
    }
  }

  #refusal(): RefusedConnection['reason'] | undefined {
    if (this.#closing !== undefined) return 'closed'
    if (this.#open.size >= this.maxConnections) return 'maxConnections'
    if (this.listenerCount('connection') === 0 && this.#waiting.length >= this.#backlog) return 'backlog'
    return undefined
  }

  #accept(channel: Channel, options: ConnOptions): void {
    const conn = new FakeTcpConn(channel, this.#arena, options)
    this.#open.add(conn)
    if (channels.connOpen.hasSubscribers) channels.connOpen.publish({ conn })
    conn.once('close', () => this.#open.delete(conn))
    // Announced first, then messages flow: a handler that attaches 'data' at once misses nothing.
    try {
      if (this.listenerCount('connection') > 0) this.emit('connection', conn)
      else this.#wait(conn)
    } finally {
      FakeTcpConn.start(conn)
    }
  }

  /** Nobody is there yet: the connection's own queue keeps what arrives, and an error of it is nobody's. */
  #wait(conn: FakeTcpConn): void {
    conn.on('error', ignore)
    this.#waiting.push(conn)
    conn.once('close', () => {
      const at = this.#waiting.indexOf(conn)
      if (at >= 0) this.#waiting.splice(at, 1)
    })
  }

  #handOver(): void {
    while (this.listenerCount('connection') > 0) {
      const conn = this.#waiting.shift()
      if (conn === undefined) return
      if (conn.destroyed) continue
      conn.off('error', ignore)
      guarded(() => this.emit('connection', conn))
    }
  }
}

/** Stands in for the owner of a connection that nobody has taken yet. */
function ignore(): void {}
