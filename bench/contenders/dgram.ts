// Node's own UDP, with connected sockets (no look-up and no address to parse for each message) and the largest buffers it can get.
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { Contender, Peer } from './contender.ts'

/** The kernel grants less where net.core.rmem_max and wmem_max say so; `facts` tell what came of it. */
const BUFFER_BYTES = 32 << 20
/** Datagrams handed over before the event loop gets its turn. The kernel takes them at once, so more of them gain nothing. */
const IN_FLIGHT = 64
/** The first datagram names the sender: there is no handshake that could. */
const HELLO = Buffer.from('hello')

export const dgram: Contender = {
  stream: false,
  async listen(address) {
    const socket = await bound(address)
    const peer = (async () => {
      const [, from] = await once(socket, 'message')
      socket.connect(from.port, from.address)
      await once(socket, 'connect')
      socket.send(HELLO)
      return peerOf(socket)
    })()
    return { port: socket.address().port, peer, close: () => closed(socket) }
  },
  async connect(address, port) {
    const socket = await bound()
    socket.connect(port, address)
    await once(socket, 'connect')
    const answered = once(socket, 'message')
    socket.send(HELLO)
    await answered
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
  let handler: (bytes: Buffer) => void = () => {}
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
