// Dials: one engine for all connections that this thread dials in the same way, so that one capture socket for each family serves them all.
import { familyOf, formatAddress, formatHostPort, isLinkLocal } from '../address.ts'
import { openCarrier } from '../carrier/carrier.ts'
import type { TtlGuard } from '../carrier/ttl-guard.ts'
import { EADDRINUSE, FakeTcpError, fromNative, systemError } from '../errors.ts'
import type { FlowTable } from '../flow/table.ts'
import type { CaptureFilter, CaptureMode } from '../link/capture.ts'
import type { LinkMode } from '../link/sender.ts'
import type { Binding, NativeCarrier } from '../native/binding.ts'
import { KEY_LOCAL, KEY_PORTS, KEY_REMOTE, KEY_WORDS } from '../native/layout.ts'
import type { Channel } from '../transport.ts'
import type { Dialect } from '../wire/dialect.ts'
import { MAX_PORTS } from '../wire/programs.ts'
import { Engine } from './engine.ts'
import type { Flow } from './flow.ts'
import type { FlowOptions } from './flow-options.ts'

export interface DialTarget {
  /** Numeric. */
  readonly address: string
  readonly port: number
  /** Numeric; undefined: as the host's routes say. */
  readonly localAddress: string | undefined
  /** 0: the kernel chooses. */
  readonly localPort: number
  readonly dialect: Dialect
  /** Its rule is there as long as the caller waits; the flow holds it from then on. */
  readonly guard: TtlGuard | undefined
  readonly flow: FlowOptions
}

/** One dial that has not settled yet. */
export interface Dialling {
  /** Gives up; `settled` is not called afterwards. Nothing stays behind. */
  cancel(): void
  /** Why time is up, where the handshake was not what it waited for. */
  readonly missing: Error | undefined
}

/** How flows are captured and sent: those that agree in it share a dialler. */
export interface DialLinks {
  readonly capture: CaptureMode | 'auto'
  readonly link: LinkMode | 'auto'
}

/** Diallers of this thread, by table and links; each goes when its last flow has gone. */
const diallers = new Map<FlowTable, Map<string, Dialler>>()

export function diallerFor(binding: Binding, table: FlowTable, links: DialLinks): Dialler {
  const name = `${links.capture} ${links.link}`
  const ofTable = diallers.get(table) ?? new Map<string, Dialler>()
  diallers.set(table, ofTable)
  const dialler = ofTable.get(name) ?? new Dialler(binding, table, links, () => retire(table, name))
  ofTable.set(name, dialler)
  return dialler
}

function retire(table: FlowTable, name: string): void {
  const ofTable = diallers.get(table)
  ofTable?.delete(name)
  if (ofTable?.size === 0) diallers.delete(table)
}

export class Dialler {
  readonly #binding: Binding
  readonly #engine: Engine
  readonly #onRetired: () => void
  /** Local ports in use, and by how many flows (one port can dial several peers). */
  readonly #ports = new Map<number, number>()
  #dialling = 0

  constructor(binding: Binding, table: FlowTable, links: DialLinks, onRetired: () => void) {
    this.#binding = binding
    this.#engine = new Engine({ binding, table, ...links, orphans: false })
    this.#engine.onIdle = () => this.#maybeRetire()
    this.#onRetired = onRetired
  }

  /** True when a handshake that this dialler did not see may be visible to one that captures by raw socket. */
  get mayFallBack(): boolean {
    return this.#engine.mayFallBack
  }

  /**
   * Makes the kernel connection and the flow on it.
   *
   * @param settled once, later: with the open channel, or with the error (`ECONNREFUSED`, `ERR_FAKETCP_HANDSHAKE_UNSEEN`, ...)
   * @throws what goes wrong before a packet is sent (`EPERM`, `EADDRINUSE`, `ERR_FAKETCP_TABLE_FULL`, ...)
   */
  dial(target: DialTarget, settled: (error: Error | undefined, channel: Channel | undefined) => void): Dialling {
    const where = { address: target.address, port: target.port }
    const family = familyOf(target.address) === 4 ? 4 : 6
    const key = new Int32Array(KEY_WORDS)
    this.#dialling++
    let carrier: NativeCarrier | undefined
    let flow: Flow | undefined
    try {
      const local = this.#localAddress(target, key)
      this.#engine.capture(family, this.#filter())
      this.#engine.prepareToSend(family)
      const made = this.#bind(family, local, target)
      carrier = made
      const port = made.localPort
      key[KEY_PORTS] = (target.port << 16) | port
      const { dialect, flow: options } = target
      const onFreed = () => {
        this.#removePort(port)
        target.guard?.release()
      }
      const settle = (error: Error | undefined) => {
        this.#dialling--
        if (error !== undefined) flow?.cancel()
        settled(error, error === undefined ? flow : undefined)
        this.#maybeRetire()
      }
      const waits = options.framing !== 'none' || options.helloKey !== undefined
      const onAgreed = waits ? settle : undefined
      flow = this.#engine.insert(key, made, { role: 'dialler', dialect, options, onAgreed, onFreed })
      if (flow === undefined) throw systemError(EADDRINUSE, 'connect', where)
      target.guard?.hold()
      this.#addPort(port)
      const opening = flow
      made.connect(target.address, target.port, (errno) => {
        // The SYN-ACK was captured before TCP saw it; it may still wait to be read.
        if (errno === 0) this.#engine.drain()
        try {
          if (errno !== 0) throw systemError(errno, 'connect', where)
          if (!opening.handshakeSeen) throw unseen(target)
          target.guard?.quieten(made, where)
        } catch (error) {
          settle(error as Error)
          return
        }
        opening.open(true)
        if (!waits) settle(undefined)
      })
      return {
        cancel: () => {
          this.#dialling--
          opening.cancel()
          this.#maybeRetire()
        },
        get missing() {
          return opening.missing
        },
      }
    } catch (error) {
      this.#dialling--
      if (flow !== undefined) flow.cancel()
      else carrier?.end('fin')
      this.#maybeRetire()
      throw fromNative(error, where)
    }
  }

  /** Writes both addresses into the key; returns the local one as text. */
  #localAddress(target: DialTarget, key: Int32Array): string {
    this.#binding.parseAddress(target.address, key.subarray(KEY_REMOTE, KEY_REMOTE + 4))
    const local = key.subarray(KEY_LOCAL, KEY_LOCAL + 4)
    if (target.localAddress !== undefined) {
      this.#binding.parseAddress(target.localAddress, local)
      return target.localAddress
    }
    this.#binding.sourceAddress(target.address, local)
    const zone = target.address.indexOf('%')
    const text = formatAddress(key, KEY_LOCAL)
    return zone < 0 || !isLinkLocal(key, KEY_LOCAL) ? text : text + target.address.slice(zone)
  }

  #bind(family: 4 | 6, address: string, { localPort: port, flow }: DialTarget): NativeCarrier {
    try {
      return openCarrier(this.#binding, family, address, port, flow.dscp << 2)
    } catch (error) {
      throw fromNative(error, port === 0 ? { address } : { address, port })
    }
  }

  #filter(): CaptureFilter {
    const ports = [...this.#ports.keys()]
    if (ports.length <= MAX_PORTS) return { ports }
    return { ports: { min: Math.min(...ports), max: Math.max(...ports) } }
  }

  #addPort(port: number): void {
    const users = this.#ports.get(port) ?? 0
    this.#ports.set(port, users + 1)
    if (users === 0) this.#engine.setFilter(this.#filter())
  }

  #removePort(port: number): void {
    const users = this.#ports.get(port) ?? 0
    if (users > 1) this.#ports.set(port, users - 1)
    else if (this.#ports.delete(port) && this.#ports.size > 0) this.#engine.setFilter(this.#filter())
  }

  #maybeRetire(): void {
    if (this.#dialling > 0 || this.#engine.flowCount > 0) return
    this.#onRetired()
    this.#engine.close()
  }
}

function unseen(target: DialTarget): FakeTcpError {
  const peer = formatHostPort(target.address, target.port)
  return new FakeTcpError(
    'ERR_FAKETCP_HANDSHAKE_UNSEEN',
    `The handshake with ${peer} completed but was not captured: this host rewrites its packets`,
  )
}
