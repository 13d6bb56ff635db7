// The server's end: accepts flows, and passes their conversations on by UDP.
import { lookup } from 'node:dns/promises'
import { familyOf, unmapped } from '../address.ts'
import type { FakeTcpConn } from '../conn.ts'
import { listen } from '../listen.ts'
import type { FakeTcpListener } from '../listener.ts'
import type { Binding } from '../native/binding.ts'
import type { ListenAddress } from '../transport.ts'
import { Arrivals, MAX_ARRIVALS } from './arrivals.ts'
import { openCodec } from './codec.ts'
import { Conversations } from './conversations.ts'
import type { Accepted } from './handshake.ts'
import type { Secrets } from './keys.ts'
import { OpenFlows, statsOf } from './open-flows.ts'
import type { ParsedTunnel } from './options.ts'
import type { Shared } from './shared.ts'
import { RisingSum, type TunnelFlowStats } from './stats.ts'
import type { TunnelEnd } from './tunnel.ts'
import { TunnelFlow } from './tunnel-flow.ts'
import { openUdp } from './udp-open.ts'

/** Bytes that may wait for the kernel in one flow; what comes beyond is dropped. */
const SEND_QUEUE_BYTES = 4 << 20
const RECEIVE_BUFFER_BYTES = 1 << 20
/** A flow whose handshake is followed by nothing for so many seconds is closed. */
const PROOF_TICKS = 30
/** Flows at once: a client that has lost one dials another before the server finds out. */
const FLOWS_PER_PEER = 2
/** Trains that wait for one conversation's socket. */
const OUTBOX_TRAINS = 16

export class ServerEnd implements TunnelEnd {
  readonly role = 'server'
  readonly flows: OpenFlows
  readonly #shared: Shared
  readonly #listener: FakeTcpListener
  readonly #address: ListenAddress
  readonly #arrivals: Arrivals
  readonly #conversations: Conversations
  readonly #kernelDrops = new RisingSum()

  static async open(binding: Binding, options: ParsedTunnel, secrets: Secrets, shared: Shared): Promise<ServerEnd> {
    const { listen: at, carried, to, signal } = options
    const { helloKey } = secrets
    // Before anybody is let in.
    const address = familyOf(to.host) !== 0 ? unmapped(to.host) : (await lookup(to.host || 'localhost')).address
    const listener = await listen({
      ...carried,
      ...(at.host === '' ? {} : { host: at.host }),
      port: at.port,
      maxConnections: FLOWS_PER_PEER * options.maxPeers + MAX_ARRIVALS,
      writableHighWaterMark: SEND_QUEUE_BYTES,
      ...(helloKey === undefined ? {} : { helloKey }),
      ...(signal === undefined ? {} : { signal }),
    })
    return new ServerEnd(binding, options, secrets, shared, listener, address)
  }

  private constructor(
    binding: Binding,
    options: ParsedTunnel,
    secrets: Secrets,
    shared: Shared,
    listener: FakeTcpListener,
    toAddress: string,
  ) {
    this.#shared = shared
    this.#listener = listener
    this.#address = listener.addresses()[0]
    this.flows = new OpenFlows(shared)
    const target = {
      address: familyOf(toAddress) === 6 ? '::' : '0.0.0.0',
      port: 0,
      receiveBufferBytes: options.receiveBufferBytes ?? RECEIVE_BUFFER_BYTES,
      outboxTrains: OUTBOX_TRAINS,
    }
    this.#conversations = new Conversations(shared, options, (sink) => {
      const socket = openUdp(binding, target, sink, shared)
      try {
        socket.connect(toAddress, options.to.port)
      } catch (error) {
        socket.close()
        throw error
      }
      return socket
    })
    this.#arrivals = new Arrivals(shared, secrets, options.wish, (conn, accepted, init) => this.#accept(conn, accepted, init))
    listener
      .on('connection', (conn) => this.#arrivals.add(conn))
      .on('error', (error) => shared.warnings.warn('accept', () => `A connection could not be accepted: ${error.message}`))
      .on('drop', (refused) => {
        if (refused.reason === 'hello' || refused.reason === 'replay') this.#arrivals.refused(refused)
        if (refused.reason === 'maxConnections')
          shared.warnings.warn('peer-limit', () => `${listener.maxConnections} flows are open: further ones are refused`)
      })
  }

  address(): ListenAddress {
    return this.#address
  }

  get peers(): number {
    return this.#conversations.size
  }

  flowStats(): TunnelFlowStats[] {
    const peers = new Map<TunnelFlow, number>()
    for (const { flow } of this.#conversations) if (flow !== undefined) peers.set(flow, (peers.get(flow) ?? 0) + 1)
    return [...this.flows].map((flow) => statsOf(flow, peers.get(flow) ?? 0))
  }

  tick(): void {
    this.flows.tick()
    this.#conversations.tick()
    const [{ kernelDrops }] = this.#listener.stats
    this.#shared.drops['kernel-capture'] += this.#kernelDrops.take(kernelDrops)
  }

  async close(): Promise<void> {
    const stopped = this.#listener.close()
    this.#conversations.drain()
    await Promise.all([this.flows.close(), this.#arrivals.close()])
    await stopped
    this.#conversations.close()
  }

  destroy(): void {
    void this.#listener.close()
    this.flows.destroy('the tunnel was closed')
    this.#arrivals.destroy()
    this.#conversations.close()
  }

  #accept(conn: FakeTcpConn, { clientId, keys, message }: Accepted, init: Buffer): TunnelFlow {
    const codec = openCodec(keys === undefined ? {} : { seal: keys.server, open: keys.client })
    const { sink, enter, leave } = this.#conversations.join(clientId.toString('hex'))
    const flow = new TunnelFlow({
      id: this.#shared.nextId(),
      shared: this.#shared,
      conn,
      codec,
      sink,
      repeat: { message: init, answer: message },
      proofTicks: PROOF_TICKS,
      onEnd: (ended, reason) => {
        leave(ended)
        this.flows.remove(ended, reason)
      },
    })
    this.#shared.encrypted = keys?.server.cipher ?? 'none'
    enter(flow)
    this.flows.add(flow)
    return flow
  }
}
