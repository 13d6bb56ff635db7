// For tests of the tunnel: agents that open one of its ends, and agents that send and receive by UDP as its users do.

import { expect } from 'vitest'
import type {
  FlowChange,
  ListenAddress,
  Tunnel,
  TunnelClientOptions,
  TunnelOptions,
  TunnelStats,
  TunnelWarning,
} from '../../lib/tunnel/index.ts'
import type { Agent, RemoteError } from '../support/agent.ts'
import type { Host } from '../support/hosts.ts'

/** Options that can cross to another process. */
export type EndOptions = Omit<TunnelClientOptions, 'signal'>

/** One end of a tunnel. It emits 'warning' and 'flow' as they come. */
export class TunnelPeer implements AsyncDisposable {
  readonly agent: Agent

  private constructor(agent: Agent) {
    this.agent = agent
  }

  static async on(host: Host): Promise<TunnelPeer> {
    return new TunnelPeer(await host.agent())
  }

  static async server(host: Host, options: Omit<TunnelOptions, 'signal'>): Promise<TunnelPeer> {
    const peer = await TunnelPeer.on(host)
    await peer.open('tunnelServer', options)
    return peer
  }

  static async client(host: Host, options: EndOptions): Promise<TunnelPeer> {
    const peer = await TunnelPeer.on(host)
    await peer.open('tunnelClient', options)
    return peer
  }

  open(verb: 'tunnelServer' | 'tunnelClient', options: EndOptions): Promise<ListenAddress> {
    return this.agent.run(
      async (ctx, { verb, options }) => {
        const tunnels = await ctx.import<typeof import('../../lib/tunnel/index.ts')>('faketcp/tunnel')
        const tunnel: Tunnel = await tunnels[verb](options)
        ctx.state.tunnel = tunnel
        tunnel.on('warning', (warning) => ctx.emit('warning', warning)).on('flow', (change) => ctx.emit('flow', change))
        return tunnel.address()
      },
      { verb, options },
    )
  }

  async openError(verb: 'tunnelServer' | 'tunnelClient', options: EndOptions): Promise<RemoteError> {
    try {
      await this.open(verb, options)
    } catch (error) {
      return error as RemoteError
    }
    throw new Error('It opened')
  }

  stats(): Promise<TunnelStats> {
    return this.agent.run((ctx) => ctx.state.tunnel.stats)
  }

  next(event: 'warning', options?: { timeoutMs?: number }): Promise<TunnelWarning>
  next(event: 'flow', options?: { timeoutMs?: number }): Promise<FlowChange>
  next(event: 'warning' | 'flow', options?: { timeoutMs?: number }): Promise<unknown> {
    return this.agent.next(event, options)
  }

  close(graceMs?: number): Promise<void> {
    return this.agent.run((ctx, graceMs) => ctx.state.tunnel.close(graceMs === undefined ? {} : { graceMs }), graceMs)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.agent.close()
  }
}

export interface Datagram {
  /** Number of the socket that it came to. */
  readonly socket: number
  readonly text: string
  readonly port: number
}

/** UDP sockets of Node's own, by number. */
export class UdpPeer {
  readonly agent: Agent

  private constructor(agent: Agent) {
    this.agent = agent
  }

  static async on(host: Host): Promise<UdpPeer> {
    const peer = new UdpPeer(await host.agent())
    await peer.agent.run(async (ctx) => {
      const dgram = await ctx.import<typeof import('node:dgram')>('node:dgram')
      const { state } = ctx
      state.sockets = []
      state.open = async ({ port, echo }: { port: number; echo: boolean }) => {
        const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 4 << 20 })
        const id = state.sockets.push(socket) - 1
        socket.on('message', (message, { port }) => {
          if (echo) socket.send(message, port, '127.0.0.1')
          else ctx.emit('datagram', { socket: id, text: message.toString('latin1'), port })
        })
        // Of a port that nobody has, ECONNREFUSED.
        socket.on('error', () => {})
        await new Promise<void>((resolve) => socket.bind(port, '127.0.0.1', resolve))
        return { id, port: socket.address().port }
      }
    })
    return peer
  }

  /** Sends back whatever comes. */
  echo(port: number): Promise<{ id: number; port: number }> {
    return this.agent.run((ctx, port) => ctx.state.open({ port, echo: true }), port)
  }

  open(port = 0): Promise<{ id: number; port: number }> {
    return this.agent.run((ctx, port) => ctx.state.open({ port, echo: false }), port)
  }

  async send(id: number, port: number, ...texts: string[]): Promise<void> {
    await this.agent.run(
      (ctx, { id, port, texts }) => {
        for (const text of texts) ctx.state.sockets[id].send(text, port, '127.0.0.1')
      },
      { id, port, texts },
    )
  }

  next(options?: { timeoutMs?: number }): Promise<Datagram> {
    return this.agent.next('datagram', options)
  }
}

export const SERVICE = 7000
export const USERS = 7001
export const SERVER = 4000
export const KEY = 'a secret of sixteen bytes or more'

export interface Tunnelled {
  readonly server: TunnelPeer
  readonly client: TunnelPeer
  readonly users: UdpPeer
  readonly service: UdpPeer
}

/** An echo service on host b, users on host a, the tunnel between them. */
export async function tunnelled(
  { a, b }: { a: Host; b: Host },
  client: Partial<EndOptions> = {},
  server: Partial<EndOptions> = {},
): Promise<Tunnelled> {
  const service = await UdpPeer.on(b)
  await service.echo(SERVICE)
  return {
    service,
    server: await TunnelPeer.server(b, { listen: `${b.address4}:${SERVER}`, to: `127.0.0.1:${SERVICE}`, ...server }),
    client: await TunnelPeer.client(a, { listen: `127.0.0.1:${USERS}`, to: `${b.address4}:${SERVER}`, ...client }),
    users: await UdpPeer.on(a),
  }
}

/** Sends one datagram of a socket and waits for its echo. */
export async function echoed({ users }: Tunnelled, id: number, text: string): Promise<void> {
  await users.send(id, USERS, text)
  expect(await users.next()).toEqual({ socket: id, text, port: USERS })
}
