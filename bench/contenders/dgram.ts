// Node's own UDP with the largest buffers it can get. Senders are connected sockets, and so is the receiver of a single flow: no look-up and no address to
// parse for each message. The receiver of many flows is one socket, as UDP servers are, and does not tell them apart.
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { type Contender, collector, type Handler, type Peer } from './contender.ts'

/** The kernel grants less where net.core.rmem_max and wmem_max say so; `facts` tell what came of it. */
const BUFFER_BYTES = 32 << 20
/** Datagrams handed over before the event loop gets its turn. The kernel takes them at once, so more of them gain nothing. */
const IN_FLIGHT = 64
/** The first datagram names the sender: there is no handshake that could. Repeated until it is answered, as a tunnel may still be opening. */
const HELLO = Buffer.from('hello')
const HELLO_EVERY_MS = 200
const HELLO_MS = 10_000

export const dgram: Contender = {
  delivers: 'messages',
  async listen(address, flows) {
    const socket = await bound(address)
    const { add, all } = collector<string>(flows)
    const known = new Set<string>()
    const greet = (message: Buffer, { address: host, port }: RemoteInfo) => {
      if (!message.equals(HELLO)) return
      const name = `${host}:${port}`
      socket.send(HELLO, port, host)
      if (known.has(name)) return
      known.add(name)
      add(name)
    }
    socket.on('message', greet)
    const accepted = all.then(async ([first]) => {
      socket.off('message', greet)
      if (flows === 1) {
        const at = first.lastIndexOf(':')
        socket.connect(Number(first.slice(at + 1)), first.slice(0, at))
        await once(socket, 'connect')
      }
      return [peerOf(socket)]
    })
    return { port: socket.address().port, accepted, close: () => closed(socket) }
  },
  async connect(address, port) {
    const socket = await bound()
    socket.connect(port, address)
    await once(socket, 'connect')
    // What nobody listens to yet is refused by ICMP; the next hello may be luckier.
    const refused = () => {}
    socket.on('error', refused)
    const greet = () => socket.send(HELLO, () => {})
    const repeat = setInterval(greet, HELLO_EVERY_MS)
    greet()
    try {
      await new Promise<void>((resolve, reject) => {
        const late = setTimeout(() => reject(new Error(`No datagram came back through ${address}:${port} for ${HELLO_MS} ms`)), HELLO_MS)
        socket.once('message', () => {
          clearTimeout(late)
          resolve()
        })
      })
    } catch (error) {
      await closed(socket)
      throw error
    } finally {
      clearInterval(repeat)
      socket.off('error', refused)
    }
    return peerOf(socket)
  },
}

async function bound(address?: string): Promise<Socket> {
  const socket = createSocket({ type: 'udp4', recvBufferSize: BUFFER_BYTES, sendBufferSize: BUFFER_BYTES })
  socket.bind(0, address)
  await once(socket, 'listening')
  return socket
}

function peerOf(socket: Socket): Peer {
  let handler: Handler = () => {}
  socket.on('message', (message) => handler(message))
  return {
    burst(message, count, done) {
      const burst = Math.min(count, IN_FLIGHT)
      let pending = burst
      let sent = 0
      // A datagram that the system refuses was not sent; the callback comes when the kernel has answered, which is all the backpressure UDP has.
      const settled = (error: Error | null) => {
        if (error === null) sent++
        if (--pending === 0) setImmediate(done, sent)
      }
      for (let i = 0; i < burst; i++) socket.send(message, settled)
    },
    receive(next) {
      handler = next
    },
    facts: () => ({ receiveBufferBytes: socket.getRecvBufferSize() }),
    close: () => closed(socket),
  }
}

/** The listening end and its peer are one socket. */
async function closed(socket: Socket): Promise<void> {
  try {
    socket.close()
  } catch {
    // ERR_SOCKET_DGRAM_NOT_RUNNING: the other of the two has closed it.
  }
}
