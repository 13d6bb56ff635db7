// WireGuard between two hosts with our tunnel in between, set up by the walk-through of docs/tunnel.md, its commands and files as they stand there.
import { createRouted, type Routed, type RoutedOptions } from '../support/router.ts'
import { type Block, blocks } from './guide.ts'
import { Machine } from './machine.ts'
import type { Program } from './programs.ts'

export const TUNNEL_PORT = 4000
/** What `faketcp tunnel` prints when it can be used. */
const READY = /listening/
const SERVER_NAME = 'vpn.example.net'

const STEPS = ['1. The tunnel', "2. WireGuard's keys", "3. WireGuard's configuration"]

type Role = 'client' | 'server'

export interface Change {
  readonly from: RegExp
  readonly to: string
}

/** What arrived, and what its sender had to send again. */
export interface Stream {
  readonly bytes: number
  readonly bitsPerSecond: number
  readonly retransmits: number
}

export class WireGuard implements AsyncDisposable {
  readonly routed: Routed
  readonly client: Machine
  readonly server: Machine
  /** The two ends of the tunnel. */
  readonly ends: Program[] = []
  readonly #changes: readonly Change[]

  private constructor(routed: Routed, client: Machine, server: Machine, changes: readonly Change[]) {
    this.routed = routed
    this.client = client
    this.server = server
    this.#changes = changes
  }

  /** @param changes what is different from the page */
  static async start(changes: readonly Change[] = [], options: RoutedOptions = {}): Promise<WireGuard> {
    const routed = await createRouted(options)
    try {
      const names = { [SERVER_NAME]: routed.server.address4 }
      const made = new WireGuard(routed, await Machine.on(routed.client, names), await Machine.on(routed.server, names), changes)
      for (const step of STEPS) await made.follow(step)
      return made
    } catch (error) {
      await routed[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Does what one section of the page says, top down. */
  async follow(title: string): Promise<void> {
    for (const block of blocks(title)) {
      for (const role of block.machine === 'both' ? (['server', 'client'] as const) : [block.machine as Role]) await this.#do(role, block)
    }
  }

  async #do(role: Role, { path, running, text }: Block): Promise<void> {
    const machine = this[role]
    const said = await this.#words(this.#changes.reduce((all, { from, to }) => all.replaceAll(from, to), text))
    if (path !== undefined) await machine.write(path, said)
    else if (running) this.ends.push(await machine.start(said.trim(), READY))
    else await machine.run(said)
    if (said.includes('faketcp key')) await this.client.write('/etc/faketcp/key', await machine.run('cat /etc/faketcp/key'))
  }

  /** The words in capitals. */
  async #words(text: string): Promise<string> {
    let said = text
    for (const role of ['client', 'server'] as const) {
      const word = `${role.toUpperCase()}_PUBLIC_KEY`
      if (said.includes(word)) said = said.replaceAll(word, (await this[role].run('cat /etc/wireguard/public.key')).trim())
    }
    const { server, inside } = this.routed
    return said.replaceAll('SERVER_ADDRESS', server.address4).replaceAll('GATEWAY_ADDRESS', inside.address4)
  }

  /** Kills the server's end and starts it again. */
  async restartServer(): Promise<void> {
    await this.ends[0].end('SIGKILL')
    const again = blocks(STEPS[0]).find(({ machine, running }) => machine === 'server' && running)!
    this.ends[0] = await this.server.start(again.text.trim(), READY)
  }

  /** A TCP stream through WireGuard by iperf3, for so long. */
  async stream(seconds: number, direction: 'up' | 'down'): Promise<Stream> {
    const server = await this.server.start('iperf3 -s -1 -B 10.9.0.1 --forceflush', /Server listening/)
    const json = await this.client.run(`iperf3 -J -c 10.9.0.1 -t ${seconds} ${direction === 'down' ? '-R' : ''}`)
    await server.end()
    const { sum_sent, sum_received } = JSON.parse(json).end
    return { bytes: sum_received.bytes, bitsPerSecond: sum_received.bits_per_second, retransmits: sum_sent.retransmits }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const end of this.ends) await end.end()
    await this.routed[Symbol.asyncDispose]()
  }
}
