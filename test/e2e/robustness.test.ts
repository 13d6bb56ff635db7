// What one connection, one handler or one moment of want must not do to the rest. Each scene is a process of its own on one host.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'

const library = new URL('../../dist/index.js', import.meta.url).href

let hosts: Awaited<ReturnType<typeof twoHosts>>
beforeAll(async () => {
  hosts = await twoHosts()
})
afterAll(() => hosts[Symbol.asyncDispose]())

/** Runs a module in a Node process on host b; what it logs as JSON on its last line. The process must end by itself. */
async function scene(code: string, shell = ''): Promise<unknown> {
  const module = `import { createFlowTable, dial, FlowTable, listen, listeners } from ${JSON.stringify(library)}\n${code}`
  const command = `${shell} exec ${process.execPath} --input-type=module -e "$0"`
  const result = await hosts.b.exec('sh', ['-c', command, module])
  expect({ code: result.code, stderr: result.stderr }).toEqual({ code: 0, stderr: '' })
  return JSON.parse(result.stdout.trim().split('\n').at(-1) ?? '')
}

it('connections that destroy themselves in their write callbacks leave the others working, and send each message once', async () => {
  const result = await scene(`
    const server = await listen('127.0.0.1:0')
    const { port } = server.address()
    const accepted = []
    const ready = new Promise((resolve) => server.on('connection', (conn) => {
      conn.on('error', () => {})
      if (accepted.push(conn) === 6) resolve()
    }))
    const got = []
    const clients = []
    for (let i = 0; i < 6; i++) {
      const client = await dial({ host: '127.0.0.1', port })
      client.on('error', () => {})
      client.on('data', (message) => got.push(String(message)))
      clients.push(client)
    }
    await ready
    for (const conn of accepted.slice(0, 5)) conn.write('bye', () => conn.destroy())
    await new Promise((resolve) => accepted[5].write('first', resolve))
    const last = new Promise((resolve) => clients[5].on('data', (message) => String(message) === 'second' && resolve()))
    await new Promise((resolve) => accepted[5].write('second', resolve))
    await last
    await server.close({ connections: true })
    await Promise.all(clients.map((client) => client.close()))
    console.log(JSON.stringify(got.sort()))`)
  expect(result).toEqual(['bye', 'bye', 'bye', 'bye', 'bye', 'first', 'second'])
})

it('the reset of the last connection is an error of that connection only, and statistics are read after the end', async () => {
  const result = await scene(`
    const server = await listen('127.0.0.1:0')
    const { port } = server.address()
    const accepted = new Promise((resolve) => server.on('connection', resolve))
    const client = await dial({ host: '127.0.0.1', port })
    const lost = new Promise((resolve) => client.on('error', ({ code }) => resolve(code)))
    client.on('data', () => {})
    client.write('hello')
    // Longer than the pause between two readings of the kernel's drop counters.
    await new Promise((resolve) => setTimeout(resolve, 1200))
    ;(await accepted).destroy()
    const code = await lost
    await server.close()
    await new Promise((resolve) => setTimeout(resolve, 2500))
    console.log(JSON.stringify({ code, granted: server.stats[0].receiveBufferBytes > 0, sent: client.stats.messagesOut }))`)
  expect(result).toEqual({ code: 'ECONNRESET', granted: true, sent: 1 })
})

it('a server that has run out of files goes on when there are some again, in a for await as well', async () => {
  const result = await scene(
    `
    import { closeSync, openSync } from 'node:fs'
    import net from 'node:net'
    const server = await listen('127.0.0.1:0')
    const { port } = server.address()
    const errors = []
    server.on('error', ({ code, syscall }) => errors.push(code + ' ' + syscall))
    const first = net.connect(port, '127.0.0.1')
    first.on('error', () => {})
    await new Promise((resolve) => first.on('connect', resolve))
    // All that is left is taken but for one, which the second client's socket takes: the server has none to accept it with.
    const taken = []
    try { for (;;) taken.push(openSync('/dev/null')) } catch {}
    closeSync(taken.pop())
    const waiting = net.connect(port, '127.0.0.1')
    waiting.on('error', () => {})
    await new Promise((resolve) => server.once('error', resolve))
    for (const fd of taken) closeSync(fd)
    let count = 0
    for await (const conn of server) {
      conn.on('error', () => {})
      if (++count === 2) break
    }
    console.log(JSON.stringify({ count, error: errors[0] }))
    process.exit()`,
    'ulimit -n 64;',
  )
  expect(result).toEqual({ count: 2, error: 'EMFILE accept' })
})

it('a closed listener whose connections live on does not disturb its successor on the same port, nor that one them', async () => {
  const result = await scene(`
    const options = () => ({ host: '127.0.0.1', table: createFlowTable({ capacity: 64 }) })
    const echo = (server) => server.on('connection', (conn) => { conn.on('error', () => {}); conn.on('data', (message) => conn.write(message)) })
    const older = await listen({ ...options(), port: 0 })
    const { port } = older.address()
    echo(older)
    const lost = []
    const talk = async (name) => {
      const conn = await dial({ host: '127.0.0.1', port, table: createFlowTable({ capacity: 64 }) })
      conn.on('error', ({ code }) => lost.push(name + ' ' + code))
      conn.on('data', () => {})
      return conn
    }
    const a = await talk('a')
    a.write('x')
    await older.close()
    const newer = await listen({ ...options(), port })
    echo(newer)
    const b = await talk('b')
    // Longer than unclaimed data is kept.
    for (let i = 0; i < 65; i++) {
      a.write('a')
      b.write('b')
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
    const echoed = [a.stats.messagesIn > 60, b.stats.messagesIn > 60]
    await Promise.all([a.close(), b.close()])
    await newer.close()
    console.log(JSON.stringify({ lost, echoed }))`)
  expect(result).toEqual({ lost: [], echoed: [true, true] })
})

it('a connection whose numbers were never learned closes, and its peer sees an ordinary end', async () => {
  await hosts.b.exec('iptables', ['-t', 'nat', '-A', 'PREROUTING', '-p', 'tcp', '--dport', '7001', '-j', 'REDIRECT', '--to-ports', '9191'])
  const server = await hosts.b.agent()
  await server.run(async (ctx, host) => {
    const listener = await ctx.faketcp.listen({ host, port: 9191 })
    listener.on('connection', async (conn) => {
      conn.on('error', () => {})
      await conn.close()
      ctx.emit('closed', conn.stats.capture)
    })
  }, hosts.b.address4)
  const client = await hosts.a.agent()
  const ended = client.run(async (_, host) => {
    const net = await import('node:net')
    const socket = net.connect(7001, host)
    socket.resume()
    return new Promise<string>((resolve) => socket.on('end', () => resolve('end')).on('error', ({ message }) => resolve(message)))
  }, hosts.b.address4)
  expect(await server.next('closed')).toBe('raw')
  expect(await ended).toBe('end')
})

it('IPv4-mapped addresses are dialled and listened on as the IPv4 addresses they are', async () => {
  const result = await scene(`
    const server = await listen('[::ffff:127.0.0.1]:0')
    server.on('connection', (conn) => conn.on('data', (message) => conn.write(message)))
    const conn = await dial({ host: '::ffff:127.0.0.1', port: server.address().port })
    const echo = new Promise((resolve) => conn.once('data', resolve))
    conn.write('mapped')
    const text = String(await echo)
    const { family, remoteAddress } = conn
    await conn.close()
    await server.close({ connections: true })
    console.log(JSON.stringify({ text, family, remoteAddress }))`)
  expect(result).toEqual({ text: 'mapped', family: 'IPv4', remoteAddress: '127.0.0.1' })
})

it('the flows of a terminated worker make room for new ones in a shared table', async () => {
  const result = await scene(`
    import { Worker } from 'node:worker_threads'
    const table = createFlowTable({ capacity: 1 })
    const code = \`
      import { parentPort, workerData } from 'node:worker_threads'
      import { FlowTable, listen } from ${JSON.stringify(library)}
      const server = await listen({ host: '127.0.0.1', port: 9393, table: FlowTable.attach(workerData) })
      server.on('connection', (conn) => conn.on('data', (message) => conn.write(message)))
      parentPort.postMessage('ready')\`
    const start = async () => {
      const worker = new Worker(code, { eval: true, workerData: table.handle })
      await new Promise((resolve) => worker.once('message', resolve))
      return worker
    }
    const echo = async () => {
      const conn = await dial({ host: '127.0.0.1', port: 9393 })
      conn.on('error', () => {})
      const echoed = new Promise((resolve) => conn.once('data', (message) => resolve(String(message))))
      conn.write('hello')
      return echoed
    }
    const first = await start()
    await echo()
    await first.terminate()
    const held = table.size
    const second = await start()
    const text = await echo()
    console.log(JSON.stringify({ held, text }))
    await second.terminate()
    process.exit()`)
  expect(result).toEqual({ held: 1, text: 'hello' })
})

it('strangers’ pure ACKs and connections that come and go while nobody accepts cost next to nothing', async () => {
  const result = await scene(`
    import net from 'node:net'
    const server = await listen({ host: '127.0.0.1', port: 0, backlog: 4 })
    const { port } = server.address()
    for (let i = 0; i < 12; i++) {
      const socket = net.connect(port, '127.0.0.1')
      socket.on('error', () => {})
      await new Promise((resolve) => socket.on('connect', resolve))
      socket.resetAndDestroy()
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const conn = await dial({ host: '127.0.0.1', port })
    const accepted = new Promise((resolve) => server.on('connection', (one) => one.on('error', () => {}).once('data', (message) => resolve(String(message)))))
    conn.write('somebody at last')
    const text = await accepted
    await conn.close()
    await server.close({ connections: true })
    console.log(JSON.stringify({ text, refused: server.stats[0].refused }))`)
  expect(result).toEqual({ text: 'somebody at last', refused: 0 })
})
