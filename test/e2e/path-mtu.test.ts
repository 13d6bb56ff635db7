// A path that becomes narrower: a router says so, or the host's own device, and the flow says it to its stream. What strangers say is not believed.
import { expect, it } from 'vitest'
import { FRAME_HEADER } from '../../lib/wire/frames.ts'
import { createNetwork, type Host, type LinkOptions } from '../support/hosts.ts'
import { Peer, type PeerDialOptions } from './peer.ts'

const PORT = 9191
const PATIENCE = { timeout: 15_000, interval: 50 }
/** IP and TCP header with timestamps. */
const HEADERS = { 4: 52, 6: 72 } as const
/** IPv6 knows no smaller one. */
const NARROW = { 4: 1200, 6: 1280 } as const

type Family = keyof typeof HEADERS

/**
 *   a (client)  <---->  r  <---->  b (server)
 */
async function connected(family: Family, options: Partial<PeerDialOptions> = {}, link: LinkOptions = {}) {
  const network = await createNetwork()
  try {
    const [a, r, b] = [await network.addHost('a'), await network.addHost('r'), await network.addHost('b')]
    const [, near] = await network.link(a, r, link)
    const [far] = await network.link(r, b, link)
    const of = (one: { address4: string; address6: string }) => (family === 4 ? one.address4 : one.address6)
    await r.output('sysctl', ['-q', '-w', family === 4 ? 'net.ipv4.ip_forward=1' : 'net.ipv6.conf.all.forwarding=1'])
    await a.output('ip', [`-${family}`, 'route', 'add', 'default', 'via', of(near)])
    await b.output('ip', [`-${family}`, 'route', 'add', 'default', 'via', of(far)])
    const [server, client] = [await Peer.on(b), await Peer.on(a)]
    const { link: sending = 'auto', framing = 'none' } = options
    await server.listen({ host: of(b), port: PORT, link: sending, framing })
    const { id, localPort, maxMessageSize } = await client.dial({ host: of(b), port: PORT, ...options })
    await server.next('connection')
    await expect.poll(async () => (await client.stats(id)).dialect).toBe('native')
    // Both have heard each other, so that the link is chosen.
    await Promise.all([client.write(id, 'hello'), server.write(0, 'hello')])
    await Promise.all([client.next('message'), server.next('message')])
    const addresses = { a: of(a), b: of(b) }
    return {
      network,
      a,
      r,
      b,
      near,
      far,
      server,
      client,
      id,
      localPort,
      maxMessageSize,
      addresses,
      [Symbol.asyncDispose]: () => network.remove(),
    }
  } catch (error) {
    await network.remove()
    throw error
  }
}

const setMtu = (host: Host, iface: string, mtu: number) => host.output('ip', ['link', 'set', 'dev', iface, 'mtu', String(mtu)])
const filled = (count: number, size: number) => Array.from({ length: count }, (_, i) => Buffer.alloc(size, 65 + (i % 26)))

const links = (['packet', 'raw'] as const).flatMap((link) => ([4, 6] as const).map((family) => ({ link, family })))

it.each(links)('a router’s narrower link shortens the messages of both directions (IPv$family, link $link)', async ({ link, family }) => {
  await using made = await connected(family, { link })
  const { server, client, id, r, near, far, maxMessageSize } = made
  const pathMtu = NARROW[family]
  const max = pathMtu - HEADERS[family]
  expect(maxMessageSize).toBe(1500 - HEADERS[family])
  expect([(await client.stats(id)).link, (await server.stats(0)).link]).toEqual([link, link])
  for (const [from, to, own, narrow, wide] of [
    [client, server, id, far, near],
    [server, client, 0, near, far],
  ] as const) {
    // One at a time: a veth end takes nothing in that is longer than its own MTU.
    await setMtu(r, wide.name, 1500)
    await setMtu(r, narrow.name, pathMtu)
    await from.write(own, ...filled(20, maxMessageSize))
    expect(await from.next('mtu')).toEqual({ id: own, maxMessageSize: max, pathMtu })
    expect(await from.stats(own)).toMatchObject({ pathMtu, link })
    // Of the new size everything arrives, alone and in trains.
    const messages = filled(40, max)
    await from.write(own, ...messages)
    for (const message of messages) expect((await to.next('message')).text).toBe(message.toString())
    // A byte more is refused, and said to be.
    expect(await refusal(from, own, max + 1)).toBe('ERR_FAKETCP_MESSAGE_SIZE')
    expect(await from.next('drop')).toEqual({ id: own, reason: 'message-size', size: max + 1, max })
    expect((await from.stats(own)).droppedOut).toBe(1)
  }
})

/** Code of the error that a message of so many bytes gets. */
function refusal(peer: Peer, id: number, size: number): Promise<string | undefined> {
  return peer.agent.run(
    (ctx, { id, size }) =>
      new Promise<string | undefined>((resolve) => {
        ctx.state.conns[id].write(Buffer.alloc(size), (error: (Error & { code?: string }) | null | undefined) => resolve(error?.code))
      }),
    { id, size },
  )
}

it.each(links)(
  'so does the host’s own device, before anything is lost or at once after (IPv$family, link $link)',
  async ({ link, family }) => {
    await using made = await connected(family, { link })
    const { a, client, server, id, maxMessageSize } = made
    const pathMtu = NARROW[family]
    const max = pathMtu - HEADERS[family]
    await setMtu(a, a.iface, pathMtu)
    if (link === 'raw') {
      // Nobody watches devices for a link that does without next hops: the kernel's refusal tells.
      await client.write(id, Buffer.alloc(maxMessageSize, 'x'))
      expect(await client.next('drop')).toEqual({ id, reason: 'message-size', size: maxMessageSize, max })
    }
    expect(await client.next('mtu')).toEqual({ id, maxMessageSize: max, pathMtu })
    await client.write(id, Buffer.alloc(max, 'y'))
    expect((await server.next('message')).text).toBe('y'.repeat(max))
    await expect.poll(async () => (await client.stats(id)).link, PATIENCE).toBe(link)
  },
)

it('counted frames: sizes are those of the application, the header of a frame left out', async () => {
  await using made = await connected(4, { link: 'raw', framing: 'counted' })
  const { a, client, server, id, maxMessageSize } = made
  expect(maxMessageSize).toBe(1500 - HEADERS[4] - FRAME_HEADER)
  await setMtu(a, a.iface, NARROW[4])
  await client.write(id, Buffer.alloc(maxMessageSize, 'x'))
  const max = NARROW[4] - HEADERS[4] - FRAME_HEADER
  expect(await client.next('mtu')).toEqual({ id, maxMessageSize: max, pathMtu: NARROW[4] })
  expect(await client.next('drop')).toEqual({ id, reason: 'message-size', size: maxMessageSize, max })
  await client.write(id, Buffer.alloc(max, 'y'))
  expect((await server.next('message')).text).toBe('y'.repeat(max))
})

it('what was cut to fit at first is cut anew (oversize: split)', async () => {
  await using made = await connected(4, { oversize: 'split' })
  const { r, far, client, server, id, maxMessageSize } = made
  await setMtu(r, far.name, NARROW[4])
  await client.write(id, Buffer.alloc(maxMessageSize, 'x'))
  const { maxMessageSize: max } = await client.next('mtu')
  await client.write(id, Buffer.alloc(2 * max + 5, 'y'))
  const sizes = []
  for (let i = 0; i < 3; i++) sizes.push((await server.next('message')).text.length)
  expect(sizes).toEqual([max, max, 5])
})

/** Sends ICMP messages from a router's namespace, each about a packet from `own` to `other` with this sequence number. */
const FORGE = `
import socket, struct, sys
family, victim, own, other, own_port, other_port, mtu, *seqs = sys.argv[1:]
v6 = family == '6'
def checksum(data):
    total = sum(struct.unpack('>%dH' % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
pack = lambda address: socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, address)
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) if v6 else socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
for seq in seqs:
    tcp = struct.pack('>HHI', int(own_port), int(other_port), int(seq))
    if v6: quoted = struct.pack('>IHBB', 6 << 28, 1460, 6, 64) + pack(own) + pack(other)
    else: quoted = struct.pack('>BBHHHBBH', 0x45, 0, 1500, 1, 0x4000, 64, 6, 0) + pack(own) + pack(other)
    head = (2, 0) if v6 else (3, 4)
    message = struct.pack('>BBHI', *head, 0, int(mtu)) + quoted + tcp
    if not v6: message = struct.pack('>BBHI', *head, checksum(message), int(mtu)) + quoted + tcp
    raw.sendto(message, (victim, 0))
`

it.each([4, 6] as const)(
  'a stranger who does not know what is on its way is counted, and changes nothing on this host (IPv%s)',
  async (family) => {
    await using made = await connected(family)
    const { r, b, server, client, id, localPort, addresses, maxMessageSize } = made
    const seqs = Array.from({ length: 50 }, (_, i) => String((i * 0x051eb851) >>> 0))
    const forge = (mtu: number) =>
      r.output('python3', [
        '-c',
        FORGE,
        String(family),
        addresses.b,
        addresses.b,
        addresses.a,
        String(PORT),
        String(localPort),
        String(mtu),
        ...seqs,
      ])
    await forge(NARROW[family])
    const rejected = () => server.agent.run((ctx) => ctx.state.listener.stats[0].rejected.pathMtu as number)
    await expect.poll(rejected, PATIENCE).toBe(50)
    // Nor of a connection that does not exist.
    await r.output('python3', ['-c', FORGE, String(family), addresses.b, addresses.b, addresses.a, String(PORT), '1', '100', ...seqs])
    await server.write(0, Buffer.alloc(maxMessageSize, 'z'))
    expect((await client.next('message')).text).toHaveLength(maxMessageSize)
    expect((await server.stats(0)).pathMtu).toBe(1500)
    expect(await rejected()).toBe(50)
    expect((await client.stats(id)).pathMtu).toBe(1500)
    // The kernel has not been made to believe it either, as it would with the error queue of a raw socket.
    expect(await b.output('ip', [`-${family}`, 'route', 'get', addresses.a])).not.toContain('mtu')
  },
)
