// Accepts: a listening carrier, the captures of its port, and the engine of the flows that come of them.
import { familyOf, formatAddress, isMapped } from '../address.ts'
import { listenCarriers } from '../carrier/carrier.ts'
import type { TtlGuard } from '../carrier/ttl-guard.ts'
import { EADDRINUSE, FakeTcpError, fromNative, guarded, rethrowLater, systemError } from '../errors.ts'
import type { FlowTable } from '../flow/table.ts'
import type { CaptureFilter, CaptureMode } from '../link/capture.ts'
import type { LinkMode } from '../link/sender.ts'
import type { Binding, NativeCarrier, NativeCarrierListener } from '../native/binding.ts'
import { KEY_LOCAL, KEY_PORTS, KEY_REMOTE, KEY_WORDS } from '../native/layout.ts'
import type { ListenerStats, ShardStats } from '../stats.ts'
import type { Acceptor, AcceptorSink, ListenAddress, RefusedConnection } from '../transport.ts'
import type { Shard } from '../wire/shards.ts'
import { EngineStats } from './counters.ts'
import { Engine } from './engine.ts'
import type { Flow } from './flow.ts'
import type { FlowOptions } from './flow-options.ts'
import { ShardMember } from './shard.ts'
import { Strangers } from './strangers.ts'

export interface ListenTarget {
  /** Numeric; '::' and '0.0.0.0' are every address. */
  readonly address: string
  readonly port: number
  /** With '::' only: no IPv4. */
  readonly ipv6Only: boolean
  readonly flow: FlowOptions
  /** This listener's part of the port; undefined: all of it. Never with port 0. */
  readonly shard: Shard | undefined
  readonly capture: CaptureMode | 'auto'
  readonly link: LinkMode | 'auto'
  /** Its rule is there; the acceptor and each of its flows hold it. */
  readonly guard: TtlGuard | undefined
}

/** A carrier and its key, which a connection that ends while it waits here can no longer tell. */
interface Arrival {
  readonly carrier: NativeCarrier
  readonly key: Int32Array
}

/** The kernel caps it at net.core.somaxconn. */
const BACKLOG = 65535
/** One more reason for a sharded port to be in use. */
const SHARED_PORT = 'a port is shared by all of its listeners or by none, and they belong to one user'
/** Framed connections that wait for their peer's hello, which a peer need never send. */
const MAX_UNAGREED = 4096
/** After running out of files or memory: how long until the next accept. */
const ACCEPT_RETRY_MS = 100

export class EngineAcceptor implements Acceptor {
  readonly address: ListenAddress
  readonly stats: AcceptorStats
  readonly #engine: Engine
  readonly #listener: NativeCarrierListener
  readonly #where: Pick<CaptureFilter, 'ports' | 'addresses'>
  readonly #shard: ShardMember | undefined
  readonly #options: FlowOptions
  readonly #guard: TtlGuard | undefined
  #sink: AcceptorSink | undefined
  #early: Arrival[] = []
  /** Flows that wait for an agreement about their framing. */
  readonly #unagreed = new Set<Flow>()
  /** With a key: flows that have not shown it. */
  readonly #strangers: Strangers | undefined
  #closed = false
  #referenced = true

  /** @throws what the system says: `EPERM`, `EADDRINUSE`, `EADDRNOTAVAIL`, ... */
  constructor(binding: Binding, table: FlowTable, target: ListenTarget) {
    const where = { address: target.address, port: target.port }
    const family = familyOf(target.address) === 4 ? 4 : 6
    const wildcard = target.address === '0.0.0.0' || target.address === '::'
    const families: Array<4 | 6> = family === 4 ? [4] : wildcard && !target.ipv6Only ? [6, 4] : [6]
    const words = addressWords(binding, target.address)
    const addresses = wildcard ? undefined : [words]
    this.#options = target.flow
    this.#shard = target.shard && new ShardMember(target.shard, where, words)
    const concerns = (key: Int32Array, at: number) => this.#shard?.owns(key, at) ?? true
    this.#engine = new Engine({ binding, table, capture: target.capture, link: target.link, orphans: true, concerns })
    this.#engine.onIdle = () => this.#maybeShut()
    if (target.flow.helloKey !== undefined) this.#strangers = new Strangers(this.#engine.clock, target.flow.idleTimeoutMs)
    const openCaptures = (port: number) => {
      for (const one of families) this.#engine.capture(one, { ports: [port], addresses, shard: this.#shard?.filter })
    }
    let listener: NativeCarrierListener | undefined
    let inUse: string | undefined
    try {
      // Captures first, so that no handshake goes unseen; a port that the kernel has yet to choose nobody can know before.
      if (target.port !== 0) openCaptures(target.port)
      for (const one of families) this.#engine.prepareToSend(one)
      if (target.shard !== undefined) inUse = `its shard ${target.shard.index} is there already`
      this.#shard?.open(binding, (carriers, errno) => this.#onHandedOver(carriers, errno))
      if (target.shard !== undefined) inUse = SHARED_PORT
      listener = listenCarriers(
        binding,
        { ...target, family, backlog: BACKLOG, tos: target.flow.dscp << 2, shards: target.shard?.count },
        (carriers, errno) => this.#onAccept(carriers, errno),
      )
      if (target.port === 0) openCaptures(listener.localPort)
    } catch (error) {
      listener?.close()
      this.#shard?.close()
      this.#engine.close()
      throw fromNative(error, where, inUse === undefined ? {} : { [EADDRINUSE]: inUse })
    }
    this.#listener = listener
    this.#guard = target.guard
    this.#guard?.hold()
    this.#where = { ports: [listener.localPort], addresses }
    if (this.#shard !== undefined) this.#shard.steered = listener.steered
    this.address = { address: target.address, port: listener.localPort, family: family === 4 ? 'IPv4' : 'IPv6' }
    this.stats = new AcceptorStats(this.#engine, this.#shard)
  }

  attach(sink: AcceptorSink): void {
    this.#sink = sink
    const early = this.#early
    this.#early = []
    for (const arrival of early) this.#tryAccept(arrival, sink)
  }

  close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true
      this.#listener.close()
      this.#shard?.close()
      this.#guard?.release()
      this.#engine.forgetOrphans()
      for (const { carrier } of this.#early.splice(0)) carrier.end('reset')
      for (const flow of this.#unagreed) flow.cancel()
      this.#unagreed.clear()
      this.#strangers?.dismiss()
      this.#maybeShut()
    }
    return Promise.resolve()
  }

  ref(): void {
    this.#referenced = true
    this.#listener.ref()
  }

  unref(): void {
    this.#referenced = false
    this.#listener.unref()
  }

  #maybeShut(): void {
    if (this.#closed && this.#engine.flowCount === 0) this.#engine.close()
  }

  #onAccept(carriers: NativeCarrier[], errno: number): void {
    const arrivals = carriers.flatMap(arrivalOf)
    this.#take(this.#shard === undefined ? arrivals : this.#sort(this.#shard, arrivals, true), errno, this.#listener)
  }

  #onHandedOver(carriers: NativeCarrier[], errno: number): void {
    const shard = this.#shard as ShardMember
    shard.takenOver += carriers.length
    this.#take(this.#sort(shard, carriers.flatMap(arrivalOf), false), errno, shard)
  }

  /** Gives away what belongs to other shards. What is left is accepted here, and if it is not ours our captures will see it from here on. */
  #sort(shard: ShardMember, arrivals: Arrival[], mayHandOver: boolean): Arrival[] {
    let refilter = false
    const kept = arrivals.filter(({ carrier, key }) => {
      if (shard.owns(key, 0)) return true
      if (mayHandOver && shard.handOver(carrier, key)) return false
      if (shard.keep(key)) refilter = true
      return true
    })
    if (refilter) this.#engine.setFilter(this.#filter)
    return kept
  }

  #take(arrivals: Arrival[], errno: number, source: { resume(): void }): void {
    // What the third ACK brought was captured before TCP saw it; it may still wait to be read.
    this.#engine.drain()
    if (errno !== 0) {
      // The source's poll has stopped, so this timer keeps the process alive in its place.
      const retry = setTimeout(() => source.resume(), ACCEPT_RETRY_MS)
      if (!this.#referenced) retry.unref()
    }
    for (const arrival of arrivals) {
      if (this.#sink === undefined) this.#early.push(arrival)
      else this.#tryAccept(arrival, this.#sink)
    }
    if (errno !== 0) this.#sink?.onError(systemError(errno, 'accept', { address: this.address.address, port: this.address.port }))
  }

  /** What goes wrong with one connection must not cost the others. */
  #tryAccept(arrival: Arrival, sink: AcceptorSink): void {
    try {
      this.#accept(arrival, sink)
    } catch (error) {
      arrival.carrier.end('reset') // does nothing where it has ended already
      rethrowLater(error)
    }
  }

  #accept({ carrier, key }: Arrival, sink: AcceptorSink): void {
    const stray = this.#shard?.owns(key, 0) === false
    const release = () => stray && this.#release(key)
    if (arrivalOf(carrier).length === 0) {
      release()
      return
    }
    const orphan = this.#engine.orphans?.claim(key, 0)
    const refusal = this.#refusal(sink)
    if (refusal !== undefined) {
      release()
      this.#refuse(carrier, key, refusal, sink)
      return
    }
    try {
      this.#guard?.quieten(carrier, { address: this.address.address, port: this.address.port })
    } catch (error) {
      release()
      this.#refuse(carrier, key, 'guard', sink)
      sink.onError(error as Error)
      return
    }
    // The kernel has made a new connection on this 4-tuple, so whatever we still believe of an older one is over.
    this.#engine.find(key, 0)?.supersede()
    const seen = orphan?.irs !== undefined && orphan.isn !== undefined
    const onFreed = () => {
      release()
      this.#guard?.release()
    }
    const strangers = this.#strangers
    const waits = strangers !== undefined || this.#options.framing !== 'none'
    let flow: Flow | undefined
    let full = false
    try {
      flow = this.#engine.insert(
        key,
        carrier,
        {
          ...{ role: 'listener', dialect: 'native', options: this.#options, onFreed },
          onAgreed: waits ? (error) => flow !== undefined && this.#onAgreed(flow, key, sink, error) : undefined,
        },
        this.#modeFor(key, seen || stray),
      )
    } catch (error) {
      if (!(error instanceof FakeTcpError)) throw error
      full = true
    }
    if (flow === undefined) {
      release()
      this.#refuse(carrier, key, full ? 'table-full' : 'taken', sink)
      return
    }
    this.#guard?.hold()
    if (orphan?.irs !== undefined && orphan.isn !== undefined) flow.begin({ ...orphan, irs: orphan.irs, isn: orphan.isn })
    if (strangers !== undefined) strangers.admit(flow)
    else if (waits) this.#unagreed.add(flow)
    flow.open(seen)
    if (!waits) this.#announce(flow, sink)
    const now = this.#engine.clock.now()
    for (const train of orphan?.trains ?? []) flow.receive(train.descriptor, 0, train.payload, now)
  }

  /** Strangers to the key see the same however full it is here. */
  #refusal(sink: AcceptorSink): RefusedConnection['reason'] | undefined {
    if (this.#strangers !== undefined) return undefined
    return this.#unagreed.size < MAX_UNAGREED ? sink.refuse() : 'backlog'
  }

  #announce(flow: Flow, sink: AcceptorSink): void {
    this.stats.accepted++
    guarded(() => sink.onChannel(flow))
  }

  /** A connection that waited for a hello may begin, or has ended before it could, or is a stranger's. Since it was accepted others may have taken its place. */
  #onAgreed(flow: Flow, key: Int32Array, sink: AcceptorSink, error: Error | undefined): void {
    const { strangeness } = flow
    if (strangeness !== undefined) {
      this.#tellRefused(key, strangeness, sink)
      return
    }
    this.#unagreed.delete(flow)
    this.#strangers?.recognise(flow)
    const refusal = error === undefined ? sink.refuse() : 'framing'
    if (refusal === undefined) {
      this.#announce(flow, sink)
      return
    }
    flow.cancel()
    this.#tellRefused(key, refusal, sink)
  }

  /**
   * A handshake that AF_PACKET did not see on the carrier's own 4-tuple: this host rewrites addresses or ports (REDIRECT, DNAT), and only a raw
   * socket, behind the rewriting, sees the flow as its carrier does. A stray was not seen because it was not looked for.
   */
  #modeFor(key: Int32Array, seen: boolean): CaptureMode | undefined {
    if (seen || !this.#engine.mayFallBack) return undefined
    this.#engine.capture(isMapped(key, KEY_LOCAL) ? 4 : 6, this.#filter, 'raw')
    return 'raw'
  }

  get #filter(): CaptureFilter {
    return { ...this.#where, shard: this.#shard?.filter }
  }

  /** A stray is gone. */
  #release(key: Int32Array): void {
    // With the last flow of a closed listener the captures have gone.
    if (this.#shard?.release(key) && !(this.#closed && this.#engine.flowCount === 0)) this.#engine.setFilter(this.#filter)
  }

  #refuse(carrier: NativeCarrier, key: Int32Array, reason: RefusedConnection['reason'], sink: AcceptorSink): void {
    carrier.end('reset') // nothing was sent yet, so the kernel's own numbers are right
    this.#tellRefused(key, reason, sink)
  }

  #tellRefused(key: Int32Array, reason: RefusedConnection['reason'], sink: AcceptorSink): void {
    this.stats.refused++
    sink.onRefused({
      reason,
      family: isMapped(key, KEY_LOCAL) ? 'IPv4' : 'IPv6',
      localAddress: formatAddress(key, KEY_LOCAL),
      localPort: key[KEY_PORTS] & 0xffff,
      remoteAddress: formatAddress(key, KEY_REMOTE),
      remotePort: key[KEY_PORTS] >>> 16,
    })
  }
}

class AcceptorStats extends EngineStats implements ListenerStats {
  accepted = 0
  refused = 0
  readonly #engine: Engine

  readonly shard: ShardStats | undefined

  constructor(engine: Engine, shard: ShardStats | undefined) {
    super(engine.counters, engine.captures)
    this.#engine = engine
    this.shard = shard
  }

  get orphans(): number {
    return this.#engine.orphans?.size ?? 0
  }
}

/** None for a connection that its peer has reset before it was accepted: the kernel sees resets where it refused our filter. */
function arrivalOf(carrier: NativeCarrier): [] | [Arrival] {
  const key = new Int32Array(KEY_WORDS)
  try {
    carrier.key(key)
    return [{ carrier, key }]
  } catch {
    carrier.end('reset') // sends nothing: there is no connection any more
    return []
  }
}

function addressWords(binding: Binding, address: string): Int32Array {
  const words = new Int32Array(4)
  binding.parseAddress(address, words)
  return words
}
