// The client's end: takes datagrams of UDP peers, gives each peer a session and a flow, and brings the answers back.
import { randomBytes } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import { getSystemErrorName } from 'node:util'
import { familyOf, formatAddress, unmapped } from '../address.ts'
import { fromNative } from '../errors.ts'
import type { Binding } from '../native/binding.ts'
import { D_LENGTH, D_OFFSET, D_SEGMENT, D_WORDS, KEY_LOCAL, KEY_WORDS } from '../native/layout.ts'
import type { ListenAddress } from '../transport.ts'
import type { UdpSink, UdpSocket } from '../udp/socket.ts'
import { type ClientContext, ClientFlow } from './client-flow.ts'
import { CLIENT_ID_BYTES } from './handshake.ts'
import type { Secrets } from './keys.ts'
import { datagramsIn } from './messages.ts'
import { OpenFlows, statsOf } from './open-flows.ts'
import type { ParsedTunnelClient } from './options.ts'
import { type Peer, PeerTable } from './peer-table.ts'
import type { Shared } from './shared.ts'
import { RisingSum, type TunnelFlowStats } from './stats.ts'
import type { TunnelEnd } from './tunnel.ts'
import type { FlowSink, TunnelFlow } from './tunnel-flow.ts'
import { Turns } from './turns.ts'
import { UdpExit } from './udp-exit.ts'
import { openUdp } from './udp-open.ts'

const RECEIVE_BUFFER_BYTES = 8 << 20
/** Flows that are opened at once. Thousands together would all be done at the same time, which may be too late for all of them, again and again. */
const DIALS = 64

export class ClientEnd implements TunnelEnd, UdpSink, FlowSink {
  readonly role = 'client'
  readonly flows: OpenFlows
  readonly #shared: Shared
  readonly #options: ParsedTunnelClient
  readonly #socket: UdpSocket
  readonly #exit: UdpExit
  readonly #address: ListenAddress
  readonly #context: ClientContext
  readonly #peers = new PeerTable()
  /** Open or not; with `flows: 0` one for each peer. */
  readonly #clientFlows = new Set<ClientFlow>()
  /** Sessions of nobody that the server was told to forget since the last tick. */
  readonly #strays = new Set<number>()
  readonly #udpDrops = new RisingSum()
  readonly #captureDrops = new RisingSum()
  #closing = false

  static async open(binding: Binding, options: ParsedTunnelClient, secrets: Secrets, shared: Shared): Promise<ClientEnd> {
    const { host } = options.listen
    const address = host === '' || familyOf(host) !== 0 ? unmapped(host) : (await lookup(host)).address
    probeRights(binding)
    return new ClientEnd(binding, options, secrets, shared, address)
  }

  private constructor(binding: Binding, options: ParsedTunnelClient, secrets: Secrets, shared: Shared, address: string) {
    this.#shared = shared
    this.#options = options
    this.flows = new OpenFlows(shared)
    const { listen, receiveBufferBytes = RECEIVE_BUFFER_BYTES } = options
    this.#socket = openUdp(binding, { address, port: listen.port, receiveBufferBytes }, this, shared)
    this.#exit = new UdpExit(shared, this.#socket)
    const key = new Int32Array(KEY_WORDS)
    this.#socket.key(key)
    const bound = formatAddress(key, KEY_LOCAL)
    this.#address = { address: bound, port: this.#socket.localPort, family: familyOf(bound) === 6 ? 'IPv6' : 'IPv4' }
    this.#context = {
      options,
      shared,
      flows: this.flows,
      secrets,
      clientId: randomBytes(CLIENT_ID_BYTES),
      sink: this,
      turns: new Turns(DIALS),
    }
    for (let i = 0; i < options.flows; i++) this.#clientFlows.add(new ClientFlow(this.#context))
  }

  address(): ListenAddress {
    return this.#address
  }

  get peers(): number {
    return this.#peers.size
  }

  flowStats(): TunnelFlowStats[] {
    return [...this.#clientFlows].map((one) => (one.open === undefined ? connecting(one) : statsOf(one.open, one.sessions.size)))
  }

  /** From the peers. */
  onTrains({ descriptors, slab }: UdpSocket, count: number): void {
    if (this.#closing) return
    for (let at = 0; at < count * D_WORDS; at += D_WORDS) {
      const length = descriptors[at + D_LENGTH]
      const segment = descriptors[at + D_SEGMENT]
      const peer = this.#peers.find(descriptors, at) ?? this.#begin(descriptors, at, length, segment)
      if (peer === undefined) continue
      peer.idle = 0
      peer.flow.send(peer.session, slab, descriptors[at + D_OFFSET], length, segment)
    }
  }

  onRoom(): void {
    this.#exit.flush()
  }

  onError(_socket: UdpSocket, errno: number): void {
    this.#shared.warnings.warn('udp', () => `The UDP socket reports ${getSystemErrorName(errno)}`)
  }

  /** From the server. */
  onData(flow: TunnelFlow, session: number, memory: Uint8Array, offset: number, length: number, segment: number): void {
    const peer = this.#peers.bySession(session)
    if (peer === undefined) {
      this.#shared.drops.malformed += datagramsIn(length, segment)
      this.#closeStray(flow, session)
      return
    }
    peer.idle = 0
    this.#exit.add(memory, offset, length, segment, peer.key, peer.ifindex)
  }

  onTrainEnd(): void {
    this.#exit.flush()
  }

  /** Servers send neither. */
  onClose(): void {}
  onBind(): void {}

  /** The message that said so was lost, and what sends there would keep the conversation for ever. */
  #closeStray(flow: TunnelFlow, session: number): void {
    if (this.#strays.has(session)) return
    this.#strays.add(session)
    flow.sendClose([session])
  }

  /** Once a second. */
  tick(): void {
    this.#strays.clear()
    this.flows.tick()
    for (const one of this.#clientFlows) one.tick()
    for (const peer of this.#peers) if (++peer.idle * 1000 > this.#options.idleTimeoutMs) this.#end(peer)
    this.#socket.sample()
    this.#shared.drops['kernel-udp'] += this.#udpDrops.take(this.#socket.kernelDrops)
    for (const { conn } of this.flows) {
      // All dialled connections of a thread share their captures.
      this.#shared.drops['kernel-capture'] += this.#captureDrops.take(conn.stats.kernelDrops)
      break
    }
  }

  async close(): Promise<void> {
    this.#socket.drain()
    this.#closing = true
    await Promise.all([...this.#clientFlows].map((one) => one.close()))
    this.#socket.close()
  }

  destroy(): void {
    this.#closing = true
    for (const one of this.#clientFlows) void one.close()
    this.flows.destroy('the tunnel was closed')
    this.#socket.close()
  }

  #begin(descriptors: Int32Array, at: number, length: number, segment: number): Peer | undefined {
    const { drops, warnings } = this.#shared
    const { maxPeers } = this.#options
    if (this.#peers.size >= maxPeers) {
      drops['peer-limit'] += datagramsIn(length, segment)
      warnings.warn('peer-limit', () => `${maxPeers} conversations are open (maxPeers): datagrams of further peers are dropped`)
      return undefined
    }
    const flow = this.#options.flows === 0 ? new ClientFlow(this.#context) : leastLoaded(this.#clientFlows)
    this.#clientFlows.add(flow)
    const peer = this.#peers.add(descriptors, at, flow)
    flow.sessions.add(peer.session)
    this.#shared.peersTotal++
    return peer
  }

  #end(peer: Peer): void {
    this.#peers.remove(peer)
    if (this.#options.flows > 0) {
      peer.flow.forget(peer.session)
      return
    }
    this.#clientFlows.delete(peer.flow)
    void peer.flow.close()
  }
}

/** Without them no flow will ever open, however often it is tried. */
function probeRights(binding: Binding): void {
  try {
    new binding.RawSender({ family: 4, sendBufferBytes: 4096, onWritable: () => {} }).close()
  } catch (error) {
    throw fromNative(error)
  }
}

function leastLoaded(flows: Iterable<ClientFlow>): ClientFlow {
  const [first, ...others] = flows
  return others.reduce((least, one) => (one.sessions.size < least.sessions.size ? one : least), first)
}

function connecting(one: ClientFlow): TunnelFlowStats {
  return {
    id: one.id,
    state: 'connecting',
    localAddress: '',
    localPort: 0,
    remoteAddress: '',
    remotePort: 0,
    link: undefined,
    peers: one.sessions.size,
    in: { datagrams: 0, bytes: 0 },
    out: { datagrams: 0, bytes: 0 },
    lossIn: undefined,
    lossOut: undefined,
    rttMs: undefined,
  }
}
