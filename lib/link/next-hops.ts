// Next hops for sending by AF_PACKET: which paths there are, and when the kernel is asked about them again. What it is asked is in host.ts, what
// follows from its answers in path.ts.
import type { Binding, NativeRouteSocket } from '../native/binding.ts'
import { CHANGED_ADDRESS, CHANGED_ALL, CHANGED_LINK, CHANGED_NEIGHBOUR, CHANGED_ROUTE, KEY_PORTS } from '../native/layout.ts'
import { HopTable } from './hop-table.ts'
import { HostView, type Neighbour } from './host.ts'
import { HopPath, type Path, type PathWorld, scopeOf, withoutHop } from './path.ts'

export type { Path } from './path.ts'

/** Notifications come in bursts: an interface that goes down takes its addresses, routes and neighbours along. */
const DEBOUNCE_MS = 2
/** Look-ups in one turn of the event loop; a few microseconds each. */
const BATCH = 200
/** Between two rounds there are so many times the time that the last one took. */
const REST = 10
const TICK_MS = 1_000
/** What the kernel does not notify of: learned path MTUs, redirects. */
const REFRESH_TICKS = 30

const CHANGED_PATHS = CHANGED_LINK | CHANGED_ROUTE | CHANGED_ADDRESS
/** Beside the CHANGED_* bits: some neighbours are to be asked about, though nothing was notified. */
const NEIGHBOURS_DUE = 1 << 8

type Timer = ReturnType<typeof setTimeout>

/** One for each thread, shared by all engines. Never keeps the process alive. */
export class NextHops {
  readonly #table = new HopTable()
  readonly #paths = new Map<string, HopPath>()
  readonly #onChange: () => void
  readonly #clock: () => number
  readonly #kernel: NativeRouteSocket | undefined
  readonly #world: PathWorld | undefined
  /** Why no path has a hop. */
  #unavailable = ''
  #later = new Set<HopPath>()
  #changed = false

  /** CHANGED_* bits, and the one above, that no round has taken up yet. */
  #dirty = 0
  #round: Iterator<void> | undefined
  #roundMs = 0
  #restUntil = Number.NEGATIVE_INFINITY
  #timer: Timer | undefined
  #tick: Timer | undefined
  #ticks = 0

  /**
   * @param onChange what paths say has changed: called in a microtask, once for any number of changes
   * @param clock milliseconds, the same that `probed` is given
   */
  constructor(binding: Pick<Binding, 'RouteSocket'>, onChange: () => void, clock: () => number = () => performance.now()) {
    this.#onChange = onChange
    this.#clock = clock
    try {
      this.#kernel = new binding.RouteSocket({ onChange: (what) => this.#notified(what) })
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : error
      this.#unavailable = `netlink unavailable (${code})`
      return
    }
    this.#world = {
      host: new HostView(this.#kernel, clock),
      table: this.#table,
      now: clock,
      changed: (path) => this.#pathChanged(path),
      chooseLater: (path) => this.#later.add(path),
      forget: (path) => this.#forget(path),
    }
  }

  /** HOP_WORDS words for each hop. Replaced by a larger array when it grows: read it anew for each call. */
  get table(): Int32Array {
    return this.#table.words
  }

  /**
   * The path between the two addresses of the key at `at`: the same object for all flows between them. Looked up within the call. Never throws.
   *
   * @param ifindex the interface that the peer's packets come in by, to which link-local addresses belong; 0: not known
   */
  open(key: Int32Array, at: number, ifindex: number): Path {
    const world = this.#world
    if (world === undefined || this.#unavailable !== '') return withoutHop(this.#unavailable)
    const words = key.subarray(at, at + KEY_PORTS)
    const scope = scopeOf(words, ifindex)
    const id = `${scope} ${words.join()}`
    let path = this.#paths.get(id)
    if (path === undefined) {
      path = new HopPath(world, id, words, scope, ifindex)
      this.#paths.set(id, path)
      path.resolve()
      this.#tick ??= setInterval(() => this.#ticked(), TICK_MS).unref()
    }
    path.users++
    return path
  }

  /** Idempotent. Paths that are still open have no hop afterwards. */
  close(): void {
    if (this.#unavailable !== '') return
    this.#unavailable = 'closed'
    this.#kernel?.close()
    for (const path of this.#paths.values()) path.end('closed')
    this.#paths.clear()
    this.#stop()
  }

  #forget(path: HopPath): void {
    this.#paths.delete(path.id)
    this.#later.delete(path)
    if (this.#paths.size === 0) this.#stop()
  }

  #stop(): void {
    clearInterval(this.#tick)
    clearTimeout(this.#timer)
    this.#tick = undefined
    this.#timer = undefined
    this.#round = undefined
    this.#dirty = 0
    this.#later.clear()
  }

  #notified(what: number): void {
    if (this.#paths.size === 0) return
    this.#dirty |= what
    this.#schedule()
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#round !== undefined) return
    this.#wait(Math.max(DEBOUNCE_MS, this.#restUntil - this.#clock()))
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#work()
    }, ms).unref()
  }

  /** Does a part of the round. A timer leads to the next: an immediate that is not referenced would wait for other events. */
  #work(): void {
    if (this.#round === undefined) {
      const what = this.#dirty
      this.#dirty = 0
      this.#round = what & CHANGED_PATHS ? this.#everything() : this.#neighbours((what & CHANGED_NEIGHBOUR) !== 0)
      this.#roundMs = 0
    }
    const start = this.#clock()
    let done = false
    for (let i = 0; i < BATCH && !done; i++) done = this.#round.next().done === true
    const end = this.#clock()
    this.#roundMs += end - start
    if (done) {
      this.#round = undefined
      this.#restUntil = end + REST * this.#roundMs
      if (this.#dirty !== 0) this.#schedule()
    } else {
      this.#wait(1)
    }
  }

  *#everything(): Generator<void> {
    this.#world?.host.newRound()
    for (const path of this.#paths.values()) {
      path.resolve()
      yield
    }
  }

  *#neighbours(all: boolean): Generator<void> {
    const host = this.#world?.host
    for (const neighbour of host?.neighbours.values() ?? []) {
      if (!all && !isDue(neighbour)) continue
      host?.look(neighbour)
      yield
    }
  }

  #ticked(): void {
    const later = this.#later
    this.#later = new Set()
    for (const path of later) path.choose()
    if (++this.#ticks % REFRESH_TICKS === 0) this.#notified(CHANGED_ALL)
    else this.#notified(NEIGHBOURS_DUE)
  }

  #pathChanged(path: HopPath): void {
    // Without users it is being opened: the caller reads it now, and nobody else has it.
    if (path.users === 0 || this.#changed) return
    this.#changed = true
    queueMicrotask(() => {
      this.#changed = false
      if (this.#unavailable === '') this.#onChange()
    })
  }
}

/** The kernel has no answer yet, or there is reason to doubt it. */
const isDue = (neighbour: Neighbour) => !neighbour.usable || neighbour.suspected
