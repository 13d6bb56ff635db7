// Servers that share a port, in threads of one process or in processes, and clients that tell which of them served what. Each server answers a
// message with `<index> <message>`.
import type { ListenerStats, ListenOptions, ShardStats } from '../../lib/index.ts'
import type { Agent, AgentOptions } from '../support/agent.ts'
import type { Host } from '../support/hosts.ts'
import { descriptors } from '../support/leaks.ts'

export const SHARDED_PORT = 9191
const LIBRARY = new URL('../../dist/index.js', import.meta.url).href

export type ShardListenOptions = Omit<ListenOptions, 'signal' | 'table' | 'shard'>
export interface Figures extends Pick<ListenerStats, 'accepted' | 'refused' | 'orphans'> {
  readonly shard: ShardStats
}

/** What both kinds of servers run, as source: a worker has no other way to get it. */
const SERVE = `export default async ({ listen }, options) => {
  const listener = await listen(options)
  const { index } = options.shard
  listener.on('connection', (conn) => {
    conn.on('error', () => {})
    conn.on('data', (message) => conn.write(index + ' ' + message))
  })
  return {
    figures: () => {
      const { accepted, refused, orphans, shard } = listener.stats[0]
      const { index, count, steered, handedOver, takenOver, strays, exceptions, wholeShards } = shard
      return { accepted, refused, orphans, shard: { index, count, steered, handedOver, takenOver, strays, exceptions, wholeShards } }
    },
    close: () => listener.close({ connections: true }),
  }
}`

const WORKER = `
  import { parentPort, workerData } from 'node:worker_threads'
  const faketcp = await import(workerData.library)
  const table = workerData.table && faketcp.FlowTable.attach(workerData.table)
  const { default: serve } = await import(workerData.serve)
  const server = await serve(faketcp, { ...workerData.options, table })
  parentPort.on('message', async (ask) => {
    if (ask === 'figures') parentPort.postMessage(server.figures())
    else {
      await server.close()
      parentPort.close()
    }
  })
  parentPort.postMessage('listening')
`

async function socketsOf(pid: number): Promise<number> {
  return (await descriptors(pid)).filter((name) => name.startsWith('socket:')).length
}

function moduleOf(source: string): string {
  return `data:text/javascript,${encodeURIComponent(source)}`
}

/** Shards of one port, whatever they run in. */
export interface Shards {
  /** Sockets that a shard's process has open. */
  sockets(index: number): Promise<number>
  /** Starts a shard, the first time or again. */
  start(index: number): Promise<void>
  /** Ends it as abruptly as it can be ended. */
  kill(index: number): Promise<void>
  figures(index: number): Promise<Figures>
}

/** Worker threads of one process that share a flow table. */
export async function threads(host: Host, count: number, options: ShardListenOptions): Promise<Shards> {
  const agent = await host.agent()
  await agent.run((ctx) => {
    ctx.state.workers = []
    ctx.state.table = ctx.faketcp.createFlowTable({ capacity: 4096 })
  })
  return {
    start: (index) =>
      agent.run(
        async (ctx, { index, worker, ...workerData }) => {
          const { Worker } = await ctx.import<typeof import('node:worker_threads')>('node:worker_threads')
          const one = new Worker(new URL(worker), { workerData: { ...workerData, table: ctx.state.table.handle } })
          ctx.state.workers[index] = one
          await new Promise((resolve, reject) => one.once('message', resolve).once('error', reject))
        },
        { index, worker: moduleOf(WORKER), serve: moduleOf(SERVE), library: LIBRARY, options: { ...options, shard: { index, count } } },
      ),
    kill: (index) => agent.run((ctx, index) => ctx.state.workers[index].terminate(), index),
    sockets: () => socketsOf(agent.pid),
    figures: (index) =>
      agent.run(
        (ctx, index) =>
          new Promise<Figures>((resolve) => {
            ctx.state.workers[index].once('message', resolve)
            ctx.state.workers[index].postMessage('figures')
          }),
        index,
      ),
  }
}

/** Processes that share nothing. */
export async function processes(host: Host, count: number, options: ShardListenOptions, how?: AgentOptions): Promise<Shards> {
  const agents: Agent[] = []
  return {
    async start(index) {
      agents[index] = await host.agent(how)
      await agents[index].run(
        async (ctx, { serve, options }) => {
          const module = await ctx.import<{ default: (library: unknown, options: object) => Promise<unknown> }>(serve)
          ctx.state.server = await module.default(ctx.faketcp, options)
        },
        { serve: moduleOf(SERVE), options: { ...options, shard: { index, count } } },
      )
    },
    kill: async (index) => void (await agents[index].kill('SIGKILL')),
    sockets: (index) => socketsOf(agents[index].pid),
    figures: (index) => agents[index].run<Figures>((ctx) => ctx.state.server.figures()),
  }
}

export interface ClientEnd {
  readonly host: string
  readonly port: number
  readonly localAddress?: string
  readonly localPort?: number
  readonly dialect?: 'native' | 'tcpraw'
}

/** Connections that stay open, on one agent. */
export class Clients {
  readonly agent: Agent

  private constructor(agent: Agent) {
    this.agent = agent
  }

  static async on(host: Host): Promise<Clients> {
    const agent = await host.agent()
    await agent.run((ctx) => {
      const { state } = ctx
      state.conns = []
      /** Says something on a connection and waits for the answer; once, or again and again until it comes. */
      state.ask = async (at: number, text: string, once: boolean): Promise<number> => {
        const { conn, answers } = state.conns[at]
        for (let i = 0; i < 100; i++) {
          if (i === 0 || (!once && i % 4 === 0)) conn.write(`${text}/${i}`)
          const answer = answers.find((one: string) => one.includes(`${text}/`))
          if (answer !== undefined) return Number.parseInt(answer, 10)
          if (conn.destroyed) throw new Error(`connection ${at} is gone: ${state.conns[at].error}`)
          await new Promise((resolve) => setTimeout(resolve, 50))
        }
        throw new Error(`no answer on connection ${at} from port ${conn.localPort}`)
      }
    })
    return new Clients(agent)
  }

  /**
   * Dials them all, says one thing on each, and returns the index of the shard that answered (NaN from a plain echo).
   *
   * @param once whether the first message must get through; a connection whose handshake nobody captured may lose the first ones
   */
  dial(ends: readonly ClientEnd[], { once = true } = {}): Promise<number[]> {
    return this.agent.run(
      async (ctx, { ends, once }) => {
        const { state } = ctx
        const dialOne = async (end: ClientEnd): Promise<number> => {
          const conn = await ctx.faketcp.dial(end)
          const at = state.conns.push({ conn, answers: [], error: undefined }) - 1
          conn.on('data', (answer) => state.conns[at].answers.push(String(answer)))
          conn.on('error', (error) => {
            state.conns[at].error = error.message
          })
          return state.ask(at, 'hello', once)
        }
        const shards: number[] = []
        let next = 0
        const lane = async () => {
          for (let i = next++; i < ends.length; i = next++) shards[i] = await dialOne(ends[i])
        }
        await Promise.all(Array.from({ length: 40 }, lane))
        return shards
      },
      { ends, once },
    )
  }

  /**
   * Dials and closes again and again, from ever new ports, until told to stop: each connection has to be served in the end, but one that a shard's death
   * takes with it may have to be dialled anew.
   *
   * @returns a function that stops it, and resolves with how many were served and how many dialled anew
   */
  async storm(end: ClientEnd): Promise<() => Promise<{ served: number; again: number }>> {
    await this.agent.run((ctx, end) => {
      const { state } = ctx
      state.storming = true
      const result = { served: 0, again: 0 }
      let port = 20_000
      const serve = async (): Promise<void> => {
        for (let tries = 0; ; tries++) {
          port += 2
          try {
            const conn = await ctx.faketcp.dial({ ...end, localPort: port })
            const at = state.conns.push({ conn, answers: [], error: undefined }) - 1
            conn.on('data', (answer) => state.conns[at].answers.push(String(answer)))
            conn.on('error', (error) => {
              state.conns[at].error = error.message
            })
            await state.ask(at, 'storm', false)
            await conn.close()
            result.served++
            return
          } catch (error) {
            if (tries === 3) throw error
            result.again++
          }
        }
      }
      const lane = async () => {
        while (state.storming) await serve()
      }
      state.storm = Promise.all(Array.from({ length: 10 }, lane)).then(() => result)
      state.storm.catch(() => {}) // told by who awaits it
    }, end)
    return () =>
      this.agent.run((ctx) => {
        ctx.state.storming = false
        return ctx.state.storm
      })
  }

  /** Says something on connections that are open, in the order of dialling; returns who answered. */
  ask(which: readonly number[], text: string): Promise<number[]> {
    return this.agent.run((ctx, { which, text }) => Promise.all(which.map((at) => ctx.state.ask(at, text, true) as Promise<number>)), {
      which,
      text,
    })
  }

  /** Answers that came more than once, over all connections. */
  duplicates(): Promise<string[]> {
    return this.agent.run((ctx) => {
      const conns: { answers: string[] }[] = ctx.state.conns
      return conns.flatMap(({ answers }, at) => answers.filter((one, i) => answers.indexOf(one) !== i).map((one) => `${at}: ${one}`))
    })
  }

  /** Connections that have ended. */
  gone(): Promise<number[]> {
    return this.agent.run((ctx) => {
      const conns: { conn: { destroyed: boolean } }[] = ctx.state.conns
      return conns.flatMap(({ conn }, at) => (conn.destroyed ? [at] : []))
    })
  }

  async closeAll(): Promise<void> {
    await this.agent.run(async (ctx) => {
      const conns: { conn: { close(): Promise<void> } }[] = ctx.state.conns
      await Promise.all(conns.map(({ conn }) => conn.close().catch(() => {})))
    })
  }
}

/** Figures of several shards, added up. */
export async function figuresOf(shards: Shards, indexes: readonly number[]) {
  const all = await Promise.all(indexes.map((index) => shards.figures(index)))
  const sum = (pick: (figures: (typeof all)[number]) => number) => all.reduce((total, one) => total + pick(one), 0)
  return {
    accepted: sum((one) => one.accepted),
    refused: sum((one) => one.refused),
    handedOver: sum((one) => one.shard.handedOver),
    takenOver: sum((one) => one.shard.takenOver),
    strays: sum((one) => one.shard.strays),
    exceptions: sum((one) => one.shard.exceptions),
    wholeShards: sum((one) => one.shard.wholeShards),
    steered: all.every((one) => one.shard.steered),
  }
}

/** How many each shard served. */
export function sharesOf(served: readonly number[], count: number): number[] {
  return Array.from({ length: count }, (_, index) => served.filter((one) => one === index).length)
}

/** Even ports, as Linux clients use them. */
export const portsFrom = (first: number, count: number, host: string): ClientEnd[] =>
  Array.from({ length: count }, (_, i) => ({ host, port: SHARDED_PORT, localPort: first + i * 2 }))
