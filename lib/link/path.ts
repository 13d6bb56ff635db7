// One path, from a local address to a remote one: which hop its packets take, as far as is known. It makes the choice; when to ask the kernel
// again is the business of next-hops.ts.
import { isLinkLocal, isMapped } from '../address.ts'
import {
  KEY_LOCAL,
  KEY_PORTS,
  KEY_REMOTE,
  ROUTE_ENCAPSULATED,
  ROUTE_FLAGS,
  ROUTE_GATEWAY,
  ROUTE_IFINDEX,
  ROUTE_MTU,
  ROUTE_TYPE,
} from '../native/layout.ts'
import { ETHERNET_HEADER, type HopTable, writeEthernet } from './hop-table.ts'
import { type Device, errorName, type HostView, type Neighbour, RTN_LOCAL, RTN_UNICAST, type Source } from './host.ts'

const ETHERTYPE_IP = 0x0800
const ETHERTYPE_IPV6 = 0x86dd
/** The same in every network namespace (LOOPBACK_IFINDEX of the kernel's net/flow.h). */
const LOOPBACK_IFINDEX = 1
const NO_HEADER = new Uint8Array(0)
/** Bits of the first word of a link address: there is one; it is a group's (IEEE 802, I/G). */
const PRESENT = 1 << 31
const GROUP = 1 << 8

const REFUSED_MIN_MS = 1_000
const REFUSED_MAX_MS = 30_000
/** A hop that was not refused for so long starts at the shortest back-off again. */
const REFUSED_FORGOTTEN_MS = 60_000
/** The answer of captured frames is changed no more often than that. */
const ADOPT_INTERVAL_MS = 1_000

/** How packets of a flow leave by AF_PACKET, kept up to date; shared by all flows between two addresses. */
export interface Path {
  /** Row in the table of hops; -1 when nobody knows how to send by packet now: sending by IP raw socket makes the kernel find out. Read it anew
   * for each call of the sender: a row that nobody uses any more is used again for another hop. */
  readonly hop: number
  /** Why `hop` is -1; undefined otherwise. */
  readonly why: string | undefined
  /** MTU of the outgoing device, or of the route where that is smaller; 0: unknown. */
  readonly mtu: number
  /** The path ends on this host. */
  readonly local: boolean
  /** Since when the local address is not this host's any more, by the clock of `NextHops`; Infinity while it is, or where that cannot be told. */
  readonly addressGoneSince: number
  /** When the kernel's neighbour entry should be confirmed, which only packets do that the kernel itself sends: one harmless packet by raw socket
   * then, and `probed`. Infinity when there is no need. */
  readonly probeDue: number
  probed(now: number): void
  /** A captured frame of the peer: the interface, and the words D_MAC_HIGH and D_MAC_LOW. Costs nothing while they stay the same. */
  heard(ifindex: number, macHigh: number, macLow: number): void
  /** The kernel refused a packet on this hop with a negative errno: no hop for 1 s, and each time it happens again twice as long, to 30 s. */
  refused(errno: number): void
  release(): void
}

/** What a path needs of its surroundings. */
export interface PathWorld {
  readonly host: HostView
  readonly table: HopTable
  now(): number
  /** Something that users of this path read has changed. */
  changed(path: HopPath): void
  /** `choose` is to be called again within about a second. */
  chooseLater(path: HopPath): void
  /** Nobody uses the path any more. */
  forget(path: HopPath): void
}

/** A path that never has a hop. */
export function withoutHop(why: string): Path {
  const nothing = () => {}
  const never = { addressGoneSince: Number.POSITIVE_INFINITY, probeDue: Number.POSITIVE_INFINITY }
  return { hop: -1, why, mtu: 0, local: false, ...never, probed: nothing, heard: nothing, refused: nothing, release: nothing }
}

/** Interfaces matter to a look-up only where addresses are link-local. */
export function scopeOf(key: Int32Array, ifindex: number): number {
  return isLinkLocal(key, KEY_REMOTE) || isLinkLocal(key, KEY_LOCAL) ? ifindex : 0
}

export class HopPath implements Path {
  readonly id: string
  users = 0
  hop = -1
  why: string | undefined
  mtu = 0
  local = false
  addressGoneSince = Number.POSITIVE_INFINITY

  readonly #world: PathWorld
  readonly #key: Int32Array
  readonly #scope: number
  readonly #etherType: number
  readonly #source: Source
  #ended = false
  /** Why the route has no hop, whatever the neighbour. */
  #obstacle: string | undefined
  #device: Device | undefined
  #ifindex = 0
  #neighbour: Neighbour | undefined
  /** What was found, before refusals. */
  #row = -1
  #found: string | undefined

  /** Interface that the peer's packets come in by; 0: not known. */
  #cameBy = 0
  #heardIfindex = 0
  #heardHigh = 0
  #heardLow = 0
  #adoptedIfindex = 0
  #adoptedHigh = 0
  #adoptedLow = 0
  #adoptedAt = Number.NEGATIVE_INFINITY

  #refusal: string | undefined
  #refusedUntil = Number.NEGATIVE_INFINITY
  #backOffMs = 0

  /** @param cameBy the interface that the handshake came in by; 0: not known */
  constructor(world: PathWorld, id: string, key: Int32Array, scope: number, cameBy: number) {
    this.#world = world
    this.id = id
    this.#key = key.slice(0, KEY_PORTS)
    this.#scope = scope
    this.#cameBy = cameBy
    this.#etherType = isMapped(key, KEY_REMOTE) ? ETHERTYPE_IP : ETHERTYPE_IPV6
    this.#source = world.host.acquireSource(this.#key, isLinkLocal(key, KEY_LOCAL) ? scope : 0)
  }

  get probeDue(): number {
    return this.hop < 0 || this.#neighbour === undefined ? Number.POSITIVE_INFINITY : this.#neighbour.probeDue
  }

  probed(now: number): void {
    this.#neighbour?.probed(now)
  }

  /** Asks the kernel for everything. */
  resolve(): void {
    if (this.#ended) return
    const { host } = this.#world
    host.checkSource(this.#source)
    const gone = this.#source.goneSince
    const route = host.route(this.#key, this.#scope)
    let neighbour: Neighbour | undefined
    let mtu = 0
    let local = false
    this.#device = undefined
    this.#obstacle = gone === Number.POSITIVE_INFINITY ? undefined : 'local address gone'
    if (typeof route === 'number') {
      this.#obstacle ??= noRoute(route)
    } else {
      if (!this.#source.found) this.#obstacle ??= 'local address in another routing domain'
      local = route[ROUTE_TYPE] === RTN_LOCAL
      if (route[ROUTE_TYPE] !== RTN_UNICAST && !local) this.#obstacle ??= `route type ${route[ROUTE_TYPE]}`
      if (route[ROUTE_FLAGS] & ROUTE_ENCAPSULATED) this.#obstacle ??= 'encapsulated route'
      this.#ifindex = route[ROUTE_IFINDEX]
      let device = host.device(this.#ifindex)
      if (local && device.header !== 'zero') {
        this.#ifindex = LOOPBACK_IFINDEX
        device = host.device(LOOPBACK_IFINDEX)
      }
      this.#obstacle ??= device.why
      this.#device = device
      mtu = smaller(device.mtu, route[ROUTE_MTU])
      if (this.#obstacle === undefined && device.header === 'neighbour') {
        neighbour = host.acquireNeighbour(this.#ifindex, route, ROUTE_GATEWAY, this)
      }
    }
    const before = this.#neighbour
    this.#neighbour = neighbour
    if (before !== undefined && before !== neighbour) host.releaseNeighbour(before, this)
    if (neighbour !== undefined) host.checkNeighbour(neighbour)
    if (mtu !== this.mtu || local !== this.local || gone !== this.addressGoneSince) this.#world.changed(this)
    this.mtu = mtu
    this.local = local
    this.addressGoneSince = gone
    this.choose()
  }

  /** Finds the hop from what is known. */
  choose(): void {
    if (this.#ended) return
    const obstacle = this.#obstacle ?? (this.#elsewhere ? 'the peer is heard on another interface' : undefined)
    const header = obstacle === undefined ? this.#header() : undefined
    const found = header === undefined ? (obstacle ?? 'neighbour unresolved') : undefined
    // Acquired before the other is released, so that the same hop keeps its row.
    const row = header === undefined ? -1 : this.#world.table.acquire(this.#ifindex, header)
    if (row !== this.#row || found !== this.#found) this.#refusal = undefined
    this.#world.table.release(this.#row)
    this.#row = row
    this.#found = found
    if (this.#refusal !== undefined && this.#world.now() >= this.#refusedUntil) this.#refusal = undefined
    if (this.#refusal !== undefined) this.#world.chooseLater(this)
    this.#publish()
  }

  #publish(): void {
    const hop = this.#refusal === undefined ? this.#row : -1
    const why = this.#refusal ?? this.#found
    if (hop === this.hop && why === this.why) return
    this.hop = hop
    this.why = why
    this.#world.changed(this)
  }

  #header(): Uint8Array | undefined {
    const device = this.#device
    if (device === undefined) return undefined
    if (device.header === 'none') return NO_HEADER
    const header = new Uint8Array(ETHERNET_HEADER)
    if (device.header === 'zero') {
      writeEthernet(header, 0, 0, 0, 0, this.#etherType)
      return header
    }
    const neighbour = this.#neighbour
    if (neighbour?.usable) {
      writeEthernet(header, neighbour.macHigh, neighbour.macLow, device.macHigh, device.macLow, this.#etherType)
      return header
    }
    if (!this.#adoptHeard()) return undefined
    writeEthernet(header, this.#adoptedHigh, this.#adoptedLow, device.macHigh, device.macLow, this.#etherType)
    return header
  }

  /** Takes the link address of captured frames for the answer, if they came by the interface that packets leave by. */
  #adoptHeard(): boolean {
    if (this.#heardIfindex !== this.#ifindex) return false
    const here = this.#adoptedIfindex === this.#ifindex
    if (here && this.#heardHigh === this.#adoptedHigh && this.#heardLow === this.#adoptedLow) return true
    const now = this.#world.now()
    if (here && now - this.#adoptedAt < ADOPT_INTERVAL_MS) {
      this.#world.chooseLater(this)
      return true
    }
    this.#adoptedIfindex = this.#ifindex
    this.#adoptedHigh = this.#heardHigh
    this.#adoptedLow = this.#heardLow
    this.#adoptedAt = now
    return true
  }

  /**
   * The route that rtnetlink told of is not the one that the peer's packets take. It may be the way all the same, but rules by mark or user, which a
   * look-up does not know of, look like this as well: the kernel itself is to send.
   */
  get #elsewhere(): boolean {
    return this.#cameBy !== 0 && this.#ifindex !== 0 && this.#cameBy !== this.#ifindex
  }

  heard(ifindex: number, macHigh: number, macLow: number): void {
    if (ifindex !== this.#cameBy) {
      this.#cameBy = ifindex
      // At once where it takes the hop away; where it gives it back, there may be two ways in turn.
      if (!this.#elsewhere) this.#world.chooseLater(this)
      else if (this.hop >= 0) this.choose()
    }
    if (ifindex === this.#heardIfindex && macLow === this.#heardLow && macHigh === this.#heardHigh) return
    // No link address, none that answers, or zeros as on loopback.
    if (!(macHigh & PRESENT) || macHigh & GROUP || ((macHigh & 0xffff) === 0 && macLow === 0)) return
    this.#heardIfindex = ifindex
    this.#heardHigh = macHigh
    this.#heardLow = macLow
    const neighbour = this.#neighbour
    if (neighbour === undefined || ifindex !== this.#ifindex) return
    if (neighbour.usable && neighbour.macHigh === macHigh && neighbour.macLow === macLow) return
    neighbour.suspected = true
    if (neighbour.mayLook(this.#world.now())) this.#world.host.look(neighbour)
    if (!neighbour.usable) this.choose()
  }

  refused(errno: number): void {
    // Several flows may report the same refusal, and a late one may be of an earlier hop.
    if (this.hop < 0) return
    const now = this.#world.now()
    const again = now - this.#refusedUntil < REFUSED_FORGOTTEN_MS
    this.#backOffMs = again ? Math.min(this.#backOffMs * 2, REFUSED_MAX_MS) : REFUSED_MIN_MS
    this.#refusedUntil = now + this.#backOffMs
    this.#refusal = `refused: ${errorName(errno)}`
    this.#world.chooseLater(this)
    this.#publish()
  }

  release(): void {
    if (this.#ended || --this.users > 0) return
    this.end('released')
    this.#world.forget(this)
  }

  /** No hop from here on. */
  end(why: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#world.table.release(this.#row)
    this.#world.host.releaseSource(this.#source)
    if (this.#neighbour !== undefined) this.#world.host.releaseNeighbour(this.#neighbour, this)
    this.#row = -1
    this.#neighbour = undefined
    this.hop = -1
    this.why = why
  }
}

/** `no route` where there is none; with the errno where the kernel says something else. */
function noRoute(errno: number): string {
  const code = errorName(errno)
  return code === 'ENETUNREACH' || code === 'EHOSTUNREACH' ? 'no route' : `no route (${code})`
}

function smaller(device: number, route: number): number {
  return device > 0 && route > 0 ? Math.min(device, route) : device || route
}
