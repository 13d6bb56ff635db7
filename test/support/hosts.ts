// Hosts for end-to-end tests: network namespaces joined by veth pairs. They need root. It knows nothing of vitest, so that benches and the demo
// can use it too, and nothing of the library.
//
//   host a (namespace)                       host b (namespace)
//   lo                                       lo
//   eth0 10.77.0.1/24  <---- veth pair ----> eth0 10.77.0.2/24
//        fd00:77::1/64                            fd00:77::2/64
//
// A namespace's name carries the pid that made it. It is removed by whichever comes first: the network's disposal, `removeAllNetworks`, the
// process's exit (also by SIGINT or SIGTERM), or, when the process was killed, the next process that makes a network.
import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, readdirSync } from 'node:fs'
import { delimiter } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { Agent, type AgentOptions } from './agent.ts'

const PREFIX = 'ftcp'
const NAMESPACES = '/run/netns'
/** ip, nft, ethtool: not on every user's PATH. */
const PATH = [process.env.PATH, '/usr/local/sbin', '/usr/sbin', '/sbin'].join(delimiter)

export interface Output {
  readonly stdout: string
  readonly stderr: string
  /** Exit code; null when a signal ended it. */
  readonly code: number | null
}

/** Offloads of both ends of a link (`ethtool -K`); what is not named stays as veth has it (all on). `false` switches all of them off. */
export type Offloads =
  | false
  | { readonly tx?: boolean; readonly rx?: boolean; readonly tso?: boolean; readonly gso?: boolean; readonly gro?: boolean }

export interface LinkOptions {
  /** 1500 unless told. */
  readonly mtu?: number
  readonly offloads?: Offloads
}

export interface Interface {
  readonly host: Host
  readonly name: string
  readonly mac: string
  readonly address4: string
  readonly address6: string
}

const networks = new Set<Network>()
/** The handlers that remove what is left at the end are in place. */
let guarded = false

/** An empty network; `await using` it, or leave its removal to the end of the test file. */
export async function createNetwork(): Promise<Network> {
  if (process.getuid?.() !== 0) throw new Error('This test builds hosts from network namespaces and needs root')
  if (!guarded) {
    guarded = true
    removeStaleNetworks()
    process.once('exit', removeAllNetworksSync)
    process.once('SIGINT', endBySignal).once('SIGTERM', endBySignal)
  }
  const network = new Network()
  networks.add(network)
  return network
}

/** Two hosts on one link. Disposing of it removes both. */
export async function twoHosts(options: LinkOptions = {}): Promise<{ network: Network; a: Host; b: Host } & AsyncDisposable> {
  const network = await createNetwork()
  try {
    const a = await network.addHost('a')
    const b = await network.addHost('b')
    await network.link(a, b, options)
    return { network, a, b, [Symbol.asyncDispose]: () => network.remove() }
  } catch (error) {
    await network.remove()
    throw error
  }
}

export class Network implements AsyncDisposable {
  readonly hosts: Host[] = []
  readonly #id = `${PREFIX}-${process.pid}-${randomBytes(3).toString('hex')}`
  #links = 0

  /** A host without a link: only `lo`, which is up. */
  async addHost(name: string): Promise<Host> {
    const host = new Host(`${this.#id}-${name}`)
    await ip('netns', 'add', host.netns)
    this.hosts.push(host)
    await ip('-n', host.netns, 'link', 'set', 'lo', 'up')
    return host
  }

  /** Joins two hosts. The n-th link of a network is 10.77.n.0/24 and fd00:77:0:n::/64; `a` gets .1, `b` gets .2. */
  async link(a: Host, b: Host, { mtu = 1500, offloads = {} }: LinkOptions = {}): Promise<[Interface, Interface]> {
    const [nameA, nameB] = [nextName(a), nextName(b)]
    const size = ['mtu', String(mtu)]
    await ip('link', 'add', nameA, ...size, 'netns', a.netns, 'type', 'veth', 'peer', 'name', nameB, ...size, 'netns', b.netns)
    return this.join(a, b, offloads)
  }

  /** Makes a link, with addresses as for `link`, of two devices that are there already and named by `nextName`. */
  async join(a: Host, b: Host, offloads: Offloads = {}): Promise<[Interface, Interface]> {
    const subnet = this.#links++
    const ends: [Interface, Interface] = [
      await a.bringUp(nextName(a), subnet, 1, offloads),
      await b.bringUp(nextName(b), subnet, 2, offloads),
    ]
    for (const { host, name } of ends) await host.carries(name)
    return ends
  }

  /** Ends every process in the hosts and removes them. Idempotent. */
  async remove(): Promise<void> {
    const failures: unknown[] = []
    for (const host of this.hosts) {
      await host.stop().catch((error: unknown) => failures.push(error))
    }
    this.removeSync()
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1) throw new AggregateError(failures, 'Agents had errors that no test took')
  }

  /** The same where nothing can be awaited any more. */
  removeSync(): void {
    for (const host of this.hosts.splice(0)) removeNamespace(host.netns)
    networks.delete(this)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.remove()
  }
}

export class Host {
  readonly netns: string
  readonly interfaces: Interface[] = []
  readonly #agents = new Set<Agent>()
  readonly #children = new Set<ChildProcess>()

  constructor(netns: string) {
    this.netns = netns
  }

  /** The first interface's. */
  get address4(): string {
    return this.#first.address4
  }

  /** The first interface's. */
  get address6(): string {
    return this.#first.address6
  }

  /** Name of the first interface. */
  get iface(): string {
    return this.#first.name
  }

  /** The first interface's. */
  get mac(): string {
    return this.#first.mac
  }

  get #first(): Interface {
    const [first] = this.interfaces
    if (first === undefined) throw new Error(`Host ${this.netns} has no link yet`)
    return first
  }

  /** Runs a command in this host and waits for it; a failure is in `code`. */
  exec(command: string, args: readonly string[] = [], input?: string): Promise<Output> {
    return collect(this.spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'] }), input)
  }

  /** Runs a command that must succeed and returns what it printed. */
  async output(command: string, args: readonly string[] = [], input?: string): Promise<string> {
    return succeeded(`${command} ${args.join(' ')}`, await this.exec(command, args, input))
  }

  /** Starts a command in this host; it is killed with the host. The child's pid is the command's own. */
  spawn(command: string, args: readonly string[] = [], options: SpawnOptions = {}): ChildProcess {
    const env = { ...process.env, PATH, ...options.env }
    const child = spawn('ip', ['netns', 'exec', this.netns, command, ...args], { ...options, env })
    this.#children.add(child)
    child.once('close', () => this.#children.delete(child))
    return child
  }

  /** A Node process in this host that runs functions with the built library; see agent.ts. */
  async agent(options: AgentOptions = {}): Promise<Agent> {
    const agent = await Agent.start(this, options)
    this.#agents.add(agent)
    return agent
  }

  /** A further address: '10.77.0.3/24' or 'fd00:77::3/64', on the first interface unless told. */
  async addAddress(cidr: string, iface = this.iface): Promise<void> {
    if (!cidr.includes(':')) {
      await ip('-n', this.netns, 'address', 'add', cidr, 'dev', iface)
      return
    }
    await ip('-n', this.netns, 'address', 'add', cidr, 'dev', iface, 'nodad')
    // An IPv6 address becomes local in a work item of its own (addrconf_dad_work), also with nodad.
    const address = cidr.replace(/\/.*/, '')
    await until(`${address} is local`, async () =>
      (await ip('-n', this.netns, '-6', 'route', 'show', 'table', 'local')).includes(` ${address} dev `),
    )
  }

  /** Processes in this host, agents and spawned commands included. */
  async pids(): Promise<number[]> {
    const text = await ip('netns', 'pids', this.netns)
    return text.split('\n').filter(Boolean).map(Number)
  }

  /** Used by `Network.join`. */
  async bringUp(name: string, subnet: number, index: number, offloads: Offloads): Promise<Interface> {
    const address4 = `10.77.${subnet}.${index}`
    const address6 = subnet === 0 ? `fd00:77::${index}` : `fd00:77:0:${subnet.toString(16)}::${index}`
    const changes = Object.entries(offloads || { tx: false, rx: false, tso: false, gso: false, gro: false })
    if (changes.length > 0) await this.output('ethtool', ['-K', name, ...changes.flatMap(([offload, on]) => [offload, on ? 'on' : 'off'])])
    await ip('-n', this.netns, 'link', 'set', name, 'up')
    await this.addAddress(`${address4}/24`, name)
    await this.addAddress(`${address6}/64`, name)
    const [link] = JSON.parse(await ip('-n', this.netns, '-j', 'link', 'show', name)) as [{ address: string }]
    const made = { host: this, name, mac: link.address, address4, address6 }
    this.interfaces.push(made)
    return made
  }

  /** Used by `Network.join`: the queue that drops everything is replaced some time after both ends are up (dev_activate). */
  async carries(name: string): Promise<void> {
    await until(`${name} is up`, async () => {
      const [link] = JSON.parse(await ip('-n', this.netns, '-j', 'link', 'show', name)) as [{ operstate: string; qdisc: string }]
      // A tap device never tells its state: it is up with the process behind it.
      return ['UP', 'UNKNOWN'].includes(link.operstate) && link.qdisc !== 'noop'
    })
  }

  /** Ends agents and spawned commands. Throws what agents collected and no test took. */
  async stop(): Promise<void> {
    const closings = await Promise.allSettled([...this.#agents].map((agent) => agent.close()))
    this.#agents.clear()
    const ends = [...this.#children].map((child) => new Promise((resolve) => child.once('close', resolve)))
    for (const child of this.#children) child.kill('SIGKILL')
    // What they started holds their output open, and outlives them.
    killAll(this.netns)
    await Promise.all(ends)
    const failure = closings.find((closing) => closing.status === 'rejected')
    if (failure) throw failure.reason
  }
}

/** The name of a host's next interface. */
export function nextName(host: Host): string {
  return `eth${host.interfaces.length}`
}

/** Removes every network of this process. */
export async function removeAllNetworks(): Promise<void> {
  const results = await Promise.allSettled([...networks].map((network) => network.remove()))
  const failure = results.find((result) => result.status === 'rejected')
  if (failure) throw failure.reason
}

/** Removes the namespaces of test processes that are gone. */
export function removeStaleNetworks(): void {
  if (!existsSync(NAMESPACES)) return
  for (const name of readdirSync(NAMESPACES)) {
    const pid = new RegExp(`^${PREFIX}-(\\d+)-`).exec(name)?.[1]
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) removeNamespace(name)
  }
}

function removeAllNetworksSync(): void {
  for (const network of networks) network.removeSync()
}

function endBySignal(signal: NodeJS.Signals): void {
  removeAllNetworksSync()
  process.kill(process.pid, signal)
}

/** A namespace lives on while a process is in it, so these end first. */
function removeNamespace(netns: string): void {
  killAll(netns)
  spawnSync('ip', ['netns', 'delete', netns], { env: { ...process.env, PATH } })
}

/** Ends every process in a namespace. */
function killAll(netns: string): void {
  const { stdout } = spawnSync('ip', ['netns', 'pids', netns], { env: { ...process.env, PATH }, encoding: 'utf8' })
  for (const pid of (stdout ?? '').split('\n').filter(Boolean)) {
    try {
      process.kill(Number(pid), 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
  }
}

/** Asks until it is so; the kernel announces these things to nobody who has not subscribed by netlink. */
async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 5000
  while (!(await isSo())) {
    if (Date.now() > deadline) throw new Error(`Waited 5 s in vain until ${what}`)
    await delay(5)
  }
}

/** `ip` in the machine's own namespace. */
async function ip(...args: string[]): Promise<string> {
  return succeeded(`ip ${args.join(' ')}`, await collect(spawn('ip', args, { env: { ...process.env, PATH } })))
}

function succeeded(what: string, { code, stdout, stderr }: Output): string {
  if (code !== 0) throw new Error(`${what} ended with ${code}: ${stderr || stdout}`)
  return stdout
}

function collect(child: ChildProcess, input?: string): Promise<Output> {
  return new Promise((resolve, reject) => {
    let stdout = ''
    let stderr = ''
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      stdout += text
    })
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr += text
    })
    // A command that does not read its input ends with EPIPE here, which its exit code explains better.
    child.stdin?.on('error', () => {})
    child.stdin?.end(input)
    child.once('error', reject)
    child.once('close', (code) => resolve({ stdout, stderr, code }))
  })
}
