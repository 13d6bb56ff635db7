// Echo server on all cores: several threads (or processes) listen on one port, and each connection lives in one of them. When one dies, a new one
// takes its place, and the connections of the others never know.
//
//   npx tsx examples/sharded-echo-server.ts 0.0.0.0:9191
//   npx tsx examples/sharded-echo-server.ts 0.0.0.0:9191 --shards 4 --cluster
//
// Needs CAP_NET_RAW (root has it). Stop it with Ctrl-C.
import cluster from 'node:cluster'
import { availableParallelism } from 'node:os'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { createFlowTable, FlowTable, type FlowTableHandle, listen } from 'faketcp'
import { aborted, formatAddress, integer, run, UsageError } from './command-line.ts'

const USAGE = `usage: npx tsx examples/sharded-echo-server.ts <address> [options]
  <address>     where to listen: 0.0.0.0:9191, [::]:9191 (both families), or a port alone
  --shards <n>  how many share the port, 1 to 64 (default: one for each core)
  --cluster     processes (node:cluster) instead of threads`

/** What one shard is told. */
interface Job {
  readonly address: string
  readonly shard: { readonly index: number; readonly count: number }
  /** Of threads: one table for all connections, so that its limits and lists are theirs together. */
  readonly table?: FlowTableHandle
}

type FromShard = { is: 'listening'; pid: number } | { is: 'failed'; message: string }

/** A thread or process that runs one shard. */
interface Running {
  onMessage(handle: (message: FromShard) => void): void
  onExit(handle: () => void): void
  stop(): void
}

// The shard's side

async function serve(
  { address, shard, table }: Job,
  tell: (message: FromShard) => void,
  onStop: (stop: () => Promise<void>) => void,
): Promise<void> {
  const server = await listen(address, { shard, ...(table && { table: FlowTable.attach(table) }) })
  server.on('connection', (conn) => {
    const peer = formatAddress(conn.remoteAddress, conn.remotePort)
    console.log(`shard ${shard.index}: ${peer} connected`)
    conn.on('data', (message) => conn.write(message))
    conn.on('error', (error) => console.log(`shard ${shard.index}: ${peer} failed: ${error.message}`))
  })
  onStop(() => {
    const [{ accepted, shard: part }] = server.stats
    if (part !== undefined) {
      const { index, handedOver, takenOver, strays } = part
      console.log(`shard ${index}: ${accepted} accepted, ${handedOver} handed over, ${takenOver} taken over, ${strays} kept for others`)
    }
    return server.close({ connections: true })
  })
  tell({ is: 'listening', pid: process.pid })
}

async function serveOr(tell: (message: FromShard) => void, job: Job, onStop: (stop: () => Promise<void>) => void): Promise<boolean> {
  try {
    await serve(job, tell, onStop)
    return true
  } catch (error) {
    tell({ is: 'failed', message: error instanceof Error ? error.message : String(error) })
    return false
  }
}

// The supervisor's side

/** This file in a thread. Compiled to JavaScript, `new Worker(new URL(import.meta.url))` would do; tsx has to be told in each thread. */
const THREAD = `import(${JSON.stringify(import.meta.resolve('tsx/esm/api'))})
  .then(({ register }) => register() && import(${JSON.stringify(import.meta.url)}))`

function startThread(job: Job): Running {
  const worker = new Worker(THREAD, { eval: true, workerData: job })
  return {
    onMessage: (handle) => void worker.on('message', handle).on('error', (error) => handle({ is: 'failed', message: error.message })),
    onExit: (handle) => void worker.on('exit', handle),
    stop: () => worker.postMessage('stop'),
  }
}

function startProcess(job: Job): Running {
  const worker = cluster.fork({ SHARD: JSON.stringify(job) })
  return {
    onMessage: (handle) => void worker.on('message', handle),
    onExit: (handle) => void worker.on('exit', handle),
    stop: () => worker.isConnected() && worker.send('stop'),
  }
}

/** Runs one shard until the signal, starting it again whenever it ends. What goes wrong before it ever listened goes wrong again: that is thrown. */
async function keepRunning(start: () => Running, index: number, signal: AbortSignal, onListening: () => void): Promise<void> {
  for (let listened = false; !signal.aborted; ) {
    const running = start()
    const stop = () => running.stop()
    signal.addEventListener('abort', stop)
    const failure = await new Promise<string | undefined>((resolve) => {
      let message: string | undefined
      running.onMessage((told) => {
        if (told.is === 'failed') message = told.message
        else {
          console.log(`shard ${index} listens${told.pid === process.pid ? '' : ` (process ${told.pid})`}${listened ? ' again' : ''}`)
          listened = true
          onListening()
        }
      })
      running.onExit(() => resolve(message))
    })
    signal.removeEventListener('abort', stop)
    if (!listened && !signal.aborted) throw new Error(failure ?? `shard ${index} ended before it listened`)
    if (!signal.aborted) await pause(failure === undefined ? 0 : 1000)
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

async function main(args: string[], signal: AbortSignal): Promise<void> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: { shards: { type: 'string' }, cluster: { type: 'boolean', default: false } },
  })
  const [address] = positionals
  if (address === undefined || positionals.length > 1) throw new UsageError('Expected one address to listen on')
  const count = integer('--shards', values.shards ?? String(Math.min(availableParallelism(), 64)), 1, 64)

  const start = values.cluster ? startProcess : startThread
  const table = values.cluster ? {} : { table: createFlowTable().handle }
  // One that cannot listen ends all.
  const failed = new AbortController()
  const either = AbortSignal.any([signal, failed.signal])
  let listening = 0
  const onListening = () => {
    if (++listening === count) console.log(`Listening on ${address}: ${count} ${values.cluster ? 'processes' : 'threads'}`)
  }
  const shards = Array.from({ length: count }, (_, index) =>
    keepRunning(() => start({ address, shard: { index, count }, ...table }), index, either, onListening).catch((error: Error) => {
      failed.abort()
      throw error
    }),
  )
  await Promise.race([aborted(signal), ...shards])
  await Promise.all(shards)
}

if (!isMainThread) {
  const port = parentPort
  await serveOr(
    (message) => port?.postMessage(message),
    workerData as Job,
    (stop) => port?.once('message', () => void stop()), // nothing else keeps the thread
  )
} else if (cluster.isWorker) {
  // Ctrl-C reaches every process of the terminal, and a service manager's SIGTERM every process of the service: the supervisor tells when to stop.
  process.on('SIGINT', () => {}).on('SIGTERM', () => {})
  const tell = (message: FromShard) => void process.send?.(message)
  const serving = await serveOr(tell, JSON.parse(process.env.SHARD ?? '') as Job, (stop) => {
    process.once('message', () => void stop().then(() => process.disconnect()))
  })
  // The channel to the supervisor keeps the process. When the supervisor is gone, node:cluster ends it.
  if (!serving) process.disconnect()
} else await run(USAGE, main)
