// Node's own TCP. It keeps no boundaries, so a message is `size` bytes. A burst is corked, because faketcp corks by itself.
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { type Contender, collector, type Handler, type Peer } from './contender.ts'
import { streamBurst } from './stream-burst.ts'

export const net: Contender = {
  delivers: 'bytes',
  async listen(address, flows) {
    const server = createServer({ noDelay: true })
    const { add, all } = collector<Peer>(flows)
    server.on('connection', (socket) => add(peerOf(socket)))
    server.listen(0, address)
    await once(server, 'listening')
    const bound = server.address()
    const close = () => new Promise<void>((resolve) => server.close(() => resolve()))
    return { port: typeof bound === 'object' && bound !== null ? bound.port : 0, accepted: all, close }
  },
  async connect(address, port) {
    const socket = connect({ host: address, port, noDelay: true })
    await once(socket, 'connect')
    return peerOf(socket)
  },
}

function peerOf(socket: Socket): Peer {
  let handler: Handler = () => {}
  socket.on('data', (bytes) => handler(bytes))
  // The other end may be gone first when both are closed.
  socket.on('error', () => {})
  return {
    burst(message, count, done) {
      socket.cork()
      streamBurst(socket, message, count, done)
      socket.uncork()
    },
    receive(next) {
      handler = next
    },
    facts: () => ({}),
    async close() {
      socket.destroy()
    },
  }
}
