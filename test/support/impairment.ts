// An impaired link between two hosts: a process in between loses, doubles, delays, reorders and slows down frames as it is told (impair.cc, which
// also says what it leaves alone). Each direction has its own settings, a seed decides all that is left to chance, and every frame is accounted for.
// A cut cable is `loss: 1` both ways. It knows nothing of the library.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { compile, type Helper } from '../native/compile.ts'
import { type Host, type Interface, type Network, nextName } from './hosts.ts'

/** Of one direction; what is not named stays as it is, at the start 0 unless told. Loss, duplication and reordering are probabilities. */
export interface Impairments {
  readonly loss?: number
  readonly duplicate?: number
  /** These frames take `reorderMs` longer, so that those behind overtake them. */
  readonly reorder?: number
  /** 1 at the start. */
  readonly reorderMs?: number
  /** The three above concern TCP segments with payload only: handshake, pure ACKs and FINs pass. Not so at the start. */
  readonly payloadOnly?: boolean
  readonly delayMs?: number
  /** Of whole frames; 0 is no limit. */
  readonly bitsPerSecond?: number
  /** Bytes that may wait at that rate; what exceeds them is dropped. 256 KiB at the start. */
  readonly queueBytes?: number
  /** Bytes that pass at once after a pause. 16 KiB at the start. */
  readonly burstBytes?: number
}

export type Way = 'aToB' | 'bToA'

export interface ImpairmentOptions extends Partial<Record<Way, Impairments>> {
  /** 1 unless told. */
  readonly seed?: number
  /** 1500 unless told. */
  readonly mtu?: number
}

/** Which TCP segments a rule drops. Flags that are not named may be either. */
export interface Match {
  readonly syn?: boolean
  readonly ack?: boolean
  readonly fin?: boolean
  readonly rst?: boolean
  readonly payload?: boolean
  /** So many pass first; none unless told. */
  readonly skip?: number
  /** So many are dropped then; all unless told. */
  readonly count?: number
}

/** received + duplicated = forwarded + waiting + everything dropped but `overflow`. */
export interface Counts {
  readonly received: number
  readonly forwarded: number
  readonly duplicated: number
  readonly reordered: number
  readonly waiting: number
  readonly dropped: {
    /** By chance. */
    readonly loss: number
    /** By `drop()`. */
    readonly rule: number
    /** Of the rate limit, or of all that may wait. */
    readonly queue: number
    /** The receiving end was down. */
    readonly refused: number
  }
}

export interface WayStats {
  readonly all: Counts
  /** TCP segments with payload. */
  readonly payload: Counts
  /** Frames that the sending end's device has dropped because the link was too slow to take them: they are in no other count. */
  readonly overflow: number
}

const FLAGS = { fin: 0x01, syn: 0x02, rst: 0x04, ack: 0x10 } as const
const WAYS: readonly Way[] = ['aToB', 'bToA']
/** Frames that a device keeps until the process has read them: 0.1 s at its highest rate. */
const DEVICE_QUEUE = '20000'
const SOURCE = fileURLToPath(new URL('impair.cc', import.meta.url))
let program: Helper | undefined

/** Joins two hosts as `network.link` does, by a link that can be impaired. It goes with the network. */
export async function impairedLink(network: Network, a: Host, b: Host, options: ImpairmentOptions = {}): Promise<Impairment> {
  if (program === undefined) {
    program = compile([SOURCE])
    process.once('exit', () => program?.[Symbol.dispose]())
  }
  const { seed = 1, mtu = 1500 } = options
  const names = [nextName(a), nextName(b)]
  const args = [`/run/netns/${a.netns}`, names[0], `/run/netns/${b.netns}`, names[1], String(mtu), String(seed)]
  const child = a.spawn(program.path, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  const impairment = new Impairment(child, [a, b], names)
  await impairment.begun()
  for (const [i, host] of [a, b].entries()) {
    await host.output('ip', ['link', 'set', names[i], 'mtu', String(mtu), 'txqueuelen', DEVICE_QUEUE])
  }
  impairment.ends = await network.join(a, b)
  for (const way of WAYS) {
    const settings = options[way]
    if (settings !== undefined) await impairment.set(way, settings)
  }
  return impairment
}

export class Impairment {
  /** The hosts' interfaces. */
  ends!: readonly [Interface, Interface]
  readonly #child: ChildProcess
  readonly #hosts: readonly [Host, Host]
  readonly #names: readonly string[]
  readonly #answers: AsyncIterator<string>
  #stderr = ''

  constructor(child: ChildProcess, hosts: readonly [Host, Host], names: readonly string[]) {
    this.#child = child
    this.#hosts = hosts
    this.#names = names
    this.#answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text
    })
  }

  /** Resolves when the devices are there. */
  async begun(): Promise<void> {
    await this.#answer()
  }

  /** Holds for what comes from now on; what waits already keeps its time. */
  async set(way: Way, impairments: Impairments): Promise<void> {
    await this.#ask(`set ${WAYS.indexOf(way)} ${words(impairments)}`)
  }

  /** Sets both directions alike. */
  async setBoth(impairments: Impairments): Promise<void> {
    for (const way of WAYS) await this.set(way, impairments)
  }

  /** Drops some TCP segments, beside whatever chance does. Each call is a rule of its own, at most 16. */
  async drop(way: Way, { payload, skip = 0, count = Number.MAX_SAFE_INTEGER, ...flags }: Match): Promise<void> {
    let [mask, value] = [0, 0]
    for (const [flag, bit] of Object.entries(FLAGS)) {
      const wanted = flags[flag as keyof typeof FLAGS]
      if (wanted !== undefined) mask |= bit
      if (wanted === true) value |= bit
    }
    const rule = { mask, value, payload: payload === undefined ? 0 : payload ? 1 : 2, skip, count }
    await this.#ask(`rule ${WAYS.indexOf(way)} ${words(rule)}`)
  }

  async stats(): Promise<Record<Way, WayStats>> {
    const { directions } = (await this.#ask('stats')) as { directions: Omit<WayStats, 'overflow'>[] }
    const of = async (i: number): Promise<WayStats> => ({ ...directions[i], overflow: await this.#overflow(i) })
    return { aToB: await of(0), bToA: await of(1) }
  }

  async #overflow(i: number): Promise<number> {
    const text = await this.#hosts[i].output('ip', ['-s', '-j', 'link', 'show', this.#names[i]])
    const [link] = JSON.parse(text) as [{ stats64: { tx: { dropped: number } } }]
    return link.stats64.tx.dropped
  }

  /** Answers come in the order of the commands. */
  #ask(command: string): Promise<unknown> {
    this.#child.stdin!.write(`${command}\n`)
    return this.#answer()
  }

  async #answer(): Promise<unknown> {
    const { value, done } = await this.#answers.next()
    if (done) {
      if (this.#child.exitCode === null && this.#child.signalCode === null) await once(this.#child, 'close')
      throw new Error(`The impaired link ended: ${this.#stderr}`)
    }
    const answer = JSON.parse(value) as { error?: string }
    if (answer.error !== undefined) throw new Error(`The impaired link refused a command: ${answer.error}`)
    return answer
  }
}

function words(numbers: Readonly<Record<string, number | boolean>> | Impairments): string {
  return Object.entries(numbers)
    .map(([key, value]) => `${key}=${Number(value)}`)
    .join(' ')
}
