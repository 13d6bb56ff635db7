// A TCP transfer with checksums, between an agent that serves and one that connects through whatever lies between: a client's first nine bytes
// are a direction and a size, then the bytes follow, then the server's SHA-256 of what it sent or received.
import type { Agent } from '../support/agent.ts'
import type { UdpAddress } from '../support/udp-relay.ts'

export type Direction = 'upload' | 'download'

export interface Transfer {
  readonly bytes: number
  /** SHA-256 at either end, hexadecimal. */
  readonly sent: string
  readonly received: string
  readonly seconds: number
}

const HEADER = 9

/** Serves transfers on this address, any number of them. */
export function serveTransfers(agent: Agent, { host, port }: UdpAddress): Promise<void> {
  return agent.run(
    async (ctx, { host, port, header }) => {
      const [net, crypto] = [await import('node:net'), await import('node:crypto')]
      const { randomBytes, createHash } = crypto
      const server = net.createServer((socket) => {
        const hash = createHash('sha256')
        let begun: { upload: boolean; bytes: number } | undefined
        let left = 0
        const send = async (bytes: number) => {
          for (let at = 0; at < bytes && !socket.destroyed; at += 65536) {
            const block = randomBytes(Math.min(65536, bytes - at))
            hash.update(block)
            if (!socket.write(block)) await new Promise((resolve) => socket.once('drain', resolve).once('close', resolve))
          }
          socket.write(hash.digest())
        }
        const receive = (block: Buffer) => {
          hash.update(block)
          left -= block.length
          if (left === 0) socket.write(hash.digest())
        }
        socket.on('error', (error) => ctx.emit('transfer error', error.message))
        socket.on('readable', () => {
          if (begun === undefined) {
            const head: Buffer | null = socket.read(header)
            if (head === null) return
            left = Number(head.readBigUInt64BE(1))
            begun = { upload: head[0] === 1, bytes: left }
            if (!begun.upload) void send(left)
          }
          for (let block: Buffer | null = socket.read(); block !== null; block = socket.read()) receive(block)
        })
      })
      await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, host, resolve))
    },
    { host, port, header: HEADER },
  )
}

/** One transfer by a connection of its own; rejects when it ends too early. */
export function transfer(agent: Agent, { host, port }: UdpAddress, direction: Direction, bytes: number): Promise<Transfer> {
  return agent.run(
    async (_, { host, port, upload, bytes, header }) => {
      const [net, crypto] = [await import('node:net'), await import('node:crypto')]
      const { randomBytes, createHash } = crypto
      const socket = net.connect(port, host)
      await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
      const began = performance.now()
      const hash = createHash('sha256')
      const head = Buffer.alloc(header)
      head[0] = upload ? 1 : 2
      head.writeBigUInt64BE(BigInt(bytes), 1)
      socket.write(head)
      if (upload) {
        for (let at = 0; at < bytes; at += 65536) {
          const block = randomBytes(Math.min(65536, bytes - at))
          hash.update(block)
          if (!socket.write(block)) await new Promise((resolve) => socket.once('drain', resolve).once('close', resolve))
        }
      }
      let left = upload ? 0 : bytes
      const digest: Buffer[] = []
      let digestBytes = 0
      for await (const block of socket) {
        const data = block.subarray(0, left)
        hash.update(data)
        left -= data.length
        digest.push(block.subarray(data.length))
        digestBytes += block.length - data.length
        if (digestBytes === 32) break
      }
      if (digestBytes !== 32) throw new Error(`The connection ended with ${left} of ${bytes} bytes missing`)
      const [own, theirs] = [hash.digest('hex'), Buffer.concat(digest).toString('hex')]
      const seconds = (performance.now() - began) / 1000
      return upload ? { bytes, sent: own, received: theirs, seconds } : { bytes, sent: theirs, received: own, seconds }
    },
    { host, port, upload: direction === 'upload', bytes, header: HEADER },
  )
}
