// One way, as fast as nothing is lost or at a pace: each message carries its number, and its content follows from the number, so the receiver can tell an
// intact message from a corrupt, a doubled and a missing one. The receiver says from time to time how far it has come, and the sender keeps what
// is under way below a bound: fake TCP has no flow control of its own. With `pace` the receiver says nothing at all.
import type { AgentContext } from '../support/agent.ts'
import type { Peer } from './peer.ts'

export interface BulkJob {
  readonly messages: number
  /** Bytes of each message, at least 4. */
  readonly size: number
  /** One `write` and one 'data' for each message, or runs by `sendTrain` and 'train'. */
  readonly by: 'message' | 'train'
  /** The receiver keeps every so many-th message, and a copy of it, in `state.kept`. */
  readonly keepEvery?: number
  /** Messages a second at most; Infinity: as fast as the stream takes them. Such a job may run each way on the same connection at once. */
  readonly pace?: number
}

export interface BulkResult {
  readonly intact: number
  readonly corrupt: number
  readonly doubled: number
  readonly lost: number
}

/** Both ends' numbers of one connection; resolves when all has arrived, or nothing has for 5 s (with `pace`: 0.5 s). */
export async function bulk(
  { from, id: outId }: { from: Peer; id: number },
  { to, id: inId }: { to: Peer; id: number },
  job: BulkJob,
): Promise<BulkResult> {
  await to.agent.run(receive, { ...job, id: inId })
  await from.agent.run(job.pace === undefined ? send : sendAtPace, { ...job, id: outId })
  return to.agent.run((ctx) => {
    ctx.state.bulkSent()
    return ctx.state.bulkReceived
  })
}

type Conn = import('../../lib/index.ts').FakeTcpConn

/** Starts the receiver; its result is in `state.bulkReceived`, then the seconds from the first message to the last in `state.bulkSeconds`. */
function receive(ctx: AgentContext, { id, messages, size, by, keepEvery = 0, pace }: BulkJob & { id: number }): void {
  const conn: Conn = ctx.state.conns[id]
  const expected = Buffer.alloc(size)
  const seen = new Uint8Array(messages)
  const result = { intact: 0, corrupt: 0, doubled: 0, lost: 0 }
  let told = 0
  let [first, last] = [0, 0]
  ctx.state.kept ??= []
  ctx.state.bulkReceived = new Promise((resolve) => {
    let before = -1
    const finish = () => {
      clearInterval(idle)
      ctx.state.bulkSeconds = (last - first) / 1000
      result.lost = messages - result.intact
      resolve(result)
    }
    const look = () => {
      if (before === result.intact) finish()
      before = result.intact
    }
    let idle = setInterval(look, 5000)
    ctx.state.bulkSent = () => {
      if (pace === undefined) return
      clearInterval(idle)
      idle = setInterval(look, 500)
    }
    const tell = () => {
      const text = Buffer.alloc(4)
      text.writeUInt32LE(result.intact)
      told = result.intact
      conn.write(text)
    }
    const onMessage = (message: Buffer) => {
      last = performance.now()
      first ||= last
      const number = message.length === size ? message.readUInt32LE(0) : messages
      expected.fill((number * 131) & 0xff)
      expected.writeUInt32LE(number)
      if (number >= messages || !message.equals(expected)) result.corrupt++
      else if (seen[number] === 1) result.doubled++
      else {
        seen[number] = 1
        if (keepEvery > 0 && number % keepEvery === 0) ctx.state.kept.push([message, Buffer.from(message)])
        result.intact++
      }
      if (pace === undefined && (result.intact - told >= 32 || result.intact === messages)) tell()
      // Some time later: what comes twice comes soon.
      if (result.intact === messages) setTimeout(finish, 100)
    }
    conn.removeAllListeners('data') // the peer would tell the test of each message
    conn.removeAllListeners('train') // of a job before
    if (by === 'message') conn.on('data', onMessage)
    else
      conn.on('train', ({ buffer, segmentSize, count }) => {
        for (let i = 0; i < count; i++) onMessage(buffer.subarray(i * segmentSize, (i + 1) * segmentSize))
      })
  })
}

function send(ctx: AgentContext, { id, messages, size, by }: BulkJob & { id: number }): Promise<void> {
  const conn: Conn = ctx.state.conns[id]
  const most = Math.max(64, Math.floor((256 << 10) / size))
  const run = 64
  let sent = 0
  let heard = 0
  let choked = false
  const write = (number: number, bytes: Buffer) => {
    bytes.fill((number * 131) & 0xff)
    bytes.writeUInt32LE(number)
  }
  return new Promise((resolve) => {
    let before = -1
    const stalled = setInterval(() => {
      if (before === heard) finish()
      before = heard
    }, 5000)
    const finish = () => {
      clearInterval(stalled)
      conn.off('data', onProgress).off('drain', onDrain)
      resolve()
    }
    const go = () => {
      while (!choked && sent < messages && sent - heard < most) {
        const count = by === 'train' ? Math.min(run, messages - sent, most - (sent - heard)) : 1
        const bytes = Buffer.allocUnsafe(count * size)
        for (let i = 0; i < count; i++) write(sent + i, bytes.subarray(i * size, (i + 1) * size))
        sent += count
        choked = !(by === 'train' ? conn.sendTrain(bytes, size) : conn.write(bytes))
      }
    }
    const onDrain = () => {
      choked = false
      go()
    }
    const onProgress = (message: Buffer) => {
      heard = Math.max(heard, message.readUInt32LE(0))
      if (heard === messages) finish()
      else go()
    }
    conn.removeAllListeners('data')
    conn.on('data', onProgress).on('drain', onDrain)
    go()
  })
}

/** Resolves when the stream has taken all. */
async function sendAtPace(ctx: AgentContext, { id, messages, size, by, pace = 0 }: BulkJob & { id: number }): Promise<void> {
  const { once } = await ctx.import<typeof import('node:events')>('node:events')
  const conn: Conn = ctx.state.conns[id]
  const began = performance.now()
  for (let sent = 0; sent < messages; ) {
    const allowed = Math.min(messages, pace === Number.POSITIVE_INFINITY ? messages : ((performance.now() - began) * pace) / 1000)
    const count = Math.min(64, Math.floor(allowed) - sent)
    if (count <= 0) {
      await new Promise((resolve) => setTimeout(resolve, 1))
      continue
    }
    const bytes = Buffer.allocUnsafe(count * size)
    for (let i = 0; i < count; i++) {
      bytes.fill(((sent + i) * 131) & 0xff, i * size, (i + 1) * size)
      bytes.writeUInt32LE(sent + i, i * size)
    }
    let room = true
    if (by === 'train') room = conn.sendTrain(bytes, size)
    else for (let i = 0; i < count; i++) room = conn.write(bytes.subarray(i * size, (i + 1) * size))
    sent += count
    if (!room) await once(conn, 'drain')
  }
}
