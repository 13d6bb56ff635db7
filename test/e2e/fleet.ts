// A fleet behind a balancer, and a client with many connections to it. Every connection sends numbered messages for as long as it lives, each server answers with its
// name and its own count, and a connection that its server has lost is dialled anew. So whoever read the accounts afterwards knows which server had which
// connection, whether it had all of it, and what became of every message.
import type { Agent, AgentContext } from '../support/agent.ts'
import type { Host } from '../support/hosts.ts'

export const PORT = 9191

/** What became of one of the client's connections. */
export interface Account {
  /** Which servers answered; of a connection that is whole, one. */
  readonly servers: string[]
  readonly sent: number
  readonly echoed: number
  /** Answers that came twice, or to nothing. */
  readonly wrong: number
  /** The server's count of this connection's messages. */
  readonly counted: number
  /** Codes of its errors. */
  readonly ends: string[]
}

export class Server {
  readonly host: Host
  readonly agent: Agent

  private constructor(host: Host, agent: Agent) {
    this.host = host
    this.agent = agent
  }

  /** @param name what it answers with */
  static async on(host: Host, name: string): Promise<Server> {
    const agent = await host.agent()
    await agent.run(serve, { name, port: PORT })
    return new Server(host, agent)
  }

  /** Connections accepted, and packets that belonged to none. */
  stats(): Promise<{ accepted: number; orphans: number }> {
    return this.agent.run((ctx) => {
      const [{ accepted, orphans, rejected }] = ctx.state.listener.stats
      return { accepted, orphans: orphans + rejected.orphan }
    })
  }
}

export class Client {
  readonly agent: Agent

  private constructor(agent: Agent) {
    this.agent = agent
  }

  static async on(host: Host): Promise<Client> {
    const agent = await host.agent()
    await agent.run(install)
    return new Client(agent)
  }

  /** Opens so many connections more, which begin to send. */
  dial(to: { host: string; count: number; localAddresses?: readonly string[] }): Promise<void> {
    return this.agent.run((ctx, to) => ctx.state.dial(to), { port: PORT, localAddresses: [], ...to })
  }

  /** Of all connections ever made, in the order in which they were. */
  accounts(): Promise<Account[]> {
    return this.agent.run((ctx) => ctx.state.accounts())
  }

  /** Nothing new is sent from here on. */
  stop(): Promise<void> {
    return this.agent.run((ctx) => ctx.state.stop())
  }
}

async function serve(ctx: AgentContext, { name, port }: { name: string; port: number }): Promise<void> {
  const listener = await ctx.faketcp.listen({ host: '::', port, backlog: 1024 })
  ctx.state.listener = listener
  listener.on('connection', (conn) => {
    let count = 0
    conn.on('error', () => {}).on('data', (message) => conn.write(`${name} ${++count} ${message}`))
  })
}

function install({ faketcp, state, emit }: AgentContext): void {
  interface Open {
    conn: import('../../lib/index.ts').FakeTcpConn
    account: { servers: Set<string>; sent: number; echoed: number; wrong: number; counted: number; ends: string[] }
    underWay: Set<string>
  }
  interface To {
    host: string
    port: number
    localAddress?: string
  }
  const all: Open[] = []
  const live = new Set<Open>()

  const open = async (to: To) => {
    const conn = await faketcp.dial(to)
    const account = { servers: new Set<string>(), sent: 0, echoed: 0, wrong: 0, counted: 0, ends: [] as string[] }
    const one: Open = { conn, account, underWay: new Set() }
    all.push(one)
    live.add(one)
    conn.on('data', (message) => {
      const [server, count, number] = message.toString().split(' ')
      account.servers.add(server)
      account.counted = Math.max(account.counted, Number(count))
      if (one.underWay.delete(number)) account.echoed++
      else account.wrong++
    })
    conn.on('error', (error) => account.ends.push((error as NodeJS.ErrnoException).code ?? error.message))
    conn.on('close', () => {
      live.delete(one)
      open(to).catch((error) => emit('redial failed', String(error)))
    })
  }

  const timer = setInterval(() => {
    for (const { conn, account, underWay } of live) {
      const number = String(account.sent++)
      underWay.add(number)
      conn.write(number)
    }
  }, 100)

  state.dial = async ({ count, localAddresses, ...to }: { host: string; port: number; count: number; localAddresses: string[] }) => {
    const localAddress = (i: number) => (localAddresses.length > 0 ? { localAddress: localAddresses[i % localAddresses.length] } : {})
    await Promise.all(Array.from({ length: count }, (_, i) => open({ ...to, ...localAddress(i) })))
  }
  state.stop = () => clearInterval(timer)
  state.accounts = () => all.map(({ account }) => ({ ...account, servers: [...account.servers] }))
}
