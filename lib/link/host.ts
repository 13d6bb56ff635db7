// What the kernel says of this host, asked once for all paths that need it: devices, local addresses, neighbours. Knows no path beyond that.
import { constants } from 'node:os'
import { getSystemErrorName } from 'node:util'
import type { NativeRouteSocket } from '../native/binding.ts'
import {
  KEY_LOCAL,
  KEY_PORTS,
  KEY_REMOTE,
  LINK_FLAGS,
  LINK_HEADER,
  LINK_HEADER_UNKNOWN,
  LINK_MAC_HIGH,
  LINK_MAC_LOW,
  LINK_MTU,
  LINK_TYPE,
  LINK_WORDS,
  NEIGHBOUR_MAC_HIGH,
  NEIGHBOUR_MAC_LOW,
  NEIGHBOUR_STATE,
  NEIGHBOUR_WORDS,
  ROUTE_TYPE,
  ROUTE_WORDS,
} from '../native/layout.ts'
import { ETHERNET_HEADER } from './hop-table.ts'

// linux/if_arp.h
const ARPHRD_ETHER = 1
const ARPHRD_RAWIP = 519
const ARPHRD_LOOPBACK = 772
const ARPHRD_NONE = 0xfffe
// linux/if.h
const IFF_UP = 0x1
/** Carrier. IFF_RUNNING is not asked: a device may pass packets before it has one of the states that set it (RFC 2863 'dormant'). */
const IFF_LOWER_UP = 0x10000
// linux/rtnetlink.h
export const RTN_UNICAST = 1
export const RTN_LOCAL = 2
// linux/neighbour.h
const NUD_STALE = 0x04
/** REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT: those for which the kernel itself would send (NUD_VALID). */
const NUD_USABLE = 0xde

/** What netlink says when it has no memory or no room, rather than no route. */
const { EAGAIN, ENOBUFS, ENOMEM } = constants.errno
const UNANSWERED: ReadonlySet<number> = new Set([-EAGAIN, -ENOBUFS, -ENOMEM])

/** A stale entry is given this long between two packets that make the kernel confirm it. */
const PROBE_INTERVAL_MS = 15_000
/** The same when packets come from another link address than the entry's. */
const DOUBT_INTERVAL_MS = 5_000
/** The same when the kernel has no address at all and a captured frame's is used. */
const UNRESOLVED_INTERVAL_MS = 1_000
/** An entry is not looked up for a captured frame more often than that. */
const LOOK_INTERVAL_MS = 1_000

/** `E...` of a negative errno, whatever number that is. */
export function errorName(errno: number): string {
  return Number.isInteger(errno) && errno < 0 && errno >= -0x7fffffff ? getSystemErrorName(errno) : String(errno)
}

export interface Device {
  /** `neighbour`: Ethernet header with the neighbour's address. `zero`: Ethernet header without addresses (loopback). `none`: IP packets only. */
  readonly header: 'neighbour' | 'zero' | 'none'
  readonly macHigh: number
  readonly macLow: number
  readonly mtu: number
  /** Why nothing can be sent by it; undefined if it can. */
  readonly why: string | undefined
}

/** A local address. */
export interface Source {
  readonly id: string
  readonly words: Int32Array
  readonly ifindex: number
  /** Look-ups say that it is this host's. */
  found: boolean
  /** Since when they do not say so any more. Infinity also where they never did, as in a VRF, whose routes are asked for in another way. */
  goneSince: number
  users: number
  round: number
}

/** Who is told when the way to send by a neighbour has changed. */
export interface Dependent {
  choose(): void
}

export class Neighbour {
  readonly id: string
  readonly ifindex: number
  readonly address: Int32Array
  readonly dependents = new Set<Dependent>()
  usable = false
  macHigh = 0
  macLow = 0
  /** When a packet should make the kernel confirm the entry. */
  probeDue = Number.POSITIVE_INFINITY
  /** A captured frame had another link address than this entry: to be looked up as soon as that may be. */
  suspected = false
  round = -1
  #stale = false
  #lookedAt = Number.NEGATIVE_INFINITY
  #probedAt = Number.NEGATIVE_INFINITY

  constructor(id: string, ifindex: number, address: Int32Array) {
    this.id = id
    this.ifindex = ifindex
    this.address = address
  }

  /** What the kernel answered. Returns whether the way to send has changed. */
  learn(answered: boolean, words: Int32Array, now: number): boolean {
    const high = words[NEIGHBOUR_MAC_HIGH]
    const low = words[NEIGHBOUR_MAC_LOW]
    const usable = answered && (words[NEIGHBOUR_STATE] & NUD_USABLE) !== 0 && high !== 0
    const changed = usable !== this.usable || (usable && (high !== this.macHigh || low !== this.macLow))
    this.usable = usable
    if (usable) {
      this.macHigh = high
      this.macLow = low
    }
    // In DELAY and PROBE the kernel is at it, and notifies of how that ends (neigh_timer_handler).
    this.#stale = usable && (words[NEIGHBOUR_STATE] & NUD_STALE) !== 0
    // Frames come from elsewhere and the kernel sticks to its entry: it is made to confirm that sooner.
    this.#schedule(this.suspected && !changed ? DOUBT_INTERVAL_MS : PROBE_INTERVAL_MS)
    this.suspected = false
    this.#lookedAt = now
    return changed
  }

  probed(now: number): void {
    this.#probedAt = now
    this.#schedule(PROBE_INTERVAL_MS)
  }

  #schedule(staleIntervalMs: number): void {
    if (!this.usable) this.probeDue = this.#probedAt + UNRESOLVED_INTERVAL_MS
    else this.probeDue = this.#stale ? this.#probedAt + staleIntervalMs : Number.POSITIVE_INFINITY
  }

  mayLook(now: number): boolean {
    return now - this.#lookedAt >= LOOK_INTERVAL_MS
  }
}

export class HostView {
  readonly neighbours = new Map<string, Neighbour>()
  readonly #kernel: NativeRouteSocket
  readonly #now: () => number
  readonly #devices = new Map<number, Device>()
  readonly #sources = new Map<string, Source>()
  readonly #route = new Int32Array(ROUTE_WORDS)
  readonly #link = new Int32Array(LINK_WORDS)
  readonly #entry = new Int32Array(NEIGHBOUR_WORDS)
  readonly #question = new Int32Array(KEY_PORTS)
  #round = 0

  constructor(kernel: NativeRouteSocket, now: () => number) {
    this.#kernel = kernel
    this.#now = now
  }

  /** From here on everything is asked once more, when it is needed next. */
  newRound(): void {
    this.#round++
    this.#devices.clear()
  }

  /** ROUTE_* words, valid until the next call, or the negative errno. */
  route(key: Int32Array, ifindex: number): Int32Array | number {
    const failed = this.#kernel.route(key, 0, ifindex, this.#route)
    return failed < 0 ? failed : this.#route
  }

  device(ifindex: number): Device {
    const known = this.#devices.get(ifindex)
    if (known !== undefined) return known
    const failed = this.#kernel.link(ifindex, this.#link)
    const device = failed < 0 ? noDevice(`no device (${errorName(failed)})`) : describe(this.#link)
    this.#devices.set(ifindex, device)
    return device
  }

  /** The local address of a key; it has one user more. */
  acquireSource(key: Int32Array, ifindex: number): Source {
    const words = key.slice(KEY_LOCAL, KEY_LOCAL + 4)
    const id = `${ifindex} ${words.join()}`
    let source = this.#sources.get(id)
    if (source === undefined) {
      source = { id, words, ifindex, found: false, goneSince: Number.POSITIVE_INFINITY, users: 0, round: -1 }
      this.#sources.set(id, source)
    }
    source.users++
    return source
  }

  releaseSource(source: Source): void {
    if (--source.users === 0) this.#sources.delete(source.id)
  }

  /** Asks, unless that was done in this round, whether the address is this host's. */
  checkSource(source: Source): void {
    if (source.round === this.#round) return
    source.round = this.#round
    // From the unspecified address, which the question's other half stays at: with a source that is gone IPv4 answers EINVAL (ip_route_output_key).
    this.#question.set(source.words, KEY_REMOTE)
    const failed = this.#kernel.route(this.#question, 0, source.ifindex, this.#route)
    // No answer at all says nothing, and flows end for want of their address.
    if (UNANSWERED.has(failed)) return
    const before = source.found
    source.found = failed === 0 && this.#route[ROUTE_TYPE] === RTN_LOCAL
    if (source.found) source.goneSince = Number.POSITIVE_INFINITY
    else if (before) source.goneSince = this.#now()
  }

  /** The entry of the four words at `at`, with one dependent more. */
  acquireNeighbour(ifindex: number, words: Int32Array, at: number, dependent: Dependent): Neighbour {
    const address = words.slice(at, at + 4)
    const id = `${ifindex} ${address.join()}`
    let neighbour = this.neighbours.get(id)
    if (neighbour === undefined) {
      neighbour = new Neighbour(id, ifindex, address)
      this.neighbours.set(id, neighbour)
    }
    neighbour.dependents.add(dependent)
    return neighbour
  }

  releaseNeighbour(neighbour: Neighbour, dependent: Dependent): void {
    neighbour.dependents.delete(dependent)
    if (neighbour.dependents.size === 0) this.neighbours.delete(neighbour.id)
  }

  /** Asks for the entry unless that was done in this round. */
  checkNeighbour(neighbour: Neighbour): void {
    if (neighbour.round !== this.#round) this.look(neighbour)
  }

  /** Asks for the entry, and tells its dependents if the way to send has changed. */
  look(neighbour: Neighbour): void {
    neighbour.round = this.#round
    const failed = this.#kernel.neighbour(neighbour.ifindex, neighbour.address, 0, this.#entry)
    if (!neighbour.learn(failed === 0, this.#entry, this.#now())) return
    for (const dependent of neighbour.dependents) dependent.choose()
  }
}

function describe(link: Int32Array): Device {
  const type = link[LINK_TYPE]
  const header = headerOf(type)
  if (header === undefined) return noDevice(`device type ${type}`)
  if (!(link[LINK_FLAGS] & IFF_UP) || !(link[LINK_FLAGS] & IFF_LOWER_UP)) return noDevice('link down')
  // Trains would be lost on the way to the device: see native/link_header.h.
  const expected = header === 'none' ? 0 : ETHERNET_HEADER
  const reserved = link[LINK_HEADER]
  if (reserved !== expected && reserved !== LINK_HEADER_UNKNOWN) return noDevice('unusual link header')
  return { header, macHigh: link[LINK_MAC_HIGH], macLow: link[LINK_MAC_LOW], mtu: link[LINK_MTU], why: undefined }
}

function headerOf(type: number): Device['header'] | undefined {
  switch (type) {
    case ARPHRD_ETHER:
      return 'neighbour'
    case ARPHRD_LOOPBACK:
      return 'zero'
    case ARPHRD_NONE:
    case ARPHRD_RAWIP:
      return 'none'
    default:
      return undefined
  }
}

const noDevice = (why: string): Device => ({ header: 'none', macHigh: 0, macLow: 0, mtu: 0, why })
