// The ttl guard when something is wrong with its tools, its rules or its rights: what is said, what still works, and that nothing is left behind.
import { readFileSync, readlinkSync } from 'node:fs'
import { delimiter } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, it } from 'vitest'
import type { Agent } from '../support/agent.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { echo } from './echo-job.ts'
import { guardRules, haveSocketsReset, programs } from './firewall.ts'
import { expectExit, expectNothingLeft, held } from './leftovers.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const SOON = { timeout: 8000, interval: 50 }
const guard = 'ttl'
const options = { port: PORT, guard } as const

/** An echo server on `b`, whose tools are in order. */
async function scene() {
  const hosts = await twoHosts()
  const server = await Peer.on(hosts.b)
  await server.listen({ ...options, host: '::', echo: true })
  return { ...hosts, server, target: { ...options, host: hosts.b.address4 } }
}

/** A peer that finds these programs before all others. */
function peerWith(host: Host, path: string): Promise<Peer> {
  return Peer.on(host, { env: { PATH: [path, process.env.PATH, '/usr/sbin', '/sbin'].join(delimiter) } })
}

async function expectEcho(peer: Peer, id: number): Promise<void> {
  expect(await echo(peer, { id, messages: 100, seed: 1 })).toMatchObject({ intact: 100, foreign: 0, lost: 0 })
}

it('no firewall tool: dial and listen fail, and say what they looked for and where', async () => {
  await using hosts = await scene()
  await using empty = await programs({})
  const peer = await Peer.on(hosts.a)
  // The agent has a mount namespace of its own (ip-netns(8)), so this hides the tools from it alone.
  await peer.agent.run(async (ctx, empty) => {
    const { execFileSync } = await ctx.import<typeof import('node:child_process')>('node:child_process')
    const { existsSync, realpathSync } = await ctx.import<typeof import('node:fs')>('node:fs')
    const tools = ['nft', 'iptables', 'ip6tables']
    const directories = [...(process.env.PATH ?? '').split(':'), '/usr/local/sbin', '/usr/sbin', '/sbin']
    const found = new Set(
      directories.filter((path) => tools.some((tool) => existsSync(`${path}/${tool}`))).map((path) => realpathSync(path)),
    )
    for (const path of found) execFileSync('mount', ['--bind', empty, path])
  }, empty.path)
  const before = await held(peer)
  for (const error of [await peer.dialError(hosts.target), await peer.listenError({ ...options, host: '::', port: 9192 })]) {
    expect(error.code).toBe('ERR_FAKETCP_GUARD')
    expect(error.message).toMatch(/nft -i: not found on the PATH, nor in .*\/usr\/sbin.* iptables -w -t mangle -S OUTPUT: not found/)
  }
  await expectNothingLeft(peer, before)
})

it('a firewall tool that fails: the error holds its words and its exit code', async () => {
  await using hosts = await scene()
  await using fake = await programs({
    nft: 'echo "Error: no netlink today" >&2; exit 3',
    iptables: 'echo "the lock is painted" >&2; exit 4',
  })
  const peer = await peerWith(hosts.a, fake.path)
  const before = await held(peer)
  const error = await peer.dialError(hosts.target)
  expect(error.code).toBe('ERR_FAKETCP_GUARD')
  expect(error.message).toContain('nft -i: exit code 3: Error: no netlink today')
  expect(error.message).toContain('iptables -w -t mangle -S OUTPUT: exit code 4: the lock is painted')
  await expectNothingLeft(peer, before)
})

it('a firewall tool that hangs: it is killed, and the error says so', async () => {
  await using hosts = await scene()
  await using fake = await programs({ nft: 'exec sleep 600', iptables: 'exec sleep 600' })
  const peer = await peerWith(hosts.a, fake.path)
  const before = await held(peer)
  const dials = (['nftables', 'iptables'] as const).map((firewall) => peer.dialError({ ...hosts.target, firewall }))
  const [nft, iptables] = await Promise.all(dials)
  expect([nft.code, iptables.code]).toEqual(['ERR_FAKETCP_GUARD', 'ERR_FAKETCP_GUARD'])
  expect([nft.message, iptables.message]).toEqual([
    expect.stringMatching(/nft -i: no answer within 5000 ms, it was killed$/),
    expect.stringMatching(/iptables -w -t mangle -S OUTPUT: no answer within 5000 ms, it was killed$/),
  ])
  await expectNothingLeft(peer, before)
})

it('a dial that is given up while the tool hangs rejects at once, and the tool ends all the same', async () => {
  await using hosts = await scene()
  await using fake = await programs({ nft: 'exec sleep 600' })
  const peer = await peerWith(hosts.a, fake.path)
  const before = await held(peer)
  const error = await peer.dialError({ ...hosts.target, firewall: 'nftables', connectTimeoutMs: 100 })
  expect(error.code).toBe('ETIMEDOUT')
  await expectNothingLeft(peer, before)
  await expectExit(peer)
})

it('a dial that is given up before its rule is there leaves no rule', async () => {
  await using hosts = await scene()
  await using slow = await programs({ nft: 'sleep 1; PATH=/usr/sbin:/sbin; exec nft "$@"' })
  const peer = await peerWith(hosts.a, slow.path)
  const before = await held(peer)
  const error = await peer.dialError({ ...hosts.target, firewall: 'nftables', connectTimeoutMs: 100 })
  expect(error.code).toBe('ETIMEDOUT')
  await expectNothingLeft(peer, before)
  expect(await guardRules(hosts.a, 'nftables')).toEqual([])
})

it('where nft does not work iptables takes its place', async () => {
  await using hosts = await scene()
  await using fake = await programs({ nft: 'exit 1' })
  const peer = await peerWith(hosts.a, fake.path)
  const { id } = await peer.dial(hosts.target)
  await expectEcho(peer, id)
  expect((await peer.stats(id)).guard).toBe('ttl')
  expect((await guardRules(hosts.a, 'iptables')).map(({ family }) => family)).toEqual([4, 6])
  // Further dials do not try nft again: its failure would be told.
  await peer.dial(hosts.target)
  expect(await guardRules(hosts.a, 'iptables')).toHaveLength(2)
})

it('ip6tables fails when iptables has done its part: no rule is left', async () => {
  await using hosts = await scene()
  await using fake = await programs({ ip6tables: 'echo "no IPv6 for you" >&2; exit 1' })
  const peer = await peerWith(hosts.a, fake.path)
  const error = await peer.dialError({ ...hosts.target, firewall: 'iptables' })
  expect(error.message).toContain('no IPv6 for you')
  expect(await guardRules(hosts.a, 'iptables')).toEqual([])
})

it('iptables over the older kernel interface: the rule of a killed process is removed by the next start', async () => {
  await using hosts = await scene()
  const { a, target } = hosts
  const tools = ['iptables', 'ip6tables']
  await using legacy = await programs(Object.fromEntries(tools.map((tool) => [tool, `exec ${tool}-legacy "$@"`])))
  const rules = async () =>
    (await Promise.all(tools.map((tool) => a.output(`${tool}-legacy-save`, ['-t', 'mangle'])))).flatMap(
      (text) => text.match(/faketcp-[\d-]+/g) ?? [],
    )
  const [first, second] = [await peerWith(a, legacy.path), await peerWith(a, legacy.path)]
  await first.dial({ ...target, firewall: 'iptables' })
  const stale = await rules()
  expect(stale).toHaveLength(2)
  await first.agent.kill('SIGKILL')
  expect(await rules()).toEqual(stale)
  const { id } = await second.dial({ ...target, firewall: 'iptables' })
  await expectEcho(second, id)
  expect(await rules()).toHaveLength(2)
  expect(await rules()).not.toContain(stale[0])
  await second.close(id)
  await expect.poll(rules, SOON).toEqual([])
})

it('a start removes the rules of threads that are gone, and no others', async () => {
  await using hosts = await scene()
  const { a, target } = hosts
  const namespace = readlinkSync('/proc/self/ns/pid').replace(/\D/g, '')
  const alive = `${process.pid}-${process.pid}`
  const start = readFileSync('/proc/self/stat', 'latin1')
    .replace(/^.*\) /, '')
    .split(' ')[19]
  const gone = [
    `faketcp-${namespace}-4194305-4194305-1`,
    `faketcp-${namespace}-${alive}-1`,
    `faketcp-${namespace}-${process.pid}-4194305-${start}`,
  ]
  const kept = [`faketcp-${namespace}-${alive}-${start}`, 'faketcp-1-4194305-4194305-1']
  for (const owner of [...gone, ...kept]) {
    const match = [
      '-p',
      'tcp',
      '-m',
      'mark',
      '--mark',
      '0x66746370',
      '-m',
      'ttl',
      '--ttl-eq',
      '1',
      '-m',
      'comment',
      '--comment',
      owner,
      '-j',
      'DROP',
    ]
    await a.output('iptables', ['-w', '-t', 'mangle', '-A', 'OUTPUT', ...match])
  }
  const owners = async () => (await guardRules(a, 'iptables')).filter(({ family }) => family === 4).map(({ owner }) => owner)
  expect(await owners()).toHaveLength(5)
  const peer = await Peer.on(a)
  await peer.dial({ ...target, firewall: 'iptables' })
  const left = await owners()
  expect(left).toEqual([expect.any(String), ...kept])
  expect(gone).not.toContain(left[0])
})

it('somebody kills nft: the flow lives, and the rule comes back', async () => {
  await using hosts = await scene()
  const { a, target } = hosts
  const peer = await Peer.on(a)
  const { id } = await peer.dial({ ...target, firewall: 'nftables' })
  // One that is gone within a second waits for the next dial.
  await delay(1100)
  const [{ owner }] = await guardRules(a, 'nftables')
  await endNft(peer.agent)
  await expect
    .poll(async () => (await guardRules(a, 'nftables')).map((rule) => rule.owner), SOON)
    .toEqual([expect.not.stringContaining(owner), expect.not.stringContaining(owner)])
  await expectEcho(peer, id)
  await haveSocketsReset(a, PORT)
  await expect.poll(async () => (await guardRules(a, 'nftables'))[0].dropped, SOON).toBe(1)
})

it('somebody kills nft right after it came: the next dial makes the rule again', async () => {
  await using hosts = await scene()
  const { a, target } = hosts
  const peer = await Peer.on(a)
  const first = await peer.dial({ ...target, firewall: 'nftables' })
  await endNft(peer.agent)
  await expect.poll(() => guardRules(a, 'nftables'), SOON).toEqual([])
  await expectEcho(peer, first.id)
  const second = await peer.dial({ ...target, firewall: 'nftables' })
  expect(await guardRules(a, 'nftables')).toHaveLength(2)
  expect((await peer.stats(second.id)).guard).toBe('ttl')
})

/** Kills the nft that this agent has started. */
async function endNft(agent: Agent): Promise<void> {
  const children = readFileSync(`/proc/${agent.pid}/task/${agent.pid}/children`, 'latin1').trim().split(' ').map(Number)
  const [nft] = children.filter((pid) => readFileSync(`/proc/${pid}/comm`, 'latin1').trim() === 'nft')
  process.kill(nft, 'SIGKILL')
}

it('without CAP_NET_ADMIN both verbs are refused with a hint', async () => {
  await using hosts = await scene()
  const peer = await Peer.on(hosts.a, { capabilities: 'net_raw' })
  for (const error of [await peer.dialError(hosts.target), await peer.listenError({ ...options, host: '::' })]) {
    expect(error.code).toBe('EPERM')
    expect(error.message).toContain('CAP_NET_ADMIN')
  }
})

it('a listener that has given up its rights refuses connections and says why; its rule still goes with it', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const [server, client] = [await b.agent(), await Peer.on(a)]
  await server.run(async (ctx, options) => {
    const listener = await ctx.faketcp.listen({ ...options, host: '::', firewall: 'nftables' })
    ctx.state.listener = listener
    listener.on('drop', ({ reason }) => ctx.emit('refused', reason))
    listener.on('error', (error) => ctx.emit('error', { code: (error as NodeJS.ErrnoException).code, message: error.message }))
    process.setuid?.(65534)
  }, options)
  await client.dialRefused({ port: PORT, host: b.address4 })
  expect(await server.next('refused')).toBe('guard')
  expect(await server.next('error')).toEqual({ code: 'EPERM', message: expect.stringContaining('CAP_NET_ADMIN') })
  await server.run((ctx) => ctx.state.listener.close())
  await expect.poll(() => guardRules(b, 'nftables'), SOON).toEqual([])
})

it('worker.terminate() with an open flow: the other side learns of it, and the rule goes', async () => {
  await using hosts = await scene()
  const { a, server, target } = hosts
  const peer = await Peer.on(a)
  await peer.agent.run(
    async (ctx, { library, target }) => {
      const { Worker } = await ctx.import<typeof import('node:worker_threads')>('node:worker_threads')
      const source = `
        import { parentPort, workerData } from 'node:worker_threads'
        const { dial } = await import(workerData.library)
        globalThis.conn = await dial(workerData.target)
        parentPort.postMessage(conn.stats.guard)`
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), { workerData: { library, target } })
      ctx.state.worker = worker
      ctx.state.guard = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    },
    { library: new URL('../../dist/index.js', import.meta.url).href, target: { ...target, firewall: 'nftables' } },
  )
  expect(await peer.agent.run((ctx) => ctx.state.guard)).toBe('ttl')
  expect(await guardRules(a, 'nftables')).toHaveLength(2)
  await peer.agent.run((ctx) => ctx.state.worker.terminate())
  expect(await server.next('closed')).toEqual({ id: 0, code: 'ECONNRESET' })
  await expect.poll(() => guardRules(a, 'nftables'), SOON).toEqual([])
  // Not as a zombie either.
  expect((await a.exec('ps', ['--no-headers', '-o', 'stat,comm', '--ppid', String(peer.pid)])).stdout).toBe('')
})

it.each(['nftables', 'iptables'] as const)("this host's connection tracking learns that a connection has ended (%s)", async (firewall) => {
  await using hosts = await scene()
  const { a, target } = hosts
  await a.output('nft', ['-f', '-'], 'table inet track { chain output { type filter hook output priority 0; ct state invalid counter; }; }')
  const [closing, killed] = [await Peer.on(a), await Peer.on(a)]
  const { id } = await closing.dial({ ...target, firewall })
  await killed.dial({ ...target, firewall })
  const established = async () =>
    (await a.output('conntrack', ['-L', '-p', 'tcp', '--state', 'ESTABLISHED'])).split('\n').filter(Boolean).length
  expect(await established()).toBe(2)
  await closing.close(id)
  await killed.agent.kill('SIGKILL')
  await expect.poll(established, SOON).toBe(0)
})
