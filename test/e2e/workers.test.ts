// worker_threads: each has its own engine, captures and carriers; the process they share goes on when one is terminated.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { expectExit, expectNothingLeft, held } from './leftovers.ts'
import { Peer } from './peer.ts'

const LIBRARY = new URL('../../dist/index.js', import.meta.url).href

/** Listens, dials, or both, as `workerData` says. */
const WORKER = `
  import { parentPort, workerData } from 'node:worker_threads'
  const { dial, listen, FlowTable } = await import(workerData.library)
  const table = workerData.table && FlowTable.attach(workerData.table)
  const { role, host, port, count } = workerData
  if (role === 'listener') {
    const listener = await listen({ host, port, table })
    listener.on('connection', (conn) => {
      conn.on('error', () => {})
      conn.on('data', (message) => conn.write(message))
    })
    parentPort.once('message', () => listener.close({ connections: true }))
    parentPort.postMessage('listening')
  } else {
    const conn = await dial({ host, port, table })
    let echoed = 0
    conn.on('data', (message) => {
      if (message.toString() !== 'message ' + echoed) throw new Error('got ' + message)
      if (++echoed < count) conn.write('message ' + echoed)
      else parentPort.postMessage('echoed')
    })
    conn.write('message 0')
    parentPort.once('message', () => conn.close())
  }
`

it('dials and listens in two workers at once', async () => {
  await using hosts = await twoHosts()
  const peer = await Peer.on(hosts.a)
  const before = await held(peer)
  const results = await peer.agent.run(
    async (ctx, { worker, library, host }) => {
      const { Worker } = await ctx.import<typeof import('node:worker_threads')>('node:worker_threads')
      const table = ctx.faketcp.createFlowTable({ capacity: 1024 })
      ctx.state.table = table
      const start = (workerData: object) =>
        new Worker(new URL(`data:text/javascript,${encodeURIComponent(worker)}`), {
          workerData: { library, host, table: table.handle, ...workerData },
        })
      const said = (worker: InstanceType<typeof Worker>) =>
        new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
      const servers = [9191, 9192].map((port) => start({ role: 'listener', port }))
      const listening = await Promise.all(servers.map(said))
      const clients = [9191, 9192].map((port) => start({ role: 'dialler', port, count: 200 }))
      const echoed = await Promise.all(clients.map(said))
      const flows = table.size
      for (const one of [...clients, ...servers]) one.postMessage('end')
      const codes = await Promise.all([...clients, ...servers].map((one) => new Promise((resolve) => one.once('exit', resolve))))
      table.reap() // a thread that ended in timeWait leaves its slots to whoever asks
      return { listening, echoed, flows, codes, left: table.size }
    },
    { worker: WORKER, library: LIBRARY, host: hosts.a.address4 },
  )
  expect(results).toEqual({ listening: ['listening', 'listening'], echoed: ['echoed', 'echoed'], flows: 4, codes: [0, 0, 0, 0], left: 0 })
  await expectNothingLeft(peer, before)
  await expectExit(peer)
})

it('worker.terminate() with open flows: the other side learns of it, and nothing is left behind', async () => {
  await using hosts = await twoHosts()
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: hosts.b.address4, port: 9191, echo: true })
  const before = await held(client)
  await client.agent.run(
    async (ctx, { worker, library, host }) => {
      const { Worker } = await ctx.import<typeof import('node:worker_threads')>('node:worker_threads')
      const one = new Worker(new URL(`data:text/javascript,${encodeURIComponent(worker)}`), {
        workerData: { library, host, port: 9191, role: 'dialler', count: 10 },
      })
      await new Promise((resolve, reject) => one.once('message', resolve).once('error', reject))
      await one.terminate()
    },
    { worker: WORKER, library: LIBRARY, host: hosts.b.address4 },
  )
  expect(await server.next('closed')).toEqual({ id: 0, code: 'ECONNRESET' })
  await expectNothingLeft(client, before)
  // The main thread is none the worse for it.
  const { id } = await client.dial({ host: hosts.b.address4, port: 9191 })
  await client.write(id, 'from the main thread')
  expect((await client.next('message')).text).toBe('from the main thread')
  await client.close(id)
  await expectExit(client)
})

it('terminating a worker over and over, while it dials and listens', async () => {
  await using hosts = await twoHosts()
  const peer = await Peer.on(hosts.a)
  const before = await held(peer)
  await peer.agent.run(
    async (ctx, { worker, library, host }) => {
      const { Worker } = await ctx.import<typeof import('node:worker_threads')>('node:worker_threads')
      for (let i = 0; i < 20; i++) {
        const role = i % 2 === 0 ? 'listener' : 'dialler'
        const one = new Worker(new URL(`data:text/javascript,${encodeURIComponent(worker)}`), {
          workerData: { library, host, port: 9300 + (i >> 1), role, count: 10 },
        })
        one.on('error', () => {}) // nobody listens any more
        await new Promise((resolve) => one.once('online', resolve))
        for (let turn = 0; turn < i; turn++) await new Promise((resolve) => setImmediate(resolve))
        await one.terminate()
      }
    },
    { worker: WORKER, library: LIBRARY, host: hosts.a.address4 },
  )
  await expectNothingLeft(peer, before)
  await expectExit(peer)
})
