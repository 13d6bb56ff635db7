// A relay between fake TCP and UDP, for peers that speak one of them: each message of a connection is one datagram and the other way round.
//
//   relayToUdp      fake TCP clients --> listen | a UDP socket for each connection --> a UDP server
//   relayFromUdp    UDP clients --> one UDP socket | dial, a connection for each client --> a fake TCP server
//
// Like UDP it drops what cannot be passed on and counts it. As a program: udp-relay-main.ts.
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type * as library from '../../lib/index.ts'

export interface UdpAddress {
  readonly host: string
  readonly port: number
}

export interface RelayCounts {
  /** Connections accepted or dialled. */
  connections: number
  /** Fake TCP to UDP. */
  toUdp: number
  /** UDP to fake TCP. */
  fromUdp: number
  /** Datagrams that were not written because too many bytes wait for the kernel, or because their connection failed. */
  dropped: number
  /** What the connections themselves dropped, by reason. */
  readonly connectionDrops: Record<string, number>
  /** Connections that ended with an error, by its code. */
  readonly errors: Record<string, number>
}

export interface Relay {
  readonly counts: RelayCounts
  /** The connections open now. */
  readonly conns: ReadonlySet<library.FakeTcpConn>
  /** Where its own side listens. */
  readonly port: number
  close(): Promise<void>
}

/** A burst of datagrams waits in the socket while JavaScript is busy; the kernel caps it at net.core.rmem_max. */
const UDP_BUFFER_BYTES = 4 << 20
/** Datagrams of one client that wait for its dial. */
const EARLY_DATAGRAMS = 256

/** Accepts fake TCP at `address` and passes it on to the UDP server `to`. */
export async function relayToUdp({ listen }: typeof library, address: string, to: UdpAddress): Promise<Relay> {
  const state = new State()
  const listener = await listen(address)
  listener.on('connection', (conn) => {
    const socket = createSocket({ type: 'udp4', recvBufferSize: UDP_BUFFER_BYTES })
    state.add(conn, () => socket.close())
    socket.on('error', () => state.counts.dropped++) // an ICMP answer to an earlier datagram: its server is not there (yet)
    socket.on('message', (message) => state.write(conn, message))
    socket.connect(to.port, to.host, () => conn.on('data', (message: Buffer) => state.send(socket, message)))
  })
  return state.relay(listener.address()!.port, () => listener.close())
}

/** Takes UDP at `address` and passes each client's datagrams on by a connection of its own to the fake TCP server `to` ('host:port'). */
export async function relayFromUdp({ dial }: typeof library, address: UdpAddress, to: string): Promise<Relay> {
  const state = new State()
  const clients = new Map<string, { conn?: library.FakeTcpConn; early: Buffer[] }>()
  const socket = createSocket({ type: 'udp4', recvBufferSize: UDP_BUFFER_BYTES })
  socket.on('error', () => state.counts.dropped++)

  const open = async (key: string, from: RemoteInfo) => {
    const client: { conn?: library.FakeTcpConn; early: Buffer[] } = { early: [] }
    clients.set(key, client)
    try {
      const conn = await dial(to, { dialect: 'tcpraw' })
      state.add(conn, () => clients.delete(key))
      conn.on('data', (message: Buffer) => state.send(socket, message, from))
      client.conn = conn
      for (const message of client.early) state.write(conn, message)
    } catch (error) {
      clients.delete(key)
      state.counts.dropped += client.early.length
      state.note(state.counts.errors, error)
    }
    client.early = []
  }
  socket.on('message', (message, from) => {
    const key = `${from.address} ${from.port}`
    if (!clients.has(key)) void open(key, from)
    const client = clients.get(key)!
    if (client.conn !== undefined) state.write(client.conn, message)
    else if (client.early.length < EARLY_DATAGRAMS) client.early.push(message)
    else state.counts.dropped++
  })
  socket.bind(address.port, address.host)
  await once(socket, 'listening')
  return state.relay(socket.address().port, () => new Promise((resolve) => socket.close(() => resolve())))
}

class State {
  readonly counts: RelayCounts = { connections: 0, toUdp: 0, fromUdp: 0, dropped: 0, connectionDrops: {}, errors: {} }
  readonly conns = new Set<library.FakeTcpConn>()

  add(conn: library.FakeTcpConn, onClose: () => void): void {
    this.counts.connections++
    this.conns.add(conn)
    conn.on('drop', ({ reason }) => this.#count(this.counts.connectionDrops, reason))
    conn.on('error', (error) => this.note(this.counts.errors, error))
    conn.once('close', () => {
      this.conns.delete(conn)
      onClose()
    })
  }

  /** UDP to fake TCP: what the connection has no room for is lost, as in any router. */
  write(conn: library.FakeTcpConn, message: Buffer): void {
    if (conn.destroyed || conn.writableEnded || conn.writableNeedDrain) {
      this.counts.dropped++
      return
    }
    this.counts.fromUdp++
    conn.write(message)
  }

  /** Fake TCP to UDP. */
  send(socket: Socket, message: Buffer, to?: RemoteInfo): void {
    const sent = (error: Error | null) => {
      if (error === null) this.counts.toUdp++
      else this.counts.dropped++
    }
    if (to === undefined) socket.send(message, sent)
    else socket.send(message, to.port, to.address, sent)
  }

  note(codes: Record<string, number>, error: unknown): void {
    this.#count(codes, error instanceof Error && 'code' in error ? String(error.code) : String(error))
  }

  relay(port: number, stop: () => Promise<void>): Relay {
    const close = async () => {
      await Promise.all([...this.conns].map((conn) => conn.close()))
      await stop()
    }
    return { counts: this.counts, conns: this.conns, port, close }
  }

  #count(counts: Record<string, number>, key: string): void {
    counts[key] = (counts[key] ?? 0) + 1
  }
}
