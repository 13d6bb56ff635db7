// Ordinary TCP servers (node:net, so the kernel's TCP) for dialect 'tcp', a router that loses packets, and transfers through a peer's connection,
// checked by SHA-256.
import type { Peer } from '../e2e/peer.ts'
import type { Agent, AgentContext } from '../support/agent.ts'
import { createNetwork, type Host } from '../support/hosts.ts'

/**
 * What a server does with each connection.
 * - `echo`: sends back what comes, and ends after the client.
 * - `source`: once the client has ended its half, sends `bytes` bytes, ends and emits 'sent'.
 * - `sink`: reads after `pauseMs`, emits 'received' at the end, and ends.
 * - `hold`: says `greeting` and leaves the rest to the test, as `state.socket`; emits 'socket', then 'socket data' and 'socket end'.
 *
 * All emit 'socket error' and 'socket closed'.
 */
export type Service =
  | { readonly is: 'echo' }
  | { readonly is: 'source'; readonly bytes: number }
  | { readonly is: 'sink'; readonly pauseMs: number }
  | { readonly is: 'hold'; readonly greeting?: string }

export interface Digest {
  readonly bytes: number
  /** SHA-256, hexadecimal. */
  readonly hash: string
}

export function serve(agent: Agent, at: { readonly host: string; readonly port: number }, service: Service): Promise<void> {
  return agent.run(listen, { ...at, service })
}

async function listen(ctx: AgentContext, { host, port, service }: { host: string; port: number; service: Service }): Promise<void> {
  const [net, crypto] = [await import('node:net'), await import('node:crypto')]
  type Socket = import('node:net').Socket
  const source = async (socket: Socket, bytes: number) => {
    await new Promise((resolve) => socket.once('end', resolve).resume())
    const hash = crypto.createHash('sha256')
    for (let at = 0; at < bytes && !socket.destroyed; at += 65536) {
      const block = crypto.randomBytes(Math.min(65536, bytes - at))
      hash.update(block)
      if (!socket.write(block)) await new Promise((resolve) => socket.once('drain', resolve).once('close', resolve))
    }
    socket.end()
    ctx.emit('sent', { bytes, hash: hash.digest('hex') })
  }
  const sink = (socket: Socket, pauseMs: number) => {
    const hash = crypto.createHash('sha256')
    let bytes = 0
    const read = () =>
      socket.on('data', (block) => {
        hash.update(block)
        bytes += block.length
      })
    setTimeout(read, pauseMs)
    socket.on('end', () => ctx.emit('received', { bytes, hash: hash.digest('hex') }))
  }
  const hold = (socket: Socket, greeting: string) => {
    socket.write(greeting)
    ctx.state.socket = socket
    socket.on('data', (block) => ctx.emit('socket data', block.toString())).on('end', () => ctx.emit('socket end'))
    ctx.emit('socket')
  }
  const server = net.createServer({ allowHalfOpen: service.is === 'hold' || service.is === 'source' }, (socket) => {
    socket.on('error', (error: NodeJS.ErrnoException) => ctx.emit('socket error', error.code))
    socket.on('close', () => ctx.emit('socket closed'))
    if (service.is === 'echo') socket.pipe(socket)
    else if (service.is === 'source') void source(socket, service.bytes)
    else if (service.is === 'sink') sink(socket, service.pauseMs)
    else hold(socket, service.greeting ?? '')
  })
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve))
}

export interface ExchangeJob {
  /** Connection of the peer. */
  readonly id: number
  readonly bytes: number
  /** Of all messages; left out: mixed, up to the longest that fits. */
  readonly size?: number
  /** How often reading pauses, half a second each time. */
  readonly pauses?: number
}

export interface Exchange {
  readonly sent: Digest
  readonly received: Digest
}

/** Writes messages, ends, and reads until the server has ended. */
export function exchange(peer: Peer, job: ExchangeJob): Promise<Exchange> {
  return peer.agent.run(transfer, job)
}

async function transfer(ctx: AgentContext, { id, bytes, size, pauses = 0 }: ExchangeJob): Promise<Exchange> {
  const crypto = await import('node:crypto')
  const conn: import('../../lib/index.ts').FakeTcpConn = ctx.state.conns[id]
  const [out, back] = [crypto.createHash('sha256'), crypto.createHash('sha256')]
  let received = 0
  let pausesLeft = pauses
  const ended = new Promise<void>((resolve, reject) => {
    conn.removeAllListeners('data') // the peer would tell the test of each message
    conn.on('data', (chunk) => {
      received += chunk.length
      back.update(chunk)
      if (pausesLeft === 0 || received < (pauses - pausesLeft + 1) << 20) return
      pausesLeft--
      conn.pause()
      setTimeout(() => conn.resume(), 500)
    })
    conn
      .once('end', resolve)
      .once('error', reject)
      .once('close', () => reject(new Error('The connection closed before its end')))
  })
  const pool = crypto.randomBytes(1 << 16)
  for (let sent = 0; sent < bytes; ) {
    const length = Math.min(size ?? 1 + crypto.randomInt(conn.maxMessageSize), bytes - sent)
    const from = crypto.randomInt(pool.length - length)
    const message = pool.subarray(from, from + length)
    out.update(message)
    sent += length
    if (!conn.write(message)) await Promise.race([new Promise((resolve) => conn.once('drain', resolve)), ended])
  }
  conn.end()
  await ended
  return { sent: { bytes, hash: out.digest('hex') }, received: { bytes: received, hash: back.digest('hex') } }
}

/** Two hosts and a router between them; everything travels in single packets. */
export async function routed(): Promise<{ a: Host; r: Host; b: Host } & AsyncDisposable> {
  const network = await createNetwork()
  const [a, r, b] = [await network.addHost('a'), await network.addHost('r'), await network.addHost('b')]
  const [, near] = await network.link(a, r, { offloads: false })
  const [far] = await network.link(r, b, { offloads: false })
  await r.output('sysctl', ['-q', '-w', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1'])
  for (const [host, via] of [
    [a, near],
    [b, far],
  ] as const) {
    await host.output('ip', ['route', 'add', 'default', 'via', via.address4])
    await host.output('ip', ['-6', 'route', 'add', 'default', 'via', via.address6])
  }
  return { a, r, b, [Symbol.asyncDispose]: () => network.remove() }
}

/** Has a router drop what an nftables expression matches, and count it. */
export async function drop(router: Host, match: string): Promise<void> {
  const rules = `table inet loss {
    counter lost {}
    chain forward { type filter hook forward priority 0; ${match} counter name lost drop; }
  }`
  await router.output('nft', ['-f', '-'], rules)
}

export async function dropped(router: Host): Promise<number> {
  return Number(/packets (\d+)/.exec(await router.output('nft', ['list', 'counter', 'inet', 'loss', 'lost']))?.[1])
}

/** The kernel's own counters of a host that are not 0, by name. */
export async function counters(host: Host): Promise<Record<string, number>> {
  const { kernel } = JSON.parse(await host.output('nstat', ['-j', '-s'])) as { kernel: Record<string, number> }
  return kernel
}
