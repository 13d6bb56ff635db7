// The ways out of one engine: an outbox for each link, which of them a flow's segments take, and what becomes of those that one refuses. The paths
// that flows take are shared by all engines of the thread.
import { isMapped } from '../address.ts'
import type { Clock } from '../clock.ts'
import { NOWHERE } from '../link/hop-table.ts'
import { NextHops, type Path } from '../link/next-hops.ts'
import { Outbox } from '../link/outbox.ts'
import { type LinkMode, openPacketSender, openRawSender } from '../link/sender.ts'
import type { Binding } from '../native/binding.ts'
import { D_HOP, D_KEY, HOP_IFINDEX, HOP_WORDS, KEY_LOCAL } from '../native/layout.ts'
import type { Flow } from './flow.ts'

/** What the links need of their engine. */
export interface LinksHost {
  readonly binding: Binding
  readonly clock: Clock
  readonly link: LinkMode | 'auto'
  /** The flow of a key, if it is the engine's. */
  find(words: Int32Array, at: number): Flow | undefined
  /** A blocked outbox is empty again. */
  onRoom(): void
  /** Some paths have another hop now, or none, or lost their address. */
  onPathsChanged(): void
}

/** Sockets by packet that one engine opens; what comes beyond shares the first. */
const MAX_INTERFACES = 64

/** Paths of all flows of this thread, and who is told of their changes. */
let nextHops: NextHops | undefined
const users = new Set<Links>()

export class Links {
  readonly #host: LinksHost
  readonly #raw = new Map<4 | 6, Outbox>()
  /** By packet, one for each interface, so that a slow one holds back nobody else. */
  readonly #packet = new Map<number, Outbox>()
  /** The first, before it is known which interface it is for. */
  #unused: Outbox | undefined
  /** Why there is none by packet. */
  #noPacket = "link 'raw' was asked for"
  /** By packet first: what that link refuses goes by the other. */
  #all: Outbox[] = []

  constructor(host: LinksHost) {
    this.#host = host
  }

  /** Opens the senders of a family, so that a missing capability is told before the handshake. */
  prepare(family: 4 | 6): void {
    this.raw(family)
    const { binding, clock, link } = this.#host
    if (link === 'raw' || users.has(this)) return
    try {
      nextHops ??= new NextHops(binding, onPathsChanged, clock.now)
      this.#unused = this.#openPacket(nextHops)
      users.add(this)
    } catch (error) {
      if (link === 'packet') throw error
      this.#noPacket = error instanceof Error ? error.message : String(error)
    }
  }

  /** The outbox of the link that a flow's segments take now. */
  of(flow: Flow): Outbox {
    const { hop } = flow.link
    return hop >= 0 && nextHops !== undefined ? this.#byPacket(nextHops, hop) : this.raw(flow.family === 'IPv4' ? 4 : 6)
  }

  #byPacket(hops: NextHops, hop: number): Outbox {
    const ifindex = hops.table[hop * HOP_WORDS + HOP_IFINDEX]
    let outbox = this.#packet.get(ifindex)
    if (outbox === undefined) {
      outbox = this.#unused ?? this.#another(hops)
      this.#unused = undefined
      this.#packet.set(ifindex, outbox)
    }
    return outbox
  }

  #another(hops: NextHops): Outbox {
    const [first] = this.#packet.values()
    if (this.#packet.size >= MAX_INTERFACES) return first
    try {
      return this.#openPacket(hops)
    } catch {
      return first // out of files: slow interfaces may hold back others
    }
  }

  #openPacket(hops: NextHops): Outbox {
    const outbox = new Outbox(
      (onWritable) => openPacketSender(this.#host.binding, hops, onWritable),
      () => this.#host.onRoom(),
      { renew: (words, at) => this.#renew(words, at), divert: (errno, words, at) => this.#divert(errno, words, at) },
    )
    this.#all.unshift(outbox)
    return outbox
  }

  raw(family: 4 | 6): Outbox {
    let outbox = this.#raw.get(family)
    if (outbox === undefined) {
      const { binding } = this.#host
      outbox = new Outbox(
        (onWritable) => openRawSender(binding, family, onWritable),
        () => this.#host.onRoom(),
      )
      this.#raw.set(family, outbox)
      this.#all.push(outbox)
    }
    return outbox
  }

  /** The path between the addresses of a key, or the reason why flows do without. */
  openPath(key: Int32Array, at: number, ifindex: number): Path | string {
    return !users.has(this) || nextHops === undefined ? this.#noPacket : nextHops.open(key, at, ifindex)
  }

  /** Sends what is in the outboxes. Tells nobody anything. */
  transmit(): void {
    for (const outbox of this.#all) outbox.transmit()
  }

  /** True when owners of trains wait for `settle`. */
  get unsettled(): boolean {
    for (const outbox of this.#all) if (outbox.unsettled) return true
    return false
  }

  settle(): void {
    for (const outbox of this.#all) outbox.settle()
  }

  /**
   * What leaves by packet never asks the kernel for its neighbour, so the kernel forgets to look after it. Where it is time, a segment by raw
   * socket makes it.
   */
  probe(flow: Flow, now: number): void {
    const path = flow.pathToProbe(now)
    if (path === undefined) return
    path.probed(now)
    const outbox = this.raw(flow.family === 'IPv4' ? 4 : 6)
    if (outbox.makeRoom()) flow.writeProbe(outbox.words, outbox.control(), now)
  }

  close(): void {
    for (const outbox of this.#all) outbox.close()
    this.#all = []
    users.delete(this)
    if (users.size > 0) return
    nextHops?.close()
    nextHops = undefined
  }

  pathsChanged(): void {
    this.#host.onPathsChanged()
  }

  #renew(words: Int32Array, at: number): void {
    words[at + D_HOP] = Math.max(this.#host.find(words, at + D_KEY)?.link.hop ?? NOWHERE, NOWHERE)
  }

  /** The packet link has refused a train: its flow's path is not what it was thought to be, and the train goes by raw socket. */
  #divert(errno: number, words: Int32Array, at: number): Outbox | undefined {
    this.#host.find(words, at + D_KEY)?.link.path?.refused(errno)
    const outbox = this.raw(isMapped(words, at + D_KEY + KEY_LOCAL) ? 4 : 6)
    return outbox.makeRoom() ? outbox : undefined
  }
}

function onPathsChanged(): void {
  for (const links of users) links.pathsChanged()
}
