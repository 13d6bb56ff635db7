// The leak check sees what is left, and only that.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { descriptors, holdings, left } from '../support/leaks.ts'

it('names sockets, rules and processes that came, and nothing once they are gone', async () => {
  await using hosts = await twoHosts()
  const before = await holdings(hosts.a)
  const agent = await hosts.a.agent()
  await agent.run(async (ctx) => {
    const net = await import('node:net')
    ctx.state.server = net.createServer()
    await new Promise<void>((resolve) => ctx.state.server.listen(7000, '127.0.0.1', resolve))
  })
  await hosts.a.output('nft', ['add table inet left'])
  const raw = hosts.a.spawn('ping', ['-i', '60', hosts.b.address4])
  await expect.poll(async () => left(before, await holdings(hosts.a)).raw).toContainEqual(expect.stringContaining('"ping"'))

  const during = left(before, await holdings(hosts.a))
  expect(during.tcp).toEqual([expect.stringContaining('LISTEN 127.0.0.1:7000')])
  expect(during.firewall).toEqual(['table inet left {', '}'])
  expect(during.processes).toEqual(expect.arrayContaining([`${agent.pid} node`, `${raw.pid} ping`]))

  await hosts.a.output('nft', ['delete table inet left'])
  raw.kill('SIGKILL')
  await agent.close()
  await expect.poll(async () => left(before, await holdings(hosts.a))).toEqual({})
})

it('lists the descriptors of a process', async () => {
  await using hosts = await twoHosts()
  const agent = await hosts.a.agent()
  const before = await descriptors(agent.pid)
  await agent.run(async (ctx) => {
    const fs = await import('node:fs')
    ctx.state.fd = fs.openSync('/dev/full', 'r')
  })
  expect(await descriptors(agent.pid)).toEqual([...before, '/dev/full'].sort())
})
