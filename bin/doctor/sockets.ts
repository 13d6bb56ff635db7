// The sockets that a connection needs, opened one by one through the addon, and then a whole connection over the loopback device. Nothing here
// leaves the host.
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { openCarrier } from '../../lib/carrier/carrier.ts'
import { dial, listen } from '../../lib/index.ts'
import { Capture, type CaptureMode } from '../../lib/link/capture.ts'
import { openRawSender } from '../../lib/link/sender.ts'
import type { Binding } from '../../lib/native/binding.ts'
import { UdpSocket } from '../../lib/udp/socket.ts'
import { type Finding, ok, problem, warning } from '../findings.ts'

const LOOPBACK = '127.0.0.1'
/** Loopback answers within milliseconds. */
const LIMIT_MS = 5000
/** Enough that a run of messages may cross in one piece. */
const MESSAGES = 3
const DATAGRAM_BYTES = 100

const NOT_PERMITTED = 'not permitted (EPERM)'
const SEE_CAPABILITY = 'see CAP_NET_RAW above'
const LOOK = 'look at the rules of the firewall for the device lo, and at the other findings'

const codeOf = (error: unknown) => (error instanceof Error && 'code' in error ? String(error.code) : '')
const textOf = (error: unknown) => (error instanceof Error ? error.message : String(error))

/** @param missing what follows where the kernel lacks it; a missing capability is another matter */
function tried(subject: string, good: string, missing: (why: string) => Finding, attempt: () => void): Finding {
  try {
    attempt()
    return ok(subject, good)
  } catch (error) {
    return codeOf(error) === 'EPERM' ? problem(subject, NOT_PERMITTED, SEE_CAPABILITY) : missing(textOf(error))
  }
}

export function socketFindings(binding: Binding): Finding[] {
  const capture = (mode: CaptureMode, family: 4 | 6) => () => new Capture(binding, mode, family, { ports: [] }, () => {}).close()
  const sendRaw = (family: 4 | 6) => () => openRawSender(binding, family, () => {}).close()
  const slow = 'runs of messages cannot cross the kernel in one piece'
  return [
    tried(
      'AF_PACKET capture',
      'with virtio headers: what GRO has merged is split exactly',
      (why) => warning('AF_PACKET capture', `${why}; IP raw sockets are used instead: ${slow}`, 'a kernel with CONFIG_PACKET'),
      capture('packet', 4),
    ),
    tried(
      'AF_PACKET send',
      'with virtio headers: runs of messages leave in one piece (GSO)',
      (why) => warning('AF_PACKET send', `${why}; IP raw sockets are used instead: ${slow}`, 'a kernel with CONFIG_PACKET'),
      () => new binding.PacketSender({ sendBufferBytes: 1 << 16, onWritable: () => {} }).close(),
    ),
    tried(
      'raw IPv4',
      'capture and send',
      (why) => problem('raw IPv4', why, 'allow AF_INET raw sockets'),
      () => {
        capture('raw', 4)()
        sendRaw(4)()
      },
    ),
    tried(
      'raw IPv6',
      'capture and send',
      (why) => warning('raw IPv6', `${why}: IPv4 only`, 'nothing, unless you want IPv6'),
      () => {
        capture('raw', 6)()
        sendRaw(6)()
      },
    ),
  ]
}

/** A run of datagrams over loopback: whether it leaves (UDP_SEGMENT) and arrives (UDP_GRO) in one piece. */
export function udpFinding(binding: Binding): Finding {
  const subject = 'UDP'
  const target = {
    family: 4,
    address: LOOPBACK,
    port: 0,
    ipv6Only: true,
    sharing: 'none',
    tos: 0,
    dontFragment: true,
    receiveBufferBytes: 1 << 16,
  } as const
  const sink = { onTrains: () => {}, onRoom: () => {}, onError: () => {} }
  const sockets: UdpSocket[] = []
  try {
    for (let i = 0; i < 2; i++) sockets.push(new UdpSocket(binding, target, sink))
    const [from, to] = sockets
    from.connect(LOOPBACK, to.localPort)
    from.outbox.open(undefined, MESSAGES, DATAGRAM_BYTES)
    from.outbox.add(new Uint8Array(MESSAGES * DATAGRAM_BYTES))
    from.outbox.transmit()
    from.outbox.settle()
    to.drain()
    if (to.packets === 0) return problem(subject, 'datagrams do not arrive over loopback', LOOK)
    return to.packets === 1
      ? ok(subject, 'runs of datagrams cross the kernel in one piece (UDP_SEGMENT, UDP_GRO)')
      : warning(subject, 'the kernel takes each datagram alone: UDP_SEGMENT or UDP_GRO is missing', 'Linux 5.0 or newer')
  } catch (error) {
    return problem(subject, textOf(error), LOOK)
  } finally {
    for (const socket of sockets) socket.close()
  }
}

/** Whether the kernel's own socket can be ended by TCP_REPAIR, which connections within this host need to end silently. */
export async function repairFinding(binding: Binding): Promise<Finding> {
  const subject = 'TCP_REPAIR'
  const accepted: Socket[] = []
  const server = createServer((socket) => accepted.push(socket.on('error', () => {}))).listen(0, LOOPBACK)
  try {
    await once(server, 'listening')
    const carrier = openCarrier(binding, 4, LOOPBACK, 0, 0)
    const { port } = server.address() as AddressInfo
    const errno = await new Promise<number>((resolve) => carrier.connect(LOOPBACK, port, resolve))
    if (errno !== 0) return warning(subject, `could not be tried: no connection over loopback (errno ${-errno})`, LOOK)
    return carrier.end('silent') === 'repair'
      ? ok(subject, 'permitted: connections within this host end silently, too')
      : ok(subject, 'not permitted (CAP_NET_ADMIN), and not needed: only connections within this host would use it')
  } catch (error) {
    return warning(subject, `could not be tried: ${textOf(error)}`, 'look at the other findings first')
  } finally {
    // What ended silently told them nothing.
    for (const socket of accepted) socket.destroy()
    server.close()
  }
}

/** A connection over loopback: handshake, guard, messages. */
export async function connectionFinding(): Promise<Finding> {
  const subject = 'a connection'
  const signal = AbortSignal.timeout(LIMIT_MS)
  try {
    const listener = await listen({ host: LOOPBACK, port: 0, signal })
    try {
      const received = new Promise<void>((resolve) => {
        let missing = MESSAGES
        listener.once('connection', (peer) => peer.on('error', () => {}).on('data', () => --missing === 0 && resolve()))
      })
      const conn = await dial({ host: LOOPBACK, port: listener.address()?.port ?? 0, signal })
      conn.on('error', () => {})
      for (let i = 0; i < MESSAGES; i++) conn.write(`message ${i}`)
      const all = await Promise.race([received.then(() => true), once(signal, 'abort').then(() => false)])
      if (!all) {
        conn.destroy()
        return problem(subject, 'was made over loopback, but its messages did not arrive', LOOK)
      }
      const { capture, guard } = conn.stats
      await conn.close()
      return ok(subject, `works over loopback: capture ${capture}, guard ${guard}`)
    } finally {
      await listener.close({ connections: true })
    }
  } catch (error) {
    if (codeOf(error) === 'EPERM') return problem(subject, NOT_PERMITTED, SEE_CAPABILITY)
    return problem(subject, `did not come about over loopback: ${textOf(error)}`, LOOK)
  }
}
