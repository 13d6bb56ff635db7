// The addon's UDP socket on loopback: trains out and in, addresses, connecting, errors that ICMP brings, sharing a port.
import { once } from 'node:events'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { COUNT_CALLS, COUNT_PACKETS } from '../../lib/native/layout.ts'
import { addressWords } from './packets.ts'
import { binding, loopback, unusedPort } from './rig.ts'
import { plainSocket, textOf, UdpRig } from './udp-rig.ts'

const ECONNREFUSED = -111

describe.each([4, 6] as const)('a UDP socket of IPv%i', (family) => {
  it('sends a train in one piece, and receives it as one, with addresses, ports and sizes', async () => {
    using from = new UdpRig(family)
    using to = new UdpRig(family)
    expect(from.send([{ port: to.port, segment: 4, buffers: ['aaaabbbb', 'cccc', 'dd'] }])).toBe(4)
    const [train] = await to.received(1)
    expect(textOf(train)).toBe('aaaabbbbccccdd by 4')
    expect([train.remote, train.local]).toEqual([addressWords(loopback(family)), addressWords(loopback(family))])
    expect([train.remotePort, train.localPort, train.ifindex]).toEqual([from.port, to.port, 1])
    // One packet, of which the kernel knows the size: nothing was put together here.
    expect([to.counters[COUNT_PACKETS], to.counters[COUNT_CALLS]]).toEqual([1, 1])
  })

  it('cuts buffers as told: what ends a buffer ends a datagram, what was sent before is left out', async () => {
    using from = new UdpRig(family)
    await using to = await plainSocket(family)
    const messages: string[] = []
    const all = new Promise<void>((resolve) => {
      to.socket.on('message', (message) => messages.push(message.toString()) === 6 && resolve())
    })
    const train = { port: to.port, segment: 4, buffers: ['aaaabbbbcc', 'dddd', 'eeee', 'f'] }
    expect(from.send([{ ...train, skip: 1 }])).toBe(5)
    expect(from.send([{ ...train, skip: 5 }])).toBe(1)
    await all
    expect(messages).toEqual(['bbbb', 'cc', 'dddd', 'eeee', 'f', 'f'])
  })

  it('sends trains to many peers in one call, also of more datagrams than the kernel cuts up at once', async () => {
    using from = new UdpRig(family)
    using one = new UdpRig(family)
    using other = new UdpRig(family)
    const long = Buffer.alloc(1000 * 7, 'x')
    expect(
      from.send([
        { port: one.port, segment: 7, buffers: [long] },
        { port: other.port, buffers: ['y'] },
      ]),
    ).toBe(1001)
    await other.received(1)
    await one.until(() => one.trains.reduce((sum, { payload }) => sum + payload.length, 0) === long.length)
    expect(one.trains.every(({ segment }) => segment === 7)).toBe(true)
    expect(textOf(other.trains[0])).toBe('y by 1')
  })

  it('makes one train of what one system call brings of one peer and one size, a shorter datagram last', async () => {
    using to = new UdpRig(family)
    await using from = await plainSocket(family)
    await using another = await plainSocket(family)
    await from.send(to.port, 'aaaa', 'bbbb', 'cc', 'dd', 'ee')
    await another.send(to.port, 'ff')
    await from.send(to.port, 'gg', 'hhh', 'iii')
    to.native.drain()
    expect(to.batches.length).toBe(1)
    expect(to.trains.map(textOf)).toEqual(['aaaabbbbcc by 4', 'ddee by 2', 'ff by 2', 'gg by 2', 'hhhiii by 3'])
    expect(to.trains.map(({ remotePort }) => remotePort)).toEqual([from, from, another, from, from].map(({ port }) => port))
  })

  it('sends and receives empty datagrams, each by itself', async () => {
    using from = new UdpRig(family)
    using to = new UdpRig(family)
    expect(from.send([{ port: to.port }, { port: to.port }, { port: to.port, buffers: ['a'] }, { port: to.port }])).toBe(4)
    expect((await to.received(4)).map(textOf)).toEqual([' by 0', ' by 0', 'a by 1', ' by 0'])
  })

  it('carries the longest datagram, and refuses a longer one', async () => {
    using from = new UdpRig(family, { dontFragment: false })
    using to = new UdpRig(family)
    const most = family === 4 ? 65507 : 65527
    expect(from.send([{ port: to.port, buffers: [Buffer.alloc(most)] }])).toBe(1)
    const [{ payload, segment }] = await to.received(1)
    expect([payload.length, segment]).toEqual([most, most])
    expect(() => from.send([{ port: to.port, buffers: [Buffer.alloc(most + 1)] }])).toThrow(/1 to \d+ can be sent/)
  })

  it('knows the MTU of the path to its peer', () => {
    using to = new UdpRig(family)
    using from = new UdpRig(family)
    from.native.connect(loopback(family), to.port)
    expect(from.native.pathMtu()).toBe(family === 4 ? 65535 : 65536)
  })

  it('once connected hears and speaks to its peer only, and names both ends', async () => {
    using server = new UdpRig(family)
    using client = new UdpRig(family)
    await using stranger = await plainSocket(family)
    client.native.connect(loopback(family), server.port)
    expect(client.key()).toEqual([...addressWords(loopback(family)), ...addressWords(loopback(family)), (server.port << 16) | client.port])
    expect(server.key().slice(4)).toEqual([...addressWords(loopback(family)), server.port])
    await stranger.send(client.port, 'from a stranger')
    // Whatever the descriptor says.
    expect(client.send([{ port: 1, buffers: ['hello'] }])).toBe(1)
    await server.received(1)
    server.send([{ port: client.port, buffers: ['answer'] }])
    expect((await client.received(1)).map(textOf)).toEqual(['answer by 6'])
  })

  it('gives what arrived before it was connected, with its true source', async () => {
    using client = new UdpRig(family)
    await using peer = await plainSocket(family)
    await using stranger = await plainSocket(family)
    await stranger.send(client.port, 'early')
    await peer.send(client.port, 'first')
    client.native.connect(loopback(family), peer.port)
    await stranger.send(client.port, 'late')
    await peer.send(client.port, 'second')
    client.native.drain()
    expect(client.trains.map((train) => [train.payload.toString(), train.remotePort])).toEqual([
      ['early', stranger.port],
      ['first', peer.port],
      ['second', peer.port],
    ])
  })

  it('tells that nobody listens at the other end, and goes on', async () => {
    const gone = await plainSocket(family)
    using client = new UdpRig(family)
    client.native.connect(loopback(family), gone.port)
    await gone[Symbol.asyncDispose]()
    expect(client.send([{ buffers: ['to nobody'] }])).toBe(1)
    await client.until(() => client.errors.length > 0)
    expect(client.errors).toEqual([ECONNREFUSED])
    // The kernel tells whoever calls next: here that is a send, and its own datagrams are taken all the same.
    expect(client.send([{ buffers: ['1'] }])).toBe(1)
    expect([client.send([{ buffers: ['2'] }, { buffers: ['3'] }]), client.native.errno]).toEqual([2, 0])
    expect(client.errors).toEqual([ECONNREFUSED, ECONNREFUSED])
    // And two messages were refused by now.
    await client.until(() => client.errors.length > 2)
  })

  it('is alone on its port unless it offers to share it, and then with those that join', () => {
    using alone = new UdpRig(family)
    expect(() => new UdpRig(family, { port: alone.port, sharing: 'join' })).toThrow(
      expect.objectContaining({ code: 'EADDRINUSE', syscall: 'bind' }),
    )
    using offered = new UdpRig(family, { sharing: 'offer' })
    for (const sharing of ['none', 'offer'] as const)
      expect(() => new UdpRig(family, { port: offered.port, sharing })).toThrow(/EADDRINUSE/)
    using joined = new UdpRig(family, { port: offered.port, sharing: 'join' })
    expect(joined.port).toBe(offered.port)
    // When the one that offered is gone, those that joined keep nobody from the port.
    offered.native.close()
    using again = new UdpRig(family, { port: joined.port, sharing: 'offer' })
    expect(() => new UdpRig(family, { port: again.port, sharing: 'offer' })).toThrow(/EADDRINUSE/)
    using third = new UdpRig(family, { port: again.port, sharing: 'join' })
    expect(third.port).toBe(again.port)
  })

  it('counts what the kernel dropped for want of buffer, and tells how much it granted', async () => {
    using to = new UdpRig(family, { receiveBufferBytes: 4096 })
    using from = new UdpRig(family)
    expect(to.native.receiveBufferBytes).toBe(8192)
    from.send(Array.from({ length: 50 }, () => ({ port: to.port, buffers: [Buffer.alloc(1000)] })))
    const delivered = to.native.drain()
    expect(to.native.kernelDrops()).toBe(50 - delivered)
    expect(delivered).toBeLessThan(50)
  })
})

it('answers from the address that a datagram came to', async () => {
  using server = new UdpRig(4, { address: '0.0.0.0' })
  await using client = await plainSocket(4)
  client.socket.connect(server.port, '127.0.0.5')
  await once(client.socket, 'connect')
  client.socket.send('to the fifth')
  const [train] = await server.received(1)
  expect(train.local).toEqual(addressWords('127.0.0.5'))
  const answer = once(client.socket, 'message')
  server.send([{ port: client.port, from: '127.0.0.5', buffers: ['from the fifth'] }])
  expect(String((await answer)[0])).toBe('from the fifth')
})

it('of IPv6 takes IPv4 too, as mapped addresses, and answers from the address that was spoken to', async () => {
  using server = new UdpRig(6, { address: '::' })
  await using client = await plainSocket(4)
  client.socket.connect(server.port, '127.0.0.6')
  await once(client.socket, 'connect')
  client.socket.send('by IPv4')
  const [train] = await server.received(1)
  expect([train.remote, train.local]).toEqual([addressWords('127.0.0.1'), addressWords('127.0.0.6')])
  const answer = once(client.socket, 'message')
  server.send([{ to: '127.0.0.1', port: client.port, from: '127.0.0.6', segment: 3, buffers: ['abcdef'] }])
  expect(String((await answer)[0])).toBe('abc')
})

it('of IPv6 alone leaves IPv4 to others', () => {
  using six = new UdpRig(6, { address: '::', ipv6Only: true })
  using four = new UdpRig(4, { address: '0.0.0.0', port: six.port })
  expect(four.port).toBe(six.port)
})

describe('what a caller does wrong', () => {
  const wrong = (options: object) => () => new UdpRig(4, options)

  it('is told when the socket is made', () => {
    expect(wrong({ family: 5 })).toThrow(RangeError)
    expect(wrong({ address: '::1' })).toThrow(/address must be of IPv4, it is '::1'/)
    expect(wrong({ address: 'localhost' })).toThrow(/address must be of IPv4/)
    expect(wrong({ port: 65536 })).toThrow(/port must be an integer from 0 to 65535/)
    expect(wrong({ sharing: 'all' })).toThrow(/sharing must be 'none', 'offer' or 'join', it is 'all'/)
    expect(wrong({ slots: 65 })).toThrow(/slots must be an integer from 1 to 64/)
    expect(wrong({ slotBytes: 65534 })).toThrow(/slotBytes must be an integer from 65535/)
    expect(wrong({ slab: new Uint8Array(10) })).toThrow(/slab must have slots \* slotBytes/)
    expect(wrong({ onError: undefined })).toThrow(/onError must be a function/)
    expect(wrong({ address: '192.0.2.1' })).toThrow(expect.objectContaining({ code: 'EADDRNOTAVAIL', syscall: 'bind' }))
    expect(() => (binding.UdpSocket as unknown as () => void)()).toThrow(TypeError)
  })

  it('is told by send, and nothing is sent', async () => {
    using from = new UdpRig(4)
    using to = new UdpRig(4)
    expect(() =>
      from.send([
        { port: to.port, buffers: ['a'] },
        { port: to.port, to: '::1', buffers: ['b'] },
      ]),
    ).toThrow(/this socket is for IPv4/)
    expect(() =>
      from.send([
        { port: to.port, buffers: ['a'] },
        { port: to.port, buffers: [''] },
      ]),
    ).toThrow(/segments of 0 bytes/)
    await setImmediate()
    expect(to.native.drain()).toBe(0)
  })

  it('is told by every method of a closed socket; it may be closed twice', () => {
    const rig = new UdpRig(4)
    rig.native.close()
    rig.native.close()
    const closed = expect.objectContaining({ code: 'EBADF', errno: -9 })
    expect(() => rig.send([{ port: unusedPort(), buffers: ['a'] }])).toThrow(closed)
    expect(() => rig.native.connect('127.0.0.1', 1)).toThrow(closed)
    expect(() => rig.key()).toThrow(closed)
    expect(() => rig.native.pathMtu()).toThrow(closed)
    expect(() => rig.native.kernelDrops()).toThrow(closed)
  })
})
