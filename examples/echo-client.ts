// Echo client: sends messages to an echo server and measures how long the answers take and how many never come.
//
//   npx tsx examples/echo-client.ts 10.0.0.1:9191
//   npx tsx examples/echo-client.ts 10.0.0.1:9191 --count 100000 --size 1400 --window 128
//   npx tsx examples/echo-client.ts 10.0.0.1:9191 --rate 500
//
// Needs CAP_NET_RAW (root has it).
import { once } from 'node:events'
import { createHistogram } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { dial, type FakeTcpConn } from 'faketcp'
import { formatAddress, integer, run, UsageError } from './command-line.ts'

const USAGE = `usage: npx tsx examples/echo-client.ts <address> [options]
  <address>         of an echo server: 192.0.2.1:9191, [2001:db8::1]:9191, example.net:9191
  --count <n>       messages to send (1000)
  --size <bytes>    bytes of each message (64)
  --window <n>      messages that may wait for their answer at a time (1: each waits for the one before)
  --rate <n>        messages a second instead, whether or not answers come
  --timeout <ms>    a message without an answer for so long counts as lost (2000)
  --json            prints a line of JSON ten times a second and one with the result, for programs to read`

interface Plan {
  count: number
  size: number
  window: number
  /** Messages a second; undefined where the window sets the pace. */
  rate: number | undefined
  timeoutMs: number
}

async function main(args: string[], signal: AbortSignal): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      count: { type: 'string', default: '1000' },
      size: { type: 'string', default: '64' },
      window: { type: 'string' },
      rate: { type: 'string' },
      timeout: { type: 'string', default: '2000' },
      json: { type: 'boolean', default: false },
    },
  })
  const [address] = positionals
  if (address === undefined || positionals.length > 1) throw new UsageError('Expected the address of one echo server')
  if (values.window !== undefined && values.rate !== undefined) throw new UsageError('--window and --rate exclude each other')
  const plan: Plan = {
    count: integer('--count', values.count, 1, 100_000_000),
    size: integer('--size', values.size, NUMBER_BYTES),
    window: integer('--window', values.window ?? '1', 1),
    rate: values.rate === undefined ? undefined : integer('--rate', values.rate, 1),
    timeoutMs: integer('--timeout', values.timeout, 1),
  }

  const conn = await dial(address, { signal })
  const { size } = plan
  if (size > conn.maxMessageSize) {
    await conn.close()
    throw new UsageError(`--size ${size} is too large: at most ${conn.maxMessageSize} bytes fit one message on this path`)
  }
  const probe = new Probe(conn, plan)
  if (!values.json) console.log(`Connected to ${formatAddress(conn.remoteAddress, conn.remotePort)}; sending ${describe(plan)}`)
  const progress = values.json ? setInterval(() => console.log(JSON.stringify({ progress: probe.progress })), 100) : undefined
  try {
    await probe.run(signal)
  } finally {
    clearInterval(progress)
  }
  const result = probe.result()
  await conn.close()
  if (values.json) console.log(JSON.stringify({ result }))
  else print(result)
}

/** Every message begins with its number; the rest is filling. */
const NUMBER_BYTES = 4

/** What became of a message. */
const [WAITING, ANSWERED, LOST] = [1, 2, 3]

/** Sends the plan's messages over one connection and keeps the score. */
class Probe {
  readonly #conn: FakeTcpConn
  readonly #plan: Plan
  readonly #sentAt: Float64Array
  readonly #fate: Uint8Array
  readonly #rtt = createHistogram()
  #sent = 0
  #answered = 0
  #lost = 0
  /** Answers that came twice, or after their message had been given up. */
  #stray = 0
  /** No message before this one is still waited for. */
  #oldest = 0
  #startedAt = 0
  #lastAnswerAt = 0
  #failure: Error | undefined

  constructor(conn: FakeTcpConn, plan: Plan) {
    this.#conn = conn
    this.#plan = plan
    this.#sentAt = new Float64Array(plan.count)
    this.#fate = new Uint8Array(plan.count)
  }

  get progress(): { sent: number; answered: number; count: number } {
    return { sent: this.#sent, answered: this.#answered, count: this.#plan.count }
  }

  /** Resolves when each message has been answered or given up, or when the signal is aborted; rejects when the connection fails. */
  async run(signal: AbortSignal): Promise<void> {
    const { rate } = this.#plan
    const conn = this.#conn
    conn.on('data', (message) => {
      this.#answer(message)
      if (rate === undefined) this.#sendWithinWindow()
    })
    conn.on('error', (error) => {
      this.#failure = error
    })
    this.#startedAt = this.#lastAnswerAt = performance.now()
    if (rate === undefined) {
      conn.on('drain', () => this.#sendWithinWindow())
      this.#sendWithinWindow()
    } else void this.#sendAtRate(rate, signal)
    while (this.#answered + this.#lost < this.#plan.count && !signal.aborted) {
      if (this.#failure !== undefined) throw this.#failure
      if (conn.readableEnded || conn.destroyed) throw new Error('The server has closed the connection')
      await delay(5)
      this.#giveUpOld()
      if (rate === undefined) this.#sendWithinWindow()
    }
  }

  #sendWithinWindow(): void {
    const { count, window } = this.#plan
    // `writableNeedDrain`: the kernel does not keep up. 'drain' will follow.
    while (this.#sent < count && this.#sent - this.#answered - this.#lost < window && !this.#conn.writableNeedDrain) this.#send()
  }

  /** Once in a millisecond or so, sends as many as are due by now. */
  async #sendAtRate(rate: number, signal: AbortSignal): Promise<void> {
    while (this.#sent < this.#plan.count && !this.#conn.destroyed && !signal.aborted) {
      const due = Math.min(this.#plan.count, 1 + Math.floor(((performance.now() - this.#startedAt) * rate) / 1000))
      while (this.#sent < due && !this.#conn.writableNeedDrain) this.#send()
      if (this.#conn.writableNeedDrain) await once(this.#conn, 'drain', { signal }).catch(() => {})
      else await delay(1)
    }
  }

  #send(): void {
    const number = this.#sent++
    const message = Buffer.alloc(this.#plan.size, 0x2e)
    message.writeUInt32BE(number)
    this.#fate[number] = WAITING
    this.#sentAt[number] = performance.now()
    // The memory belongs to the connection now: a message is not copied, so its buffer must not be written to again.
    this.#conn.write(message)
  }

  #answer(message: Buffer): void {
    const number = message.length === this.#plan.size ? message.readUInt32BE() : this.#sent
    if (number >= this.#sent || this.#fate[number] !== WAITING) {
      this.#stray++
      return
    }
    this.#fate[number] = ANSWERED
    this.#answered++
    this.#lastAnswerAt = performance.now()
    this.#rtt.record(Math.max(1, Math.round((this.#lastAnswerAt - this.#sentAt[number]) * 1e6)))
  }

  /** Messages can be lost, and nobody repeats them; so whoever waits for an answer needs a time limit. */
  #giveUpOld(): void {
    const limit = performance.now() - this.#plan.timeoutMs
    for (; this.#oldest < this.#sent; this.#oldest++) {
      if (this.#fate[this.#oldest] !== WAITING) continue
      if (this.#sentAt[this.#oldest] > limit) return
      this.#fate[this.#oldest] = LOST
      this.#lost++
    }
  }

  result() {
    const seconds = Math.max(this.#lastAnswerAt - this.#startedAt, 0.001) / 1000
    const perSecond = this.#answered / seconds
    const us = (nanoseconds: number): number => Math.round(nanoseconds / 100) / 10
    const percentile = (percent: number): number => us(this.#rtt.percentile(percent))
    return {
      size: this.#plan.size,
      sent: this.#sent,
      answered: this.#answered,
      lost: this.#sent - this.#answered,
      stray: this.#stray,
      seconds,
      messagesPerSecond: Math.round(perSecond),
      /** Payload in one direction; the answers are as much again. */
      mbitPerSecond: Math.round((perSecond * this.#plan.size * 8) / 1e4) / 100,
      rttUs: this.#answered === 0 ? undefined : { p50: percentile(50), p90: percentile(90), p99: percentile(99), max: us(this.#rtt.max) },
    }
  }
}

function describe({ count, size, window, rate }: Plan): string {
  return `${count} messages of ${size} bytes, ${rate === undefined ? `${window} at a time` : `${rate} a second`}`
}

function print({ sent, answered, lost, stray, seconds, messagesPerSecond, mbitPerSecond, rttUs }: ReturnType<Probe['result']>): void {
  const percent = sent === 0 ? 0 : (100 * lost) / sent
  console.log(`Sent ${sent}, answered ${answered}, lost ${lost} (${percent.toFixed(2)} %), answered twice or too late ${stray}`)
  if (rttUs !== undefined) console.log(`RTT  p50 ${rttUs.p50} µs  p90 ${rttUs.p90} µs  p99 ${rttUs.p99} µs  max ${rttUs.max} µs`)
  console.log(`Rate ${messagesPerSecond} messages/s, ${mbitPerSecond} Mbit/s each way, over ${seconds.toFixed(2)} s`)
}

await run(USAGE, main)
