// Captures: what tcpdump records and tshark reads is what was sent.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import process from 'node:process'
import { expect, it } from 'vitest'
import { capture, fields } from '../support/capture.ts'
import { twoHosts } from '../support/hosts.ts'

it.each([4, 6] as const)("reads a kernel connection's segments over IPv%s", async (family) => {
  await using hosts = await twoHosts({ offloads: false })
  const [client, server] = [await hosts.a.agent(), await hosts.b.agent()]
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await using recording = await capture(hosts.b)

  await server.run(async (ctx, host) => {
    const net = await import('node:net')
    ctx.state.server = net.createServer((socket) => socket.resume().on('end', () => ctx.emit('end')))
    await new Promise<void>((resolve) => ctx.state.server.listen(7000, host, resolve))
  }, host)
  const { port } = await client.run(async (_, host) => {
    const net = await import('node:net')
    const socket = net.connect(7000, host)
    await new Promise<void>((resolve) => socket.once('connect', resolve))
    const port = socket.localPort
    await new Promise<void>((resolve) => socket.end('a known packet', resolve))
    return { port }
  }, host)
  await server.next('end')

  expect((await recording.stop()).droppedByKernel).toBe(0)
  const segments = await recording.segments({ payload: true })
  const [syn, synAck, ack] = segments
  expect(syn).toMatchObject({ flags: 'S', srcport: port, dstport: 7000, dst: host, len: 0, tcpChecksum: 'good', malformed: false })
  expect(syn).toMatchObject({ ipChecksum: family === 4 ? 'good' : 'absent', ttl: 64 })
  expect(synAck).toMatchObject({ flags: 'SA', src: host, srcport: 7000, ack: (syn!.seq + 1) >>> 0, tsecr: syn!.tsval })
  expect(ack).toMatchObject({ flags: 'A', seq: synAck!.ack, ack: (synAck!.seq + 1) >>> 0, analysis: [] })
  const data = segments.find(({ len }) => len > 0)
  expect(data).toMatchObject({ len: 14, seq: ack!.seq, payload: Buffer.from('a known packet').toString('hex') })
  expect(data?.options).toMatch(/^0101080a/)
  expect(segments.filter(({ tcpChecksum }) => tcpChecksum !== 'good')).toEqual([])
})

it('tells bad checksums, malformed options and what the analyser finds', async () => {
  await using hosts = await twoHosts({ offloads: false })
  await using recording = await capture(hosts.b, { filter: 'tcp port 7001' })
  const { mac: to } = hosts.b
  const { mac: from } = hosts.a
  // Frames by hand: a good one, the same again with other data behind a gap, and one with a bad checksum and an option that ends outside the header.
  await hosts.a.output('python3', ['-c', FRAMES, hosts.a.iface, from, to, hosts.a.address4, hosts.b.address4])
  await recording.stop()
  const [good, gap, bad, ...more] = await recording.segments({ display: 'tcp.dstport == 7001' })
  expect(good).toMatchObject({
    flags: 'PA',
    seq: 1000,
    ack: 2000,
    len: 4,
    window: 512,
    tcpChecksum: 'good',
    malformed: false,
    analysis: [],
  })
  expect(gap).toMatchObject({ seq: 5000, analysis: ['lost_segment'] })
  expect(bad).toMatchObject({
    tcpChecksum: 'bad',
    malformed: true,
    findings: expect.arrayContaining([expect.stringContaining('option goes past end')]),
  })
  expect(more).toEqual([])
  expect(await fields(recording.file, ['frame.len'], 'tcp.seq_raw == 1000')).toEqual([new Map([['frame.len', '58']])])
})

it('takes no payload for the protocol of its port, nor for a broken one', async () => {
  await using hosts = await twoHosts({ offloads: false })
  await using recording = await capture(hosts.b)
  const [client, server] = [await hosts.a.agent(), await hosts.b.agent()]
  const dns = { host: hosts.b.address4, port: 53 }
  await server.run(async (ctx, at) => {
    const net = await import('node:net')
    ctx.state.server = net.createServer((socket) => socket.resume().on('end', () => ctx.emit('end')))
    await new Promise<void>((resolve) => ctx.state.server.listen(at, resolve))
  }, dns)
  await client.run(async (_, at) => {
    const net = await import('node:net')
    net.connect(at).end('\0\x05hello')
  }, dns)
  await server.next('end')
  await recording.stop()
  const protocols = (await fields(recording.file, ['frame.protocols'], 'tcp.len > 0')).map((row) => row.get('frame.protocols'))
  expect(protocols).toEqual(['eth:ethertype:ip:tcp:data'])
  expect((await recording.segments()).filter(({ malformed }) => malformed)).toEqual([])
})

it.each([false, true])('loses nothing of a burst (bulk: %s)', async (bulk) => {
  await using hosts = await twoHosts({ offloads: false })
  await using recording = await capture(hosts.b, { filter: 'udp port 7002', bulk })
  const agent = await hosts.a.agent()
  await agent.run(async (_, address) => {
    const dgram = await import('node:dgram')
    const socket = dgram.createSocket('udp4')
    for (let i = 0; i < 200; i++) await new Promise((resolve) => socket.send(Buffer.alloc(1000), 7002, address, resolve))
    socket.close()
  }, hosts.b.address4)
  expect(await recording.stop()).toEqual({ captured: 200, droppedByKernel: 0 })
  expect(await fields(recording.file, ['udp.length'])).toHaveLength(200)
})

it('removes its recording, and says why it did not start', async () => {
  await using hosts = await twoHosts()
  const recording = await capture(hosts.a)
  expect(existsSync(recording.file)).toBe(true)
  await recording[Symbol.asyncDispose]()
  expect(existsSync(recording.file)).toBe(false)
  await expect(capture(hosts.a, { filter: 'no such expression' })).rejects.toThrow('The recording did not start')
})

it('works in a user namespace, as an ordinary user would make it', () => {
  const source = `
    import { capture } from './test/support/capture.ts'
    import { twoHosts } from './test/support/hosts.ts'
    const { network, a, b } = await twoHosts()
    const recording = await capture(b, { filter: 'icmp' })
    await a.output('ping', ['-c', '1', b.address4])
    console.log(JSON.stringify(await recording.stop()))
    await recording[Symbol.asyncDispose]()
    await network.remove()
  `
  const script = 'mount -t tmpfs none /run && exec "$@"'
  const inside = [process.execPath, '--import', 'tsx', '--input-type=module', '--eval', source]
  const { stdout, stderr } = spawnSync('unshare', ['--user', '--map-root-user', '--net', '--mount', 'sh', '-c', script, 'sh', ...inside], {
    encoding: 'utf8',
  })
  expect({ stdout, stderr }).toEqual({ stdout: '{"captured":2,"droppedByKernel":0}\n', stderr: '' })
})

const FRAMES = `
import socket, struct, sys
iface, source_mac, target_mac, source, target = sys.argv[1:]
mac = lambda text: bytes.fromhex(text.replace(':', ''))
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def frame(seq, payload, options=b'', spoil=0):
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    tcp = struct.pack('!HHIIBBHHH', 40000, 7001, seq, 2000, (5 + len(options) // 4) << 4, 0x18, 512, 0, 0) + options + payload
    pseudo = addresses + struct.pack('!BBH', 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack('!H', checksum(pseudo + tcp) ^ spoil) + tcp[18:]
    ip = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + addresses
    ip = ip[:10] + struct.pack('!H', checksum(ip)) + ip[12:]
    return mac(target_mac) + mac(source_mac) + b'\\x08\\x00' + ip + tcp
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sender.bind((iface, 0))
sender.send(frame(1000, b'data'))
sender.send(frame(5000, b'data'))
sender.send(frame(5004, b'data', options=bytes([8, 10, 0, 0]), spoil=0x5555))
`
