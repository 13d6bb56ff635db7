// Carriers and their listener on loopback: how they connect, what they tell, that they stay mute, and how they end.
import { readFileSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import * as layout from '../../lib/native/layout.ts'
import { Assembler } from '../../lib/wire/bpf.ts'
import { captureProgram } from '../../lib/wire/programs.ts'
import { addressWords } from './packets.ts'
import { binding, CaptureRig, carrierPair, connect, dialler, ListenerRig, loopback, MUTE, unusedPort } from './rig.ts'
import { sender, sendTrains } from './sender-rig.ts'

const { INFO_OPTIONS, INFO_STATE, KEY_PORTS, KEY_WORDS } = layout
const ESTABLISHED = 1

function keyOf(carrier: { key(out: Int32Array): void }): number[] {
  const out = new Int32Array(KEY_WORDS)
  carrier.key(out)
  return [...out]
}

function infoOf(carrier: { info(out: Int32Array): void }): Int32Array {
  const out = new Int32Array(layout.INFO_WORDS)
  carrier.info(out)
  return out
}

/** The kernel's table of TCP sockets: state and receive queue of the socket with this local and remote port. */
function kernelSocket(family: number, local: number, remote: number): { state: number; receiveQueue: number } | undefined {
  const hex = (port: number) => `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  const line = readFileSync(family === 4 ? '/proc/net/tcp' : '/proc/net/tcp6', 'utf8')
    .split('\n')
    .map((text) => text.trim().split(/\s+/))
    .find(([, from, to]) => from?.endsWith(hex(local)) && to?.endsWith(hex(remote)))
  return line && { state: Number.parseInt(line[3], 16), receiveQueue: Number.parseInt(line[4].split(':')[1], 16) }
}

describe.each([4, 6] as const)('over IPv%i', (family) => {
  it('connect and accept give two carriers whose keys mirror each other', async () => {
    using pair = await carrierPair(family)
    const [client, server] = [keyOf(pair.client), keyOf(pair.server)]
    expect(client.slice(0, 8)).toEqual([...addressWords(loopback(family)), ...addressWords(loopback(family))])
    expect(server.slice(0, 8)).toEqual([...client.slice(4, 8), ...client.slice(0, 4)])
    expect(client[KEY_PORTS] >>> 0).toBe(pair.server.localPort * 65536 + pair.client.localPort)
    expect(server[KEY_PORTS] >>> 0).toBe(pair.client.localPort * 65536 + pair.server.localPort)
  })

  it('tell what the handshake negotiated and a running timestamp clock', async () => {
    using pair = await carrierPair(family)
    const [client, server] = [infoOf(pair.client), infoOf(pair.server)]
    expect([client[INFO_STATE], server[INFO_STATE]]).toEqual([ESTABLISHED, ESTABLISHED])
    expect(client[INFO_OPTIONS] & 7).toBe(7)
    expect(client[layout.INFO_SEND_SCALE]).toBe(server[layout.INFO_RECEIVE_SCALE])
    expect(client[layout.INFO_SEND_MSS]).toBeGreaterThan(1000)
    expect(client[layout.INFO_ADVERTISED_MSS]).toBeGreaterThan(1000)
    expect(client[layout.INFO_PATH_MTU]).toBeGreaterThan(1200)
    // The clock may stand still for the millisecond between two calls, but never runs backwards.
    expect((infoOf(pair.client)[layout.INFO_TIMESTAMP] - client[layout.INFO_TIMESTAMP]) | 0).toBeGreaterThanOrEqual(0)
  })

  it('stay mute: data for either of them draws no packet from the kernel and reaches no receive queue', async () => {
    using pair = await carrierPair(family)
    const ports = [pair.client.localPort, pair.server.localPort]
    // Heard in both directions, by the one port or the other.
    using capture = new CaptureRig({ mode: 'packet', family, program: captureProgram({ link: 'packet', family, ports }) })
    using out = sender(family)
    const address = loopback(family)
    const rounds = 50
    for (let i = 0; i < rounds; i++) {
      for (const [fromPort, toPort] of [ports, [...ports].reverse()]) {
        sendTrains(out.native, [{ from: address, fromPort, to: address, toPort, seq: i * 1000, buffers: [`message ${i}`] }])
      }
    }
    // An answer of the kernel would have been sent in the same softirq as the packet was received in, so before the last of ours.
    const trains = await capture.received(2 * rounds)
    await setImmediate()
    capture.native.drain()
    expect(trains.length).toBe(2 * rounds)
    expect(trains.every(({ payload }) => payload.toString().startsWith('message'))).toBe(true)
    for (const [local, remote] of [ports, [...ports].reverse()]) {
      expect(kernelSocket(family, local, remote)).toEqual({ state: ESTABLISHED, receiveQueue: 0 })
    }
  })

  it('settle with ECONNREFUSED where nobody listens', async () => {
    const carrier = dialler(family)
    expect(await connect(carrier, loopback(family), unusedPort())).toBe(-111)
    expect(carrier.end('silent')).not.toBe('none')
  })

  it('bind the port that they are told', () => {
    const port = unusedPort()
    const carrier = dialler(family, { localPort: port })
    expect(carrier.localPort).toBe(port)
    carrier.end('fin')
  })

  it.each(['fin', 'reset', 'silent'] as const)('end by %s once, and are gone', async (how) => {
    using pair = await carrierPair(family)
    const [local, remote] = [pair.client.localPort, pair.server.localPort]
    using capture = new CaptureRig({ mode: 'packet', family, ports: [remote] })
    // Both ends are on this host, where only repair is silent.
    expect(pair.client.end(how)).toBe(how === 'silent' ? 'repair' : how)
    expect(pair.client.end(how)).toBe('none')
    using out = sender(family)
    sendTrains(out.native, [{ from: loopback(family), fromPort: local, to: loopback(family), toPort: remote, buffers: ['last'] }])
    while (!capture.trains.some(({ payload }) => payload.toString() === 'last')) await capture.received(capture.trains.length + 1)
    const flags = capture.trains.filter(({ payload }) => payload.length === 0).map((train) => train.flags & 0xff)
    expect(flags).toEqual({ fin: [layout.FIN | layout.ACK], reset: [layout.RST | layout.ACK], silent: [] }[how])
    expect(kernelSocket(family, local, remote)?.state).not.toBe(ESTABLISHED)
    for (const call of [() => keyOf(pair.client), () => infoOf(pair.client), () => pair.client.localPort]) {
      expect(call).toThrow(expect.objectContaining({ code: 'EBADF' }))
    }
  })

  it.each(['fin', 'reset'] as const)('quietened say so, and a farewell by %s has an ordinary TTL again', async (how) => {
    using pair = await carrierPair(family)
    using capture = new CaptureRig({ mode: 'packet', family, ports: [pair.server.localPort] })
    expect(infoOf(pair.client)[layout.INFO_GUARD]).not.toBe(layout.GUARD_TTL)
    pair.client.quieten(0xffff_ffff)
    expect(infoOf(pair.client)[layout.INFO_GUARD]).toBe(layout.GUARD_TTL)
    pair.client.end(how)
    const [farewell] = await capture.received(1)
    expect(farewell.flags & (layout.FIN | layout.RST)).not.toBe(0)
    expect(farewell.ttl & 0xff).toBe(64)
    expect(() => pair.client.quieten(1)).toThrow(expect.objectContaining({ code: 'EBADF', syscall: 'setsockopt' }))
  })

  it('ended while connecting never settle', async () => {
    using listener = new ListenerRig(family)
    const [given, kept] = [dialler(family), dialler(family)]
    let settled = false
    given.connect(loopback(family), listener.native.localPort, () => {
      settled = true
    })
    given.end('silent')
    expect(await connect(kept, loopback(family), listener.native.localPort)).toBe(0)
    await setImmediate()
    expect(settled).toBe(false)
    kept.end('silent')
  })

  it('may be ended inside onSettled', async () => {
    using listener = new ListenerRig(family)
    const carrier = dialler(family)
    const way = await new Promise((resolve) => {
      carrier.connect(loopback(family), listener.native.localPort, () => resolve(carrier.end('silent')))
    })
    expect(way).toBe('repair')
  })

  it('connect once only', async () => {
    using pair = await carrierPair(family)
    expect(() => pair.client.connect(loopback(family), 1, () => {})).toThrow(
      expect.objectContaining({ code: 'EISCONN', syscall: 'connect' }),
    )
    expect(() => pair.server.connect(loopback(family), 1, () => {})).toThrow(expect.objectContaining({ code: 'EISCONN' }))
  })

  it('accept many at once, in order', async () => {
    using listener = new ListenerRig(family)
    const clients = Array.from({ length: 40 }, () => dialler(family))
    const settled = clients.map((client) => connect(client, loopback(family), listener.native.localPort))
    expect(new Set(await Promise.all(settled))).toEqual(new Set([0]))
    const servers = await Promise.all(clients.map(() => listener.accepted()))
    const remotePorts = servers.map((server) => keyOf(server)[KEY_PORTS] >>> 16)
    expect(new Set(remotePorts)).toEqual(new Set(clients.map((client) => client.localPort)))
    for (const carrier of [...clients, ...servers]) carrier.end('silent')
  })

  it('accepted live on when the listener closes, also inside onAccept', async () => {
    const closing = new Promise<number>((resolve) => {
      const native = new binding.CarrierListener({
        family,
        address: loopback(family),
        port: 0,
        backlog: 8,
        ipv6Only: true,
        filter: new Assembler().ret(0xffffffff).assemble(),
        mute: MUTE,
        userTimeoutMs: 3000,
        tos: 0,
        onAccept: ([carrier]) => {
          native.close()
          native.close()
          native.resume()
          resolve(infoOf(carrier)[INFO_STATE])
          carrier.end('silent')
        },
      })
      const client = dialler(family)
      void connect(client, loopback(family), native.localPort).then(() => client.end('silent'))
    })
    expect(await closing).toBe(ESTABLISHED)
  })

  it('listen on the port that was asked for, which another cannot take', () => {
    using listener = new ListenerRig(family)
    const port = listener.native.localPort
    expect(() => new ListenerRig(family, { port })).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }))
  })
})

it('a dual-stack listener gives IPv4 callers their IPv4 key', async () => {
  using listener = new ListenerRig(6, { address: '::', ipv6Only: false })
  const client = dialler(4)
  expect(await connect(client, '127.0.0.1', listener.native.localPort)).toBe(0)
  const server = await listener.accepted()
  expect(keyOf(server).slice(0, 8)).toEqual([...addressWords('127.0.0.1'), ...addressWords('127.0.0.1')])
  expect([client.end('silent'), server.end('silent')]).toEqual(['repair', 'repair'])
})

it('an IPv6-only listener leaves IPv4 to others', async () => {
  using listener = new ListenerRig(6, { address: '::', ipv6Only: true })
  const client = dialler(4)
  expect(await connect(client, '127.0.0.1', listener.native.localPort)).toBe(-111)
  client.end('silent')
})

it('refuses addresses, ports and words that are none', () => {
  const options = { family: 4, localAddress: '127.0.0.1', localPort: 0, filter: MUTE, mute: MUTE, userTimeoutMs: 3000, tos: 0 } as const
  expect(() => new binding.Carrier({ ...options, localAddress: '::1' })).toThrow(/localAddress must be an IPv4 address, it is '::1'/)
  expect(() => new binding.Carrier({ ...options, localPort: 65536 })).toThrow(/localPort must be an integer from 0 to 65535/)
  expect(() => new binding.Carrier({ ...options, localAddress: '192.0.2.1' })).toThrow(
    expect.objectContaining({ code: 'EADDRNOTAVAIL', syscall: 'bind' }),
  )
  const carrier = new binding.Carrier(options)
  expect(() => carrier.connect('nowhere', 1, () => {})).toThrow(RangeError)
  expect(() => carrier.connect('127.0.0.1', 0, () => {})).toThrow(RangeError)
  expect(() => carrier.connect('127.0.0.1', 1, 'callback' as never)).toThrow(TypeError)
  expect(() => carrier.end('loudly' as never)).toThrow(/how must be 'silent', 'fin' or 'reset', it is 'loudly'/)
  expect(() => carrier.setExit('reset' as never)).toThrow(/how must be 'silent' or 'fin', it is 'reset'/)
  expect(() => carrier.key(new Int32Array(8))).toThrow(/out must have at least 9 elements/)
  expect(() => carrier.info(new Int32Array(8))).toThrow(RangeError)
  expect(() => carrier.quieten(0)).toThrow(/mark must be an integer from 1 to 4294967295/)
  carrier.end('fin')
})
