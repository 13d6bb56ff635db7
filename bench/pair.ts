// Two processes of one contender, one in each host, connected and warm: what the bench holds while it measures.
import { join } from 'node:path'
import type { Agent } from '../test/support/agent.ts'
import type { Host } from '../test/support/hosts.ts'
import type { Received } from './counting.ts'
import type { Trial } from './ladder.ts'
import type { RoundTrips } from './ping-pong.ts'
import type * as Role from './role.ts'
import type { Sent } from './sending.ts'
import { type NodeSpec, nameOf } from './specs.ts'

/** An address that is listened at. */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

export interface PairOptions {
  readonly flows: number
  /** Directory for the V8 profiles of both processes. */
  readonly profiles?: string
  readonly warmUpMs: number
  readonly warmUpSizes: readonly number[]
  /** Puts something between the two: gets where the receiver listens (on its loopback then), returns where the sender connects to. */
  readonly tunnel?: (target: Endpoint) => Promise<Endpoint>
}

/** What both ends say of one load. */
export interface Load {
  readonly sent: Sent
  readonly received: Received
}

/** It cannot be measured here, which is no fault of the bench. */
export class Unavailable extends Error {}

type Methods = { [K in keyof typeof Role]: (typeof Role)[K] }

const ROLE = new URL('role.ts', import.meta.url).href
const TSX = import.meta.resolve('tsx')

export class Pair {
  readonly #spec: NodeSpec
  readonly #sender: Agent
  readonly #receiver: Agent
  readonly #profiles: string | undefined

  private constructor(spec: NodeSpec, sender: Agent, receiver: Agent, profiles: string | undefined) {
    this.#spec = spec
    this.#sender = sender
    this.#receiver = receiver
    this.#profiles = profiles
  }

  /** @throws Unavailable where this machine lacks what is asked for */
  static async open(spec: NodeSpec, a: Host, b: Host, options: PairOptions): Promise<Pair> {
    const nodeArgs = ['--import', TSX]
    const [sender, receiver] = await Promise.all([a.agent({ nodeArgs }), b.agent({ nodeArgs })])
    const pair = new Pair(spec, sender, receiver, options.profiles)
    try {
      await pair.#begin(b, options)
      return pair
    } catch (error) {
      await Promise.allSettled([sender.close(), receiver.close()])
      throw error
    }
  }

  async #begin(b: Host, { flows, profiles, warmUpMs, warmUpSizes, tunnel }: PairOptions): Promise<void> {
    const [sender, receiver, spec] = [this.#sender, this.#receiver, this.#spec]
    const address = tunnel === undefined ? b.address4 : '127.0.0.1'
    const target = { address, port: await call(receiver, 'listen', { spec, address, flows }) }
    const to = tunnel === undefined ? target : await tunnel(target)
    await Promise.all([call(sender, 'connect', { spec, ...to, flows }), call(receiver, 'accepted')])
    // Compilers first, figures later.
    for (const size of warmUpSizes) {
      await this.blast(size, warmUpMs)
      if (flows === 1) await this.pingPong(size, warmUpMs)
    }
    await this.checkLink()
    if (profiles !== undefined) await Promise.all([call(sender, 'startProfile'), call(receiver, 'startProfile')])
  }

  /**
   * What fell back to another link, on any flow, must not be shown under this one's name.
   *
   * @throws Unavailable
   */
  async checkLink(): Promise<void> {
    if (this.#spec.is !== 'faketcp' || this.#spec.link === 'auto') return
    const wanted = this.#spec.link
    const other = (await call(this.#sender, 'links')).find((link) => link !== wanted)
    if (other !== undefined) throw new Unavailable(`it sends by '${other}' here though '${wanted}' was asked for`)
  }

  blast(size: number, ms: number): Promise<Load> {
    return this.#count(size, () => call(this.#sender, 'blast', { size, ms }))
  }

  /** `rate`: messages per second over all flows. */
  pace(size: number, ms: number, rate: number): Promise<Load> {
    return this.#count(size, () => call(this.#sender, 'pace', { size, ms, rate }))
  }

  /** On the first flow. */
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
      const name = nameOf(this.#spec).replaceAll(' ', '-')
      await call(this.#sender, 'writeProfile', { file: join(this.#profiles, `${name}-sender.cpuprofile`) })
      await call(this.#receiver, 'writeProfile', { file: join(this.#profiles, `${name}-receiver.cpuprofile`) })
    }
    await call(this.#sender, 'close')
    await call(this.#receiver, 'close')
    await Promise.all([this.#sender.close(), this.#receiver.close()])
  }

  async #count(size: number, load: () => Promise<Sent>): Promise<Load> {
    await call(this.#receiver, 'startCounting', { size })
    const sent = await load()
    return { sent, received: await call(this.#receiver, 'stopCounting') }
  }
}

export function trialOf({ sent, received }: Load): Trial {
  return {
    offeredPerSecond: sent.messages / sent.seconds,
    deliveredPerSecond: received.messagesPerSecond,
    // Never negative, as a stream may have bytes of the warm-up to count.
    loss: sent.messages === 0 ? 0 : Math.max(0, 1 - received.messages / sent.messages),
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
