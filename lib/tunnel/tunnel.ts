// Tunnel: what the application has of either end. Events, statistics, the tick, the close.
import { EventEmitter } from 'node:events'
import { abortError, guarded } from '../errors.ts'
import type { ListenAddress } from '../transport.ts'
import type { OpenFlows } from './open-flows.ts'
import { type FlowChange, Shared } from './shared.ts'
import type { TunnelFlowStats, TunnelStats } from './stats.ts'
import { type TunnelWarning, Warnings } from './warnings.ts'

const TICK_MS = 1000
const GRACE_MS = 3000

/** A server's or a client's part. */
export interface TunnelEnd {
  readonly role: 'server' | 'client'
  readonly flows: OpenFlows
  /** Conversations now. */
  readonly peers: number
  address(): ListenAddress
  flowStats(): TunnelFlowStats[]
  /** Once a second. */
  tick(): void
  /** Passes on what has been received, and ends all flows in good order. */
  close(): Promise<void>
  /** At once. */
  destroy(): void
}

export interface TunnelEvents {
  warning: [warning: TunnelWarning]
  /** A flow has opened, its handshakes complete, or has ended. */
  flow: [change: FlowChange]
  close: []
}

/** One end of a tunnel, as `tunnelServer` and `tunnelClient` open it. */
export class Tunnel extends EventEmitter<TunnelEvents> {
  readonly #since = Date.now()
  readonly #shared: Shared
  readonly #end: TunnelEnd
  readonly #timer: NodeJS.Timeout
  #closing: Promise<void> | undefined

  /** @internal */
  static async open(signal: AbortSignal | undefined, keyed: boolean, open: (shared: Shared) => Promise<TunnelEnd>): Promise<Tunnel> {
    let tunnel: Tunnel | undefined
    // What is told while it opens is told when somebody can listen. It may be told in the midst of a batch of packets.
    const tell = (emit: (tunnel: Tunnel) => void) => {
      const now = tunnel
      if (now !== undefined) guarded(() => emit(now))
      else setImmediate(() => tunnel !== undefined && emit(tunnel))
    }
    const shared = new Shared(new Warnings((warning) => tell((one) => one.emit('warning', warning))), (change) =>
      tell((one) => one.emit('flow', change)),
    )
    if (!keyed) shared.encrypted = 'none'
    const opened = new Tunnel(shared, await open(shared))
    if (signal?.aborted) {
      await opened.close({ graceMs: 0 })
      throw abortError(signal)
    }
    tunnel = opened
    const onAbort = () => void opened.close()
    signal?.addEventListener('abort', onAbort, { once: true })
    opened.once('close', () => signal?.removeEventListener('abort', onAbort))
    return opened
  }

  private constructor(shared: Shared, end: TunnelEnd) {
    super()
    this.#shared = shared
    this.#end = end
    this.#timer = setInterval(() => end.tick(), TICK_MS)
  }

  get role(): 'server' | 'client' {
    return this.#end.role
  }

  /** What `listen` became: a server's fake TCP address, a client's UDP address. */
  address(): ListenAddress {
    return this.#end.address()
  }

  /** A snapshot. It reads memory; what the kernel counts is asked for once a second. */
  get stats(): TunnelStats {
    const { encrypted, peersTotal, flowsTotal, drops, reconnects } = this.#shared
    const { role, flows, peers } = this.#end
    const sum = flows.sum
    return {
      role,
      since: this.#since,
      encrypted,
      peers,
      peersTotal,
      flows: this.#end.flowStats(),
      flowsTotal,
      in: { datagrams: sum.datagramsIn, bytes: sum.bytesIn },
      out: { datagrams: sum.datagramsOut, bytes: sum.bytesOut },
      lostIn: sum.lostIn,
      lostOut: sum.lostOut,
      drops: { ...drops },
      reconnects,
    }
  }

  /**
   * Takes no more datagrams, passes on what has been received, ends the flows with a FIN, and resolves when all is closed. Idempotent.
   *
   * @param options `graceMs`: after so long what is still open is reset. Default 3 000
   */
  close({ graceMs = GRACE_MS }: { readonly graceMs?: number } = {}): Promise<void> {
    this.#closing ??= this.#close(graceMs)
    return this.#closing
  }

  async #close(graceMs: number): Promise<void> {
    const timer = setTimeout(() => this.#end.destroy(), graceMs)
    await this.#end.close()
    clearTimeout(timer)
    clearInterval(this.#timer)
    this.#end.destroy()
    this.emit('close')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}
