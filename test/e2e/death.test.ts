// How it ends when a process does: the other side learns of it, and nothing of ours stays behind.
import { expect, it } from 'vitest'
import { capture } from '../support/capture.ts'
import { twoHosts } from '../support/hosts.ts'
import { holdings, left } from '../support/leaks.ts'
import { Peer } from './peer.ts'

const PORT = 9191
/** Nothing of ours may be in a host so long after a death. */
const CLEAN = { timeout: 5000, interval: 100 }
/** "At once": the FIN of the dead process's carrier. */
const AT_ONCE_MS = 2000

async function talking() {
  const hosts = await twoHosts()
  const before = { a: await holdings(hosts.a), b: await holdings(hosts.b) }
  const [server, client] = [await Peer.on(hosts.b), await Peer.on(hosts.a)]
  await server.listen({ host: '::', port: PORT })
  const listening = await holdings(hosts.b)
  const flows = []
  for (const host of [hosts.b.address4, hosts.b.address6]) {
    const conn = await client.dial({ host, port: PORT })
    const accepted = await server.next('connection')
    // The kernels' own numbers are long passed when death comes.
    await client.write(conn.id, 'from the client')
    await server.write(accepted.id, 'from the server')
    await Promise.all([server.next('message'), client.next('message')])
    flows.push({ client: conn.id, server: accepted.id })
  }
  return { hosts, before, listening, server, client, flows, [Symbol.asyncDispose]: () => hosts[Symbol.asyncDispose]() }
}

it('a killed client: the server learns of it at once, and nothing is left in either host', async () => {
  await using scene = await talking()
  const { hosts, before, listening, server, client } = scene
  await client.agent.kill('SIGKILL')
  const killed = performance.now()
  const closed = [await server.next('closed'), await server.next('closed')]
  expect(performance.now() - killed).toBeLessThan(AT_ONCE_MS)
  expect(closed.map(({ code }) => code)).toEqual(['ECONNRESET', 'ECONNRESET'])
  await expect.poll(async () => left(before.a, await holdings(hosts.a)), CLEAN).toEqual({})
  await expect.poll(async () => left(listening, await holdings(hosts.b)), CLEAN).toEqual({})
  expect(await server.flows()).toBe(0)
})

it('a killed server: the client learns of it at once, and nothing is left in either host', async () => {
  await using scene = await talking()
  const { hosts, before, server, client } = scene
  const idle = left(before.a, await holdings(hosts.a))
  expect(idle.tcp).toHaveLength(2)
  await server.agent.kill('SIGKILL')
  const killed = performance.now()
  const closed = [await client.next('closed'), await client.next('closed')]
  expect(performance.now() - killed).toBeLessThan(AT_ONCE_MS)
  expect(closed.map(({ code }) => code)).toEqual(['ECONNRESET', 'ECONNRESET'])
  await expect.poll(async () => left(before.b, await holdings(hosts.b)), CLEAN).toEqual({})
  await expect
    .poll(async () => {
      const { tcp, udp, raw, packet, firewall } = left(before.a, await holdings(hosts.a))
      return { tcp, udp, raw, packet, firewall }
    }, CLEAN)
    .toEqual({})
})

it('both sides killed: nothing is left in either host', async () => {
  await using scene = await talking()
  const { hosts, before, server, client } = scene
  await Promise.all([server.agent.kill('SIGKILL'), client.agent.kill('SIGKILL')])
  await expect.poll(async () => left(before.a, await holdings(hosts.a)), CLEAN).toEqual({})
  await expect.poll(async () => left(before.b, await holdings(hosts.b)), CLEAN).toEqual({})
})

it('process.exit() with open flows: the other side learns of it at once', async () => {
  await using scene = await talking()
  const { hosts, before, server, client } = scene
  await client.agent.run(() => {
    setImmediate(() => process.exit(7))
  })
  const asked = performance.now()
  expect([(await server.next('closed')).code, (await server.next('closed')).code]).toEqual(['ECONNRESET', 'ECONNRESET'])
  expect(performance.now() - asked).toBeLessThan(AT_ONCE_MS)
  expect(await client.agent.exit).toEqual({ code: 7, signal: null })
  await expect.poll(async () => left(before.a, await holdings(hosts.a)), CLEAN).toEqual({})
})

it('process.exit() right after close(): no reset from any kernel', async () => {
  await using scene = await talking()
  const { hosts, server, client, flows } = scene
  await using recording = await capture(hosts.b, { filter: `tcp port ${PORT}` })
  await client.agent
    .run(
      async (ctx, ids) => {
        await Promise.all(ids.map((id) => ctx.state.conns[id].close()))
        process.exit(0)
      },
      flows.map((flow) => flow.client),
    )
    .catch(() => {}) // its answer goes down with it
  expect(await client.agent.exit).toEqual({ code: 0, signal: null })
  expect([(await server.next('closed')).code, (await server.next('closed')).code]).toEqual([undefined, undefined])
  // Late packets would show until the last carrier is gone.
  const carriers = () => hosts.b.output('ss', ['-H', '-n', '-t', '-a', 'exclude', 'listening'])
  await expect.poll(carriers, CLEAN).toBe('')
  await recording.stop()
  const segments = await recording.segments()
  expect(segments.filter(({ flags }) => flags.includes('R'))).toEqual([])
})

it('process.exit() right after close(), with a slow reader on the other side: it still gets every message, then the end', async () => {
  await using scene = await talking()
  const { server, client, flows } = scene
  const [{ client: id, server: accepted }] = flows
  await server.agent.run((ctx, id) => void ctx.state.conns[id].pause(), accepted)
  await client.write(id, ...Array.from({ length: 100 }, (_, i) => `message ${i}`))
  await client.agent
    .run(async (ctx, id) => {
      await ctx.state.conns[id].close()
      process.exit(0)
    }, id)
    .catch(() => {}) // its answer goes down with it
  // The other connection, which was not closed, tells that the dead process's carriers have been heard.
  expect(await server.next('closed')).toMatchObject({ id: 1, code: 'ECONNRESET' })
  await server.agent.run((ctx, id) => void ctx.state.conns[id].resume(), accepted)
  const received = []
  for (let i = 0; i < 100; i++) received.push((await server.next('message')).text)
  expect(received).toEqual(Array.from({ length: 100 }, (_, i) => `message ${i}`))
  expect(await server.next('end')).toBe(accepted)
  expect(await server.next('closed')).toEqual({ id: accepted, code: undefined })
})

it('a child process that outlives its parent does not keep the flows open', async () => {
  await using scene = await talking()
  const { server, client } = scene
  await client.agent.run(async () => {
    const { spawn } = await import('node:child_process')
    const child = spawn('sleep', ['600'], { stdio: 'ignore', detached: true })
    await new Promise((resolve) => child.once('spawn', resolve))
  })
  await client.agent.kill('SIGKILL')
  expect([(await server.next('closed')).code, (await server.next('closed')).code]).toEqual(['ECONNRESET', 'ECONNRESET'])
})
