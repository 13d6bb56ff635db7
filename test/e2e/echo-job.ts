// The echo of many messages, checked one by one. It honours both bounds that a sender on fake TCP has to honour if it wants to lose nothing on a
// clean link: backpressure (`write` false, then 'drain'), which is about its own kernel, and a bound on what is under way, since fake TCP has no
// flow control of its own and a receiver's buffers end somewhere.
import type { AgentContext } from '../support/agent.ts'
import type { Peer } from './peer.ts'

export interface EchoJob {
  /** Connection of the peer. */
  readonly id: number
  readonly messages: number
  readonly seed: number
  /** Longest message; `maxMessageSize` unless told. */
  readonly maxSize?: number
  /** All of this size, unless random sizes up to `maxSize` are wanted. */
  readonly size?: number
  /** Bytes sent and not yet echoed. */
  readonly underWay?: number
}

export interface EchoResult {
  /** Echoed exactly as sent, each once. */
  readonly intact: number
  /** Arrived, but equal to nothing that was under way. */
  readonly foreign: number
  /** Still not echoed when nothing had come for 5 s. */
  readonly lost: number
  readonly bytes: number
  readonly shortest: number
  readonly longest: number
}

/** Echoes through a connection of the peer; the other end must be an echo server. */
export function echo(peer: Peer, job: EchoJob): Promise<EchoResult> {
  return peer.agent.run(run, job)
}

async function run(ctx: AgentContext, { id, messages, seed, maxSize, size: fixed, underWay = 256 << 10 }: EchoJob): Promise<EchoResult> {
  const conn: import('../../lib/index.ts').FakeTcpConn = ctx.state.conns[id]
  const longestAllowed = Math.min(maxSize ?? conn.maxMessageSize, conn.maxMessageSize)
  // mulberry32
  let state = seed
  const random = () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
  const pool = Buffer.alloc(1 << 16)
  for (let i = 0; i < pool.length; i += 4) pool.writeUInt32LE(random(), i)

  // Ring of what is under way: the start in the pool and the length of each message; -1 once it has come back.
  const ring = 1 << 20
  const starts = new Int32Array(ring)
  const sizes = new Int32Array(ring)
  let sent = 0
  let oldest = 0
  let outstanding = 0
  let choked = false
  let size: number | undefined
  const result = { intact: 0, foreign: 0, lost: 0, bytes: 0, shortest: longestAllowed, longest: 0 }

  const matches = (i: number, message: Buffer) => {
    const at = i % ring
    return (
      sizes[at] === message.length && pool.compare(message, 0, message.length, starts[at], starts[at] + sizes[at]) === 0 && starts[at] >= 0
    )
  }

  await new Promise<void>((resolve, reject) => {
    let heard = sent
    const stalled = setInterval(() => {
      if (heard === result.intact) finish()
      heard = result.intact
    }, 5000)
    const finish = () => {
      clearInterval(stalled)
      conn.off('data', onData).off('drain', onDrain).off('close', onClose)
      resolve()
    }
    const onClose = () => {
      clearInterval(stalled)
      reject(new Error(`The connection closed after ${result.intact} of ${messages} messages`))
    }
    const send = () => {
      while (sent < messages && !choked && sent - oldest < ring) {
        // Drawn once: to draw again for each try would favour the short ones.
        size ??= fixed ?? 1 + (random() % longestAllowed)
        if (outstanding + size > underWay) return
        const start = random() % (pool.length - size)
        starts[sent % ring] = start
        sizes[sent % ring] = size
        sent++
        outstanding += size
        choked = !conn.write(pool.subarray(start, start + size))
        size = undefined
      }
    }
    const onDrain = () => {
      choked = false
      send()
    }
    const onData = (message: Buffer) => {
      // In order on one clean link, but several CPUs may overtake each other, and order is not promised: look among all that is under way.
      let i = oldest
      while (i < sent && !matches(i, message)) i++
      if (i === sent) result.foreign++
      else {
        result.intact++
        result.bytes += message.length
        result.shortest = Math.min(result.shortest, message.length)
        result.longest = Math.max(result.longest, message.length)
        outstanding -= message.length
        starts[i % ring] = -1
        sizes[i % ring] = -1
        while (oldest < sent && sizes[oldest % ring] === -1) oldest++
      }
      if (result.intact === messages) finish()
      else send()
    }
    conn.removeAllListeners('data') // the peer would tell the test of each message
    conn.on('data', onData).on('drain', onDrain).on('close', onClose)
    send()
  })
  result.lost = messages - result.intact
  return result
}
