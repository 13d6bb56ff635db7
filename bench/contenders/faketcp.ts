// The library as it is built, with its defaults.
import { once } from 'node:events'
import type * as Library from '../../lib/index.ts'
import type { Contender, Peer } from './contender.ts'
import { streamBurst } from './stream-burst.ts'

const library = new URL('../../dist/index.js', import.meta.url).href
const { dial, listen } = (await import(library)) as typeof Library

export const faketcp: Contender = {
  stream: false,
  async listen(address) {
    const listener = await listen({ host: address, port: 0 })
    const peer = once(listener, 'connection').then(([conn]) => {
      const kernelDrops = () => listener.stats.reduce((sum, one) => sum + one.kernelDrops, 0)
      return peerOf(conn, () => ({ kernelDrops: kernelDrops(), receiveBufferBytes: listener.stats[0].receiveBufferBytes }))
    })
    return { port: listener.address()?.port ?? 0, peer, close: () => listener.close() }
  },
  async connect(address, port) {
    return peerOf(await dial({ host: address, port }), () => ({}))
  },
}

function peerOf(conn: Library.FakeTcpConn, more: () => Record<string, number>): Peer {
  let handler: (bytes: Buffer) => void = () => {}
  conn.on('data', (message) => handler(message))
  return {
    burst: (message, count, done) => streamBurst(conn, message, count, done),
    receive(next) {
      handler = next
    },
    facts: () => ({ capture: conn.stats.capture, link: conn.stats.link, droppedIn: conn.stats.droppedIn, ...more() }),
    close: () => conn.close(),
  }
}
