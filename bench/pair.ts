// Two processes of one contender, one in each host, connected and warm: what the bench holds while it measures.
import { join } from 'node:path'
import type { Agent } from '../test/support/agent.ts'
import type { Host } from '../test/support/hosts.ts'
import type * as Role from './role.ts'
import type { ContenderName, Received, RoundTrips, Sent } from './role.ts'

export interface PairOptions {
  /** Directory for the V8 profiles of both processes. */
  readonly profiles?: string
  readonly warmUpMs: number
  readonly warmUpSizes: readonly number[]
}

/** What both ends say of one burst of load. */
export interface Flow {
  readonly sent: Sent
  readonly received: Received
}

type Methods = { [K in keyof typeof Role]: (typeof Role)[K] }

const ROLE = new URL('role.ts', import.meta.url).href
const TSX = import.meta.resolve('tsx')

export class Pair {
  readonly name: ContenderName
  readonly #sender: Agent
  readonly #receiver: Agent
  readonly #profiles: string | undefined

  private constructor(name: ContenderName, sender: Agent, receiver: Agent, profiles: string | undefined) {
    this.name = name
    this.#sender = sender
    this.#receiver = receiver
    this.#profiles = profiles
  }

  static async open(name: ContenderName, a: Host, b: Host, { profiles, warmUpMs, warmUpSizes }: PairOptions): Promise<Pair> {
    const nodeArgs = ['--import', TSX]
    const [sender, receiver] = await Promise.all([a.agent({ nodeArgs }), b.agent({ nodeArgs })])
    const pair = new Pair(name, sender, receiver, profiles)
    const port = await call(receiver, 'listen', { name, address: b.address4 })
    await Promise.all([call(sender, 'connect', { name, address: b.address4, port }), call(receiver, 'accepted')])
    // Compilers first, figures later.
    for (const size of warmUpSizes) {
      await pair.blast(size, warmUpMs)
      await pair.pingPong(size, warmUpMs)
    }
    if (profiles !== undefined) await Promise.all([call(sender, 'startProfile'), call(receiver, 'startProfile')])
    return pair
  }

  blast(size: number, ms: number): Promise<Flow> {
    return this.#count(size, () => call(this.#sender, 'blast', { size, ms }))
  }

  pace(size: number, ms: number, rate: number): Promise<Flow> {
    return this.#count(size, () => call(this.#sender, 'pace', { size, ms, rate }))
  }

  async pingPong(size: number, ms: number): Promise<RoundTrips> {
    await call(this.#receiver, 'echo')
    return await call(this.#sender, 'pingPong', { size, ms })
  }

  /** What the receiver tells of itself. */
  facts(): Promise<Record<string, string | number>> {
    return call(this.#receiver, 'facts')
  }

  async close(): Promise<void> {
    if (this.#profiles !== undefined) {
      for (const end of ['sender', 'receiver'] as const) {
        const file = join(this.#profiles, `${this.name}-${end}.cpuprofile`)
        await call(end === 'sender' ? this.#sender : this.#receiver, 'writeProfile', { file })
      }
    }
    await call(this.#sender, 'close')
    await call(this.#receiver, 'close')
    await Promise.all([this.#sender.close(), this.#receiver.close()])
  }

  async #count(size: number, load: () => Promise<Sent>): Promise<Flow> {
    await call(this.#receiver, 'startCounting', { size })
    const sent = await load()
    return { sent, received: await call(this.#receiver, 'stopCounting') }
  }
}

function call<K extends keyof Methods>(agent: Agent, method: K, ...args: Parameters<Methods[K]>): Promise<Awaited<ReturnType<Methods[K]>>> {
  const run = agent.run(
    async (ctx, { role, name, argument }) => {
      const module = await ctx.import<Record<string, (argument: unknown) => unknown>>(role)
      return await module[name](argument)
    },
    { role: ROLE, name: method as string, argument: args[0] as unknown },
  )
  return run as Promise<Awaited<ReturnType<Methods[K]>>>
}
