// A peer: an agent that dials and listens with the library and tells the test what happens to its connections. Tests speak of connections by
// number, in the order in which the peer got them.
import type {
  CloseReason,
  ConnStats,
  DialOptions,
  Drop,
  Family,
  ListenAddress,
  ListenerStats,
  ListenOptions,
  MtuChange,
} from '../../lib/index.ts'
import type { UdpDialOptions, UdpListenOptions } from '../../lib/udp/index.ts'
import type { Agent, AgentContext, AgentOptions, RemoteError } from '../support/agent.ts'
import type { Host } from '../support/hosts.ts'

/** Options that can cross to another process. */
export type PeerListenOptions = Omit<ListenOptions & UdpListenOptions, 'signal' | 'table'> & {
  readonly echo?: boolean
  readonly capacity?: number
}
export type PeerDialOptions = Omit<DialOptions & UdpDialOptions, 'signal' | 'table'> & {
  readonly echo?: boolean
  readonly capacity?: number
}

export interface ConnInfo {
  readonly id: number
  readonly family: Family
  readonly localAddress: string
  readonly localPort: number
  readonly remoteAddress: string
  readonly remotePort: number
  readonly maxMessageSize: number
}

export interface Message {
  readonly id: number
  readonly text: string
}

export interface Closed {
  readonly id: number
  /** Code of the connection's error; undefined when it ended in good order. */
  readonly code: string | undefined
}

/** What a peer emits; `peer.next(name)` takes it. */
interface PeerEvents {
  /** A listener's connection. */
  connection: ConnInfo
  message: Message
  /** The other side has ended. */
  end: number
  closed: Closed
  drop: Drop & { readonly id: number }
  mtu: MtuChange & { readonly id: number }
  refused: { readonly reason: string; readonly remotePort: number }
}

export class Peer implements AsyncDisposable {
  readonly agent: Agent

  constructor(agent: Agent) {
    this.agent = agent
  }

  static async on(host: Host, options?: AgentOptions): Promise<Peer> {
    const peer = new Peer(await host.agent(options))
    await peer.agent.run(install)
    return peer
  }

  get pid(): number {
    return this.agent.pid
  }

  /** With `echo`, messages go back and are not told. */
  listen(options: PeerListenOptions): Promise<ListenAddress> {
    return this.agent.run((ctx, options) => ctx.state.listen(options), options)
  }

  dial(options: PeerDialOptions): Promise<ConnInfo> {
    return this.agent.run((ctx, options) => ctx.state.dial(options), options)
  }

  /** The error that a dial ends with. */
  async dialError(options: PeerDialOptions): Promise<RemoteError> {
    try {
      await this.dial(options)
    } catch (error) {
      return error as RemoteError
    }
    throw new Error('The dial succeeded')
  }

  /** Dials where it is refused by a reset: which comes before the dial has settled, or after. Over UDP always before: then it is a refusal. */
  async dialRefused(options: PeerDialOptions): Promise<void> {
    const code = await this.dial(options).then(
      async ({ id }) => {
        const closed = await this.next('closed')
        return closed.id === id ? closed.code : `${closed.id} closed in its stead`
      },
      (error: RemoteError) => error.code,
    )
    if (code !== 'ECONNRESET' && code !== 'ECONNREFUSED') throw new Error(`ECONNRESET was expected, got ${code}`)
  }

  async listenError(options: PeerListenOptions): Promise<RemoteError> {
    try {
      await this.listen(options)
    } catch (error) {
      return error as RemoteError
    }
    throw new Error('The listen succeeded')
  }

  /** Writes in one tick. */
  async write(id: number, ...messages: (string | Uint8Array)[]): Promise<void> {
    await this.agent.run(
      (ctx, { id, messages }) => {
        for (const message of messages) ctx.state.conns[id].write(message)
      },
      { id, messages },
    )
  }

  /** Resolves when the connection is gone. */
  async close(id: number, why?: Partial<CloseReason>): Promise<void> {
    await this.agent.run((ctx, { id, why }) => ctx.state.conns[id].close(why), { id, why })
  }

  closeReason(id: number): Promise<CloseReason | undefined> {
    return this.agent.run((ctx, id) => ctx.state.conns[id].closeReason, id)
  }

  async destroy(id: number): Promise<void> {
    await this.agent.run((ctx, id) => {
      ctx.state.conns[id].destroy()
    }, id)
  }

  async closeListener(options: { connections?: boolean } = {}): Promise<void> {
    await this.agent.run((ctx, options) => ctx.state.listener.close(options), options)
  }

  stats(id: number): Promise<ConnStats> {
    return this.agent.run((ctx, id) => {
      const { figures, conns } = ctx.state
      const { stats } = conns[id]
      return { ...figures(stats), framing: stats.framing && figures(stats.framing) }
    }, id)
  }

  listenerStats(): Promise<ListenerStats> {
    return this.agent.run((ctx) => ctx.state.figures(ctx.state.listener.stats[0]))
  }

  /** Flows in the table, those in timeWait too. */
  flows(): Promise<number> {
    return this.agent.run((ctx) => ctx.state.table?.size ?? 0)
  }

  next<K extends keyof PeerEvents>(event: K): Promise<PeerEvents[K]> {
    return this.agent.next<PeerEvents[K]>(event)
  }

  /** What keeps this process alive, the agent's own connection to the test left out. */
  activeResources(): Promise<string[]> {
    return this.agent.run(() =>
      process
        .getActiveResourcesInfo()
        .filter((name) => name !== 'PipeWrap' && name !== 'Pipe')
        .sort(),
    )
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.agent.close()
  }

  /** Leaves the process to itself: it exits once nothing of the library keeps it. `agent.exit` tells. */
  async letGo(): Promise<void> {
    await this.agent.run(() => {
      setImmediate(() => process.channel?.unref())
    })
  }
}

function install(ctx: AgentContext): void {
  type Conn = import('../../lib/index.ts').FakeTcpConn
  const { state } = ctx
  state.conns = []

  /** Statistics as plain values: their getters do not cross to another process. */
  state.figures = (stats: object): Record<string, unknown> => {
    const values: Record<string, unknown> = { ...stats }
    for (let from = Object.getPrototypeOf(stats); from !== Object.prototype; from = Object.getPrototypeOf(from)) {
      for (const [name, { get }] of Object.entries(Object.getOwnPropertyDescriptors(from))) if (get) values[name] = get.call(stats)
    }
    return values
  }

  const take = (conn: Conn, echo: boolean): ConnInfo => {
    const id = state.conns.push(conn) - 1
    let code: string | undefined
    if (echo) {
      conn.on('data', (message) => {
        if (conn.write(message)) return
        conn.pause()
        conn.once('drain', () => conn.resume())
      })
    } else conn.on('data', (message) => ctx.emit('message', { id, text: message.toString() }))
    conn
      .on('end', () => ctx.emit('end', id))
      .on('drop', (drop) => ctx.emit('drop', { id, ...drop }))
      .on('mtu', (change) => ctx.emit('mtu', { id, ...change }))
      .on('error', (error) => {
        code = (error as Error & { code?: string }).code ?? error.message
      })
      .on('close', () => ctx.emit('closed', { id, code }))
    const { family, localAddress, localPort, remoteAddress, remotePort, maxMessageSize } = conn
    return { id, family, localAddress, localPort, remoteAddress, remotePort, maxMessageSize }
  }

  const tableOf = (capacity: number | undefined) => {
    state.table ??= ctx.faketcp.createFlowTable(capacity === undefined ? {} : { capacity })
    return state.table
  }

  state.listen = async ({ echo = false, capacity, ...options }: PeerListenOptions): Promise<ListenAddress | null> => {
    const listener = await ctx.faketcp.listen({ ...options, table: tableOf(capacity) })
    state.listener = listener
    listener.on('connection', (conn) => ctx.emit('connection', take(conn, echo))).on('drop', (refused) => ctx.emit('refused', refused))
    return listener.address()
  }

  state.dial = async ({ echo = false, capacity, ...options }: PeerDialOptions): Promise<ConnInfo> =>
    take(await ctx.faketcp.dial({ ...options, table: tableOf(capacity) }), echo)
}
