// kcptun between two hosts, in each of the ways that the tests prove and compare.ts measures:
//
//   host a                                                          host b
//   TCP 127.0.0.1:5000 -> kcptun client ... fake TCP 10.77.0.2:9000 ... kcptun server -> TCP 127.0.0.1:6000
//
//   'to us'      client --tcp ........................ our listen -> UDP 127.0.0.1:9001 -> server
//   'from us'    client -> UDP 127.0.0.1:9001 -> our dial ....................... server --tcp
//   'alone'      client --tcp ....................................................server --tcp
//   'tunnel'     client -> UDP 127.0.0.1:9001 -> our tunnel ... -> UDP 127.0.0.1:9001 -> server
//
// --tcp makes the Go library tcpraw carry it. tcpraw drops what its own kernel says by a firewall rule, which it appends to the OUTPUT chain of
// whatever namespace it runs in, here the hosts'.
import { type EndOptions, TunnelPeer } from '../e2e/tunnel-ends.ts'
import type { Agent } from '../support/agent.ts'
import { type Capture, capture } from '../support/capture.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { Program, startRelay } from './programs.ts'
import { type Direction, serveTransfers, type Transfer, transfer } from './transfer.ts'

export type Way = 'to us' | 'from us' | 'alone' | 'tunnel'

/** The port that fake TCP goes to, on host b. */
export const FAKE_PORT = 9000

const ENTRANCE = { host: '127.0.0.1', port: 5000 }
const EXIT = { host: '127.0.0.1', port: 6000 }
const UDP = '127.0.0.1:9001'

/** Both ends alike. No error correction, no compression, no cipher, and windows that 100 Mbit/s at 100 ms would need: the carrier is what counts. */
const TUNNEL = [
  ...['--mode', 'fast', '--crypt', 'none', '--nocomp', '--datashard', '0', '--parityshard', '0'],
  ...['--mtu', '1350', '--sndwnd', '1024', '--rcvwnd', '1024', '--sockbuf', '4194304', '--quiet'],
]

/** What the relay counted; its main program prints it. */
export interface Counted {
  readonly connections: number
  readonly toUdp: number
  readonly fromUdp: number
  readonly dropped: number
  readonly connectionDrops: Record<string, number>
  readonly errors: Record<string, number>
  readonly conns: readonly { dialect: string | undefined; link: string; messagesIn: number; messagesOut: number; setBacks: number }[]
}

export interface Between extends AsyncDisposable {
  readonly a: Host
  readonly b: Host
}

export interface KcptunOptions {
  readonly record?: boolean
  readonly between?: Between
  /** Of both ends of our tunnel. */
  readonly tunnel?: Pick<EndOptions, 'key' | 'cipher'>
}

export class Kcptun implements AsyncDisposable {
  readonly a: Host
  readonly b: Host
  readonly #hosts: Between
  readonly #programs: Program[] = []
  #recording: Capture | undefined
  #relay: Program | undefined
  #agent: Agent | undefined
  /** Of our tunnel. */
  readonly ends: TunnelPeer[] = []

  private constructor(hosts: Between) {
    this.a = hosts.a
    this.b = hosts.b
    this.#hosts = hosts
  }

  /**
   * Hosts and programs, ready for transfers; with `record` the fake TCP is recorded at our library's end. Other hosts than two on one link may be
   * given, and go with the tunnel.
   */
  static async start(way: Way, { record = false, between, tunnel = {} }: KcptunOptions = {}): Promise<Kcptun> {
    // Checksums finished by the host, so that the recording can judge them.
    const hosts = between ?? (await twoHosts({ offloads: { tx: false } }))
    const made = new Kcptun(hosts)
    try {
      await made.#begin(way, record, tunnel)
      return made
    } catch (error) {
      await made[Symbol.asyncDispose]()
      throw error
    }
  }

  async #begin(way: Way, record: boolean, tunnel: KcptunOptions['tunnel']): Promise<void> {
    const { a, b } = this
    if (record) {
      // Headers and whatever is short; its own sends are seen in the order in which a host makes them, what it receives as its sockets get it.
      const options = { filter: `tcp port ${FAKE_PORT}`, snapLength: 320, bulk: true }
      this.#recording = await capture(way === 'to us' ? b : a, options)
    }
    const fake = `${b.address4}:${FAKE_PORT}`
    const server = await b.agent()
    await serveTransfers(server, EXIT)
    const target = ['--target', `${EXIT.host}:${EXIT.port}`]
    const listen = way === 'to us' || way === 'tunnel' ? UDP : fake
    const tcp = (is: boolean) => (is ? ['--tcp'] : [])
    const serverArgs = [...TUNNEL, '--listen', listen, ...target, ...tcp(way === 'from us' || way === 'alone')]
    this.#programs.push(await Program.start(b, 'kcptun-server', 'kcptun-server', serverArgs, /key derivation done/))
    if (way === 'tunnel') {
      this.ends.push(await TunnelPeer.server(b, { listen: fake, to: UDP, ...tunnel }))
      this.ends.push(await TunnelPeer.client(a, { listen: UDP, to: fake, ...tunnel }))
    } else if (way !== 'alone') {
      this.#relay = await (way === 'to us' ? startRelay(b, 'to-udp', fake, UDP) : startRelay(a, 'from-udp', UDP, fake))
      this.#programs.push(this.#relay)
    }
    const remote = way === 'from us' || way === 'tunnel' ? UDP : fake
    const clientArgs = [
      ...TUNNEL,
      '--localaddr',
      `${ENTRANCE.host}:${ENTRANCE.port}`,
      '--remoteaddr',
      remote,
      ...tcp(way === 'to us' || way === 'alone'),
    ]
    this.#programs.push(await Program.start(a, 'kcptun-client', 'kcptun-client', clientArgs, /key derivation done/))
    this.#agent = await a.agent()
    // The first message makes the server accept the session. Until it has, KCP's receive window there is 32 segments; a burst that fills it draws
    // "window 0", and KCP asks again only after 7 s (IKCP_PROBE_INIT). Datagrams that waited for a dial are such a burst.
    await this.transfer('upload', 1)
  }

  /** Through the tunnel: 'upload' from a to b. */
  async transfer(direction: Direction, bytes: number): Promise<Transfer> {
    try {
      return await transfer(this.#agent!, ENTRANCE, direction, bytes)
    } catch (error) {
      throw new Error(`The ${direction} failed; what the programs said:\n${this.#outputs()}`, { cause: error })
    }
  }

  /** What was asked for with `record`. */
  get recording(): Capture {
    return this.#recording!
  }

  /** Has the relay close its connection, which tcpraw never answers, and end; returns its counts. */
  async counted(): Promise<Counted> {
    const code = await this.#relay!.end()
    const line = /^\{.*\}$/m.exec(this.#relay!.output)?.[0]
    if (code !== 0 || line === undefined) throw new Error(`The relay ended with ${code}, or without its counts:\n${this.#outputs()}`)
    return JSON.parse(line)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.end()))
    await this.#recording?.[Symbol.asyncDispose]()
    await this.#hosts[Symbol.asyncDispose]()
  }

  #outputs(): string {
    return this.#programs.map(({ name, output, ended }) => `--- ${name}${ended ? ' (ended)' : ''}\n${output}`).join('\n')
  }
}
