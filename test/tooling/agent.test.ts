// Agents: functions of the test that run in a process inside a host.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'

it('runs a function in the namespace of its host and returns a structured clone', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  const result = await agent.run(
    async (ctx, { from }) => {
      const os = await import('node:os')
      const net = await ctx.import<typeof import('node:net')>('node:net')
      const addresses = Object.values(os.networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address))
      return { pid: process.pid, reached: addresses.includes(from), bytes: new Uint8Array([1, 2]), isIP: net.isIP(from) }
    },
    { from: hosts.a.address4 },
  )
  expect(result).toEqual({ pid: agent.pid, reached: true, bytes: new Uint8Array([1, 2]), isIP: 4 })
})

it('keeps state between runs', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  await agent.run((ctx) => {
    ctx.state.count = 1
  })
  expect(await agent.run((ctx, add) => ctx.state.count + add, 2)).toBe(3)
})

it('brings errors back with their codes and cause', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  const failure = agent.run(async () => {
    const net = await import('node:net')
    const cause = await new Promise((resolve) => net.connect(9, '127.0.0.1').once('error', resolve))
    throw Object.assign(new RangeError('outer', { cause }), { code: 'ERR_OUTER' })
  })
  await expect(failure).rejects.toMatchObject({
    name: 'RangeError',
    message: 'outer',
    code: 'ERR_OUTER',
    cause: { code: 'ECONNREFUSED', syscall: 'connect', address: '127.0.0.1', port: 9, errno: expect.any(Number) },
  })
})

it('hands emitted values to the test in order, early or late', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  const late = agent.next('tick')
  await agent.run((ctx) => {
    for (let i = 0; i < 3; i++) ctx.emit('tick', i)
  })
  expect([await late, await agent.next('tick'), await agent.next('tick')]).toEqual([0, 1, 2])
  await expect(agent.next('tick', { timeoutMs: 20 })).rejects.toThrow("emitted no 'tick' within 20 ms")
})

it('tells how it ended, and fails what was pending', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  const pending = expect(agent.run(() => new Promise<void>(() => {}))).rejects.toThrow('The agent ended (SIGKILL)')
  const waiting = expect(agent.next('never')).rejects.toThrow('The agent ended (SIGKILL)')
  expect(await agent.kill('SIGKILL')).toEqual({ code: null, signal: 'SIGKILL' })
  await Promise.all([pending, waiting])
  await expect(agent.run(() => 1)).rejects.toThrow('The agent ended')
})

it('fails the pending run when an error in the agent is caught by nobody', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  const run = agent.run(() => {
    setImmediate(() => {
      throw new TypeError('nobody caught this')
    })
    return new Promise<void>(() => {})
  })
  await expect(run).rejects.toMatchObject({ name: 'TypeError', message: 'nobody caught this' })
})

it('keeps an error that strikes between runs, and throws it at the end unless the test took it', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  await agent.run((ctx) => {
    setTimeout(() => {
      ctx.emit('about to fail')
      Promise.reject(new Error('stray'))
    }, 20)
  })
  await agent.next('about to fail')
  await expect(agent.close()).rejects.toThrow('stray')
  await agent.close()
})

it('holds no capability when told so', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent({ capabilities: 'none' })
  const effective = await agent.run(async () => {
    const fs = await import('node:fs')
    return /CapEff:\s*(\w+)/.exec(fs.readFileSync('/proc/self/status', 'utf8'))?.[1]
  })
  expect(Number(`0x${effective}`)).toBe(0)
})

it('refuses a function that uses an import of its file', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  await expect(agent.run(() => expect.anything())).rejects.toThrow("must not use its file's imports")
})

it('says why it could not start', async () => {
  await using hosts = await twoHosts()
  await expect(hosts.a.agent({ nodeArgs: ['--no-such-option'] })).rejects.toThrow('bad option: --no-such-option')
})
