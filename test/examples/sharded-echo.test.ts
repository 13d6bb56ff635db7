// The example of several shards on one port: all of them serve, in threads and in processes, and one that was killed is replaced.
import { expect, it } from 'vitest'
import { type Host, twoHosts } from '../support/hosts.ts'
import { runExample, startExample } from './commands.ts'

/** Sends one message on each of as many connections, which then close; returns how many came back. */
async function echoes(host: Host, address: string, count: number): Promise<number> {
  const agent = await host.agent()
  return agent.run(
    async ({ faketcp }, { address, count }) => {
      let answered = 0
      const one = async () => {
        const conn = await faketcp.dial(address)
        // A first message may be lost where a shard is missing.
        const answer = new Promise((resolve) => conn.once('data', resolve))
        const repeat = setInterval(() => conn.write('hello'), 100)
        conn.write('hello')
        await answer
        clearInterval(repeat)
        answered++
        await conn.close()
      }
      await Promise.all(Array.from({ length: count }, one))
      return answered
    },
    { address, count },
  )
}

it.each([
  { kind: 'threads', args: [] },
  { kind: 'processes', args: ['--cluster'] },
])('$kind serve together and end in good order', async ({ kind, args }) => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const address = `${b.address4}:9191`
  const server = await startExample(b, 'sharded-echo-server.ts', address, '--shards', '3', ...args)
  expect(server.output).toContain(`Listening on ${address}: 3 ${kind}\n`)
  expect(await echoes(a, address, 60)).toBe(60)
  for (const shard of [0, 1, 2]) expect(server.output).toMatch(new RegExp(`^shard ${shard}: ${a.address4}:\\d+ connected$`, 'm'))
  expect(await server.interrupt()).toBe(0)
  const accepted = [...server.output.matchAll(/^shard \d: (\d+) accepted, /gm)].map(([, count]) => Number(count))
  expect(accepted).toHaveLength(3)
  expect(accepted.reduce((sum, count) => sum + count)).toBe(60)
})

it('replaces a process that was killed; connections are served meanwhile', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const address = `${b.address4}:9191`
  const server = await startExample(b, 'sharded-echo-server.ts', address, '--shards', '2', '--cluster')
  const pid = Number(/^shard 1 listens \(process (\d+)\)$/m.exec(server.output)?.[1])
  process.kill(pid, 'SIGKILL')
  expect(await echoes(a, address, 20)).toBe(20)
  await server.says(/^shard 1 listens \(process \d+\) again$/m)
  expect(await echoes(a, address, 20)).toBe(20)
  expect(await server.interrupt()).toBe(0)
})

it.each([[[]], [['--cluster']]])('says in one line why it cannot listen: %j', async (args) => {
  await using hosts = await twoHosts()
  const { b } = hosts
  const { code, stdout, stderr } = await runExample(b, 'sharded-echo-server.ts', '10.77.0.99:9191', '--shards', '2', ...args)
  expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: 'bind EADDRNOTAVAIL 10.77.0.99:9191\n' })
})

it('shows its usage for wrong arguments', async () => {
  await using hosts = await twoHosts()
  const { code, stderr } = await runExample(hosts.b, 'sharded-echo-server.ts', '10.77.0.2:9191', '--shards', '65')
  expect(code).toBe(2)
  expect(stderr).toMatch(/^--shards must be an integer from 1 to 64; got '65'\n\nusage: /)
})
