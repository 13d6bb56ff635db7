// A server's conversations: each is one session of one client and has a UDP socket of its own. It goes on when the client comes back on another flow.
import { getSystemErrorName } from 'node:util'
import { D_LENGTH, D_OFFSET, D_SEGMENT, D_WORDS } from '../native/layout.ts'
import type { UdpSink, UdpSocket } from '../udp/socket.ts'
import { datagramsIn } from './messages.ts'
import type { Shared } from './shared.ts'
import { RisingSum } from './stats.ts'
import type { FlowSink, TunnelFlow } from './tunnel-flow.ts'
import { UdpExit } from './udp-exit.ts'

/** Opens a socket that is connected to where the datagrams go. */
export type OpenSocket = (sink: UdpSink) => UdpSocket

interface Limits {
  readonly idleTimeoutMs: number
  readonly maxPeers: number
}

/** One client process, whatever flows it has. */
class Client {
  readonly conversations = new Map<number, Conversation>()
  /** Open now, the newest last. */
  readonly flows = new Set<TunnelFlow>()

  constructor(readonly id: string) {}

  /** Takes answers of any conversation. Whoever has recorded a handshake can repeat it, so it must have shown more. */
  get newestFlow(): TunnelFlow | undefined {
    return [...this.flows].filter(({ proven }) => proven).at(-1)
  }
}

class Conversation implements UdpSink {
  readonly session: number
  readonly socket: UdpSocket
  readonly exit: UdpExit
  readonly drops = new RisingSum()
  /** Where the answers go: the client takes them on any of its flows, but this is the one that it has chosen. */
  flow: TunnelFlow | undefined
  /** Seconds since anything came from either side. */
  idle = 0
  /** Has datagrams that have not left yet. */
  filled = false
  readonly #shared: Shared
  readonly #client: Client

  constructor(shared: Shared, client: Client, session: number, open: OpenSocket) {
    this.#shared = shared
    this.#client = client
    this.session = session
    this.socket = open(this)
    this.exit = new UdpExit(shared, this.socket)
  }

  onTrains({ descriptors, slab }: UdpSocket, count: number): void {
    // Found once: it stays the conversation's, as if the client had chosen it.
    this.flow ??= this.#client.newestFlow
    // What nobody can be sent does not keep the conversation of a client that has gone for good.
    if (this.flow !== undefined) this.idle = 0
    for (let at = 0; at < count * D_WORDS; at += D_WORDS) {
      const length = descriptors[at + D_LENGTH]
      const segment = descriptors[at + D_SEGMENT]
      if (this.flow !== undefined) this.flow.send(this.session, slab, descriptors[at + D_OFFSET], length, segment)
      else this.#shared.drops['no-flow'] += datagramsIn(length, segment)
    }
  }

  /** The client has sent or named it there. What is late, on a flow that a newer one has replaced, changes nothing. */
  choose(flow: TunnelFlow): void {
    if (this.flow === undefined || flow.id > this.flow.id) this.flow = flow
  }

  onRoom(): void {
    this.exit.flush()
  }

  onError(_socket: UdpSocket, errno: number): void {
    this.#shared.warnings.warn('udp', () => `A datagram did not reach its destination: ${getSystemErrorName(errno)}`)
  }
}

export class Conversations {
  readonly #shared: Shared
  readonly #limits: Limits
  readonly #open: OpenSocket
  readonly #clients = new Map<string, Client>()
  #filled: Conversation[] = []
  #count = 0

  constructor(shared: Shared, limits: Limits, open: OpenSocket) {
    this.#shared = shared
    this.#limits = limits
    this.#open = open
  }

  /** Now. */
  get size(): number {
    return this.#count
  }

  *[Symbol.iterator](): Iterator<Conversation> {
    for (const { conversations } of this.#clients.values()) yield* conversations.values()
  }

  /** A new flow of this client: what becomes of what it brings, and what is to be done when it has opened and ended. */
  join(id: string): { sink: FlowSink; enter: (flow: TunnelFlow) => void; leave: (flow: TunnelFlow) => void } {
    const client = this.#clients.get(id) ?? new Client(id)
    const enter = (flow: TunnelFlow) => {
      this.#clients.set(id, client)
      client.flows.add(flow)
    }
    const sink: FlowSink = {
      onData: (flow, session, memory, offset, length, segment) => {
        const conversation = client.conversations.get(session) ?? this.#begin(client, session, length, segment)
        if (conversation === undefined) return
        conversation.choose(flow)
        conversation.idle = 0
        conversation.exit.add(memory, offset, length, segment)
        if (conversation.filled) return
        conversation.filled = true
        this.#filled.push(conversation)
      },
      onTrainEnd: () => this.#flush(),
      onClose: (_flow, sessions) => {
        for (const session of sessions) this.#end(client, client.conversations.get(session))
      },
      onBind: (flow, sessions) => {
        for (const session of sessions) client.conversations.get(session)?.choose(flow)
      },
    }
    const leave = (flow: TunnelFlow) => {
      client.flows.delete(flow)
      for (const conversation of client.conversations.values()) if (conversation.flow === flow) conversation.flow = undefined
      this.#forgetIfEmpty(client)
    }
    return { sink, enter, leave }
  }

  /** Once a second. */
  tick(): void {
    for (const client of this.#clients.values()) {
      for (const conversation of client.conversations.values()) {
        if (++conversation.idle * 1000 > this.#limits.idleTimeoutMs) this.#end(client, conversation)
        else this.#sample(conversation)
      }
    }
  }

  /** Passes on what the kernel has received by UDP. */
  drain(): void {
    for (const { socket } of this) socket.drain()
  }

  close(): void {
    for (const client of this.#clients.values()) for (const one of client.conversations.values()) this.#end(client, one)
  }

  #begin(client: Client, session: number, length: number, segment: number): Conversation | undefined {
    const { drops, warnings } = this.#shared
    const { maxPeers } = this.#limits
    if (this.#count >= maxPeers) {
      drops['peer-limit'] += datagramsIn(length, segment)
      warnings.warn('peer-limit', () => `${maxPeers} conversations are open (maxPeers): datagrams of further peers are dropped`)
      return undefined
    }
    let conversation: Conversation
    try {
      conversation = new Conversation(this.#shared, client, session, this.#open)
    } catch (error) {
      drops['udp-refused'] += datagramsIn(length, segment)
      warnings.warn('udp', () => `No UDP socket for another conversation: ${error instanceof Error ? error.message : String(error)}`)
      return undefined
    }
    client.conversations.set(session, conversation)
    this.#count++
    this.#shared.peersTotal++
    return conversation
  }

  #end(client: Client, conversation: Conversation | undefined): void {
    if (conversation === undefined) return
    client.conversations.delete(conversation.session)
    this.#count--
    this.#sample(conversation)
    // It may have come in one train with what ends it.
    conversation.exit.flush()
    conversation.socket.close()
    this.#forgetIfEmpty(client)
  }

  #forgetIfEmpty(client: Client): void {
    if (client.flows.size === 0 && client.conversations.size === 0) this.#clients.delete(client.id)
  }

  #sample({ socket, drops }: Conversation): void {
    socket.sample()
    this.#shared.drops['kernel-udp'] += drops.take(socket.kernelDrops)
  }

  #flush(): void {
    const filled = this.#filled
    if (filled.length === 0) return
    this.#filled = []
    for (const conversation of filled) {
      conversation.filled = false
      conversation.exit.flush()
    }
  }
}
