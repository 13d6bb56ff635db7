// The hosts that other tests build on: they are connected, and they go away, whatever happens to the process that made them.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import process from 'node:process'
import { expect, it } from 'vitest'
import { createNetwork, removeStaleNetworks, twoHosts } from '../support/hosts.ts'

it('joins two hosts over IPv4 and IPv6, at once', async () => {
  await using hosts = await twoHosts()
  for (const address of [hosts.b.address4, hosts.b.address6]) {
    expect(await hosts.a.exec('ping', ['-c', '1', '-W', '2', address])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining(' 0% packet loss'),
    })
  }
})

it('gives a link the MTU that is asked for and switches offloads off', async () => {
  await using hosts = await twoHosts({ mtu: 1280, offloads: { tx: false, gro: false } })
  for (const host of [hosts.a, hosts.b]) {
    expect(await host.output('ip', ['link', 'show', host.iface])).toContain('mtu 1280')
    const features = await host.output('ethtool', ['-k', host.iface])
    expect(features).toContain('tx-checksumming: off')
    expect(features).toContain('generic-receive-offload: off')
    expect(features).toMatch(/rx-checksumming: on/)
  }
})

it('adds addresses that the other end reaches', async () => {
  await using hosts = await twoHosts()
  await hosts.b.addAddress('10.77.0.3/24')
  await hosts.b.addAddress('fd00:77::3/64')
  for (const address of ['10.77.0.3', 'fd00:77::3']) {
    expect((await hosts.a.exec('ping', ['-c', '1', '-W', '2', address])).code).toBe(0)
  }
})

it('builds a line of three hosts, and the middle one routes', async () => {
  await using network = await createNetwork()
  const [client, router, server] = [await network.addHost('client'), await network.addHost('router'), await network.addHost('server')]
  const [, near] = await network.link(client, router)
  const [far] = await network.link(router, server)
  await router.output('sysctl', ['-w', 'net.ipv4.ip_forward=1'])
  await client.output('ip', ['route', 'add', 'default', 'via', near.address4])
  await server.output('ip', ['route', 'add', 'default', 'via', far.address4])
  expect((await client.exec('ping', ['-c', '1', '-W', '2', server.address4])).code).toBe(0)
})

it('reports how a command in a host ended', async () => {
  await using hosts = await twoHosts()
  expect(await hosts.a.exec('sh', ['-c', 'cat; echo wrong >&2; exit 3'], 'input')).toEqual({ stdout: 'input', stderr: 'wrong\n', code: 3 })
  await expect(hosts.a.output('false')).rejects.toThrow('false')
})

it('removes the namespaces and every process in them', async () => {
  const hosts = await twoHosts()
  const { netns } = hosts.a
  const child = hosts.a.spawn('sleep', ['600'])
  const orphan = Number(await hosts.a.output('sh', ['-c', 'sleep 600 >/dev/null 2>&1 & echo $!']))
  await hosts[Symbol.asyncDispose]()
  expect(existsSync(`/run/netns/${netns}`)).toBe(false)
  expect(child.signalCode).toBe('SIGKILL')
  await expect.poll(() => isRunning(orphan)).toBe(false)
})

it('removes what a killed process has left, when the next one starts', async () => {
  const { pid, netns, end } = await makeHostsElsewhere()
  removeStaleNetworks()
  expect(existsSync(`/run/netns/${netns}`)).toBe(true)
  await end('SIGKILL')
  expect(existsSync(`/proc/${pid}`)).toBe(false)
  expect(existsSync(`/run/netns/${netns}`)).toBe(true)
  removeStaleNetworks()
  expect(readdirSync('/run/netns').filter((name) => name.includes(`-${pid}-`))).toEqual([])
})

it.each(['SIGTERM', 'SIGINT'] as const)('removes its hosts when %s ends the process', async (signal) => {
  const { pid, end } = await makeHostsElsewhere()
  await end(signal)
  expect(readdirSync('/run/netns').filter((name) => name.includes(`-${pid}-`))).toEqual([])
})

/** Another process makes two hosts and waits. */
async function makeHostsElsewhere() {
  const source = `
    import { twoHosts } from './test/support/hosts.ts'
    const hosts = await twoHosts()
    console.log(hosts.a.netns)
    setInterval(() => {}, 1000)
  `
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', source], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exit = once(child, 'exit')
  const [line] = await Promise.race([once(child.stdout, 'data'), exit.then(() => Promise.reject(new Error('It made no hosts')))])
  const netns = String(line).trim()
  return {
    pid: child.pid,
    netns,
    end: async (signal: NodeJS.Signals) => {
      child.kill(signal)
      await exit
    },
  }
}

/** A zombie, which nobody reaps in some containers, does not run. */
function isRunning(pid: number): boolean {
  return existsSync(`/proc/${pid}/exe`)
}
