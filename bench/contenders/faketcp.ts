// The library as it is built, over fake TCP and over UDP, with its defaults but for what is compared: the link, and the interface.
import type * as Library from '../../lib/index.ts'
import type * as Udp from '../../lib/udp/index.ts'
import type { FaketcpSpec, Interface, UdpSpec } from '../specs.ts'
import { type Contender, collector, type Handler, type Peer } from './contender.ts'
import { streamBurst } from './stream-burst.ts'

const load = (name: string) => import(new URL(`../../dist/${name}.js`, import.meta.url).href)
const library = (await load('index')) as typeof Library
const udpLibrary = (await load('udp')) as typeof Udp

/** The most that one sendTrain() gets: what write() takes before it says false. */
const TRAIN_BYTES = 256 << 10

export function faketcp({ link, interface: side }: FaketcpSpec): Contender {
  return contender(
    side,
    (host) => library.listen({ host, port: 0, link }),
    (host, port) => library.dial({ host, port, link }),
  )
}

export function udp({ interface: side }: UdpSpec): Contender {
  return contender(
    side,
    (host) => udpLibrary.listen({ host, port: 0 }),
    (host, port) => udpLibrary.dial({ host, port }),
  )
}

function contender(
  side: Interface,
  listen: (host: string) => Promise<Library.FakeTcpListener>,
  dial: (host: string, port: number) => Promise<Library.FakeTcpConn>,
): Contender {
  const batch = side === 'batch'
  const peerOf = batch ? batchPeer : streamPeer
  return {
    delivers: batch ? 'trains' : 'messages',
    async listen(address, flows) {
      const listener = await listen(address)
      const { add, all } = collector<Peer>(flows)
      const more = () => ({
        kernelDrops: listener.stats.reduce((sum, one) => sum + one.kernelDrops, 0),
        receiveBufferBytes: listener.stats[0].receiveBufferBytes,
      })
      listener.on('connection', (conn) => add(peerOf(conn, more)))
      return { port: listener.address()?.port ?? 0, accepted: all, close: () => listener.close() }
    },
    async connect(address, port) {
      return peerOf(await dial(address, port), () => ({}))
    },
  }
}

type More = () => Record<string, number>

function streamPeer(conn: Library.FakeTcpConn, more: More): Peer {
  let handler: Handler = () => {}
  conn.on('data', (message) => handler(message))
  return {
    ...common(conn, more),
    burst: (message, count, done) => streamBurst(conn, message, count, done),
    receive(next) {
      handler = next
    },
  }
}

function batchPeer(conn: Library.FakeTcpConn, more: More): Peer {
  let handler: Handler = () => {}
  conn.on('train', ({ buffer, segmentSize }) => handler(buffer, segmentSize))
  let train = Buffer.alloc(0)
  let size = 0
  return {
    ...common(conn, more),
    burst(message, count, done) {
      if (message.length !== size) {
        size = message.length
        train = Buffer.alloc(Math.floor(TRAIN_BYTES / size) * size, message)
      }
      let sent = 0
      let more = true
      while (more && sent < count) {
        const bytes = Math.min(train.length, (count - sent) * size)
        more = conn.sendTrain(train.subarray(0, bytes), size)
        sent += bytes / size
      }
      if (more) setImmediate(done, sent)
      else conn.once('drain', () => done(sent))
    },
    receive(next) {
      handler = next
    },
  }
}

function common(conn: Library.FakeTcpConn, more: More): Pick<Peer, 'facts' | 'close'> {
  return {
    facts: () => ({ capture: conn.stats.capture, link: conn.stats.link, droppedIn: conn.stats.droppedIn, ...more() }),
    close: () => conn.close(),
  }
}
