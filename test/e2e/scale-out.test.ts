// Past one machine: a router that spreads connections over two servers with the rules of docs/scaling.md, and what becomes of the connections when a server is
// drained, dies, or vanishes.
//
//            10.77.0.0/24             10.77.1.0/24
//   client .1 ------- .2  router  .1 ------------- .2  server1
//                                 .1 ------------- .2  server2
//                                     10.77.2.0/24
import { readFileSync } from 'node:fs'
import { afterEach, expect, it } from 'vitest'
import { createNetwork, type Host, type Network } from '../support/hosts.ts'
import { type Account, Client, Server } from './fleet.ts'

const FLOWS = 500
const DOCUMENT = readFileSync(new URL('../../docs/scaling.md', import.meta.url), 'utf8')
/** While hundreds of connections work on two processors. */
const EVENTUALLY = { timeout: 20_000, interval: 200 }
/** 5 s of patience, and 50 to 150 resets a second. */
const SLOWLY = { timeout: 40_000, interval: 200 }

/** A block of docs/scaling.md. */
function documented(name: string): string {
  const block = DOCUMENT.split(`<!-- The tests run this: ${name} -->`)[1]?.match(/^\n```\w+\n(.*?)```/s)?.[1]
  if (block === undefined) throw new Error(`docs/scaling.md has no block '${name}'`)
  return block
}

const RULES = documented('balance.nft')
const DRAINED = RULES.replace('1 : $server2 ', '1 : $server1 ').replace('1 : $server2v6 ', '1 : $server1v6 ')

/** Runs a block in a host; what its last command ended with. */
async function run(host: Host, name: string): Promise<number | null> {
  return (await host.exec('sh', ['-c', documented(name)])).code
}

interface Fleet {
  readonly client: Client
  readonly router: Host
  readonly servers: readonly [Server, Server]
  readonly service: string
  readonly localAddresses: string[]
}

let network: Network
afterEach(() => network.remove())

async function fleet(family: 4 | 6): Promise<Fleet> {
  network = await createNetwork()
  const [outside, router] = [await network.addHost('client'), await network.addHost('router')]
  const [near, far] = await network.link(outside, router)
  const address = (of: { address4: string; address6: string }) => (family === 4 ? of.address4 : of.address6)
  const another = family === 4 ? '10.77.0.3' : 'fd00:77::3'
  await outside.addAddress(`${another}/${family === 4 ? 24 : 64}`)
  expect(await run(router, 'router')).toBe(0)
  await load(router, RULES)
  const servers: Server[] = []
  for (const name of ['server1', 'server2']) {
    const host = await network.addHost(name)
    const [gateway] = await network.link(router, host)
    await host.output('ip', ['route', 'add', 'default', 'via', gateway.address4])
    await host.output('ip', ['route', 'add', 'default', 'via', gateway.address6])
    servers.push(await Server.on(host, name))
  }
  for (const via of [far.address4, far.address6]) await outside.output('ip', ['route', 'add', 'default', 'via', via])
  const client = await Client.on(outside)
  const localAddresses = [address(near), another]
  return { client, router, servers: servers as [Server, Server], service: address(far), localAddresses }
}

async function load(router: Host, rules: string): Promise<void> {
  await router.output('nft', ['-f', '-'], rules)
}

const on = (accounts: readonly Account[], server: string) => accounts.filter(({ servers }) => servers.includes(server))
/** Fewest answers that any of them got. */
const fewest = (accounts: readonly Account[]) => Math.min(...accounts.map(({ echoed }) => echoed))
const whole = { wrong: 0, ends: [] }

/** Every message of theirs was counted by one server and came back once. */
async function expectNothingLost(client: Client, which: (accounts: Account[]) => Account[]): Promise<void> {
  const missing = async () => which(await client.accounts()).reduce((sum, { sent, echoed }) => sum + sent - echoed, 0)
  await expect.poll(missing, EVENTUALLY).toBe(0)
  for (const one of which(await client.accounts()))
    expect(one).toMatchObject({ ...whole, counted: one.sent, servers: [expect.any(String)] })
}

/** 500 connections, each at work on one server, and both servers with a fair part of them. */
async function spread({ client, service, localAddresses }: Fleet): Promise<Account[]> {
  await client.dial({ host: service, localAddresses, count: FLOWS })
  await expect.poll(async () => fewest(await client.accounts()), EVENTUALLY).toBeGreaterThanOrEqual(5)
  const accounts = await client.accounts()
  for (const one of accounts) expect(one).toMatchObject({ ...whole, servers: [expect.any(String)] })
  // Binomial: fewer than 150 of 500 on one of two has a probability of 10^-19.
  for (const server of ['server1', 'server2']) expect(on(accounts, server).length).toBeGreaterThan(150)
  return accounts
}

it.each([4, 6] as const)(
  '500 connections over IPv%i: a server that is drained keeps its own, its death ends them at once and no other, and they are dialled anew',
  { timeout: 60_000 },
  async (family) => {
    const all = await fleet(family)
    const { client, router, servers, service } = all
    const begun = await spread(all)
    const ofSecond = on(begun, 'server2').length

    await load(router, DRAINED)
    await client.dial({ host: service, count: 50 })
    const sofar = fewest(await client.accounts())
    await expect.poll(async () => fewest(await client.accounts()), EVENTUALLY).toBeGreaterThanOrEqual(sofar + 5)
    const drained = await client.accounts()
    expect(drained.slice(0, FLOWS).map(({ servers }) => servers)).toEqual(begun.map(({ servers }) => servers))
    expect(on(drained.slice(FLOWS), 'server1')).toHaveLength(50)
    expect(drained.flatMap(({ ends }) => ends)).toEqual([])

    expect(await run(router, 'check')).toBe(0)
    await servers[1].agent.kill('SIGKILL')
    expect(await run(router, 'check')).not.toBe(0)
    await expect.poll(async () => on((await client.accounts()).slice(FLOWS + 50), 'server1').length, EVENTUALLY).toBe(ofSecond)
    await client.stop()
    const after = await client.accounts()
    expect(on(after, 'server2').map(({ ends }) => ends)).toEqual(Array(ofSecond).fill(['ECONNRESET']))
    expect(after).toHaveLength(FLOWS + 50 + ofSecond)
    await expectNothingLost(client, (accounts) => on(accounts, 'server1'))
    expect(await servers[0].stats()).toEqual({ accepted: FLOWS + 50, orphans: 0 })
  },
)

it.each([4, 6] as const)(
  'a server that vanishes without a word (IPv%i): once its connections are sent elsewhere they are reset and dialled anew, the others go on',
  { timeout: 90_000 },
  async (family) => {
    const all = await fleet(family)
    const { client, router } = all
    const begun = await spread(all)
    const ofSecond = on(begun, 'server2').length

    await router.output('ip', ['link', 'set', 'eth2', 'down'])
    await load(router, DRAINED)
    await run(router, 'forget') // ends with 1 where there is nothing to forget
    await expect.poll(async () => on((await client.accounts()).slice(FLOWS), 'server1').length, SLOWLY).toBe(ofSecond)
    await client.stop()
    const after = await client.accounts()
    expect(on(after, 'server2').map(({ ends }) => ends)).toEqual(Array(ofSecond).fill(['ECONNRESET']))
    await expectNothingLost(client, (accounts) => on(accounts, 'server1'))
  },
)

it('a router that has forgotten every connection sends each on to the server that it had', { timeout: 60_000 }, async () => {
  const all = await fleet(4)
  const { client, router } = all
  const begun = await spread(all)
  await router.output('conntrack', ['-F'])
  const sofar = fewest(await client.accounts())
  await expect.poll(async () => fewest(await client.accounts()), EVENTUALLY).toBeGreaterThanOrEqual(sofar + 10)
  const after = await client.accounts()
  expect(after.map(({ servers, ends }) => ({ servers, ends }))).toEqual(begun.map(({ servers }) => ({ servers, ends: [] })))
})

it('ECMP by the hash of addresses and ports: when a route goes, its connections are dialled anew, the others go on', {
  timeout: 60_000,
}, async () => {
  const all = await fleet(4)
  const { client, router, servers } = all
  for (const { host } of servers) expect(await run(host, 'anycast')).toBe(0)
  expect(await run(router, 'ecmp')).toBe(0)
  const begun = await spread({ ...all, service: '10.99.0.1' })
  const ofSecond = on(begun, 'server2').length
  await router.output('ip', ['route', 'replace', '10.99.0.1/32', 'via', '10.77.1.2'])
  await expect.poll(async () => on((await client.accounts()).slice(FLOWS), 'server1').length, SLOWLY).toBe(ofSecond)
  await client.stop()
  expect(on(await client.accounts(), 'server2').map(({ ends }) => ends)).toEqual(Array(ofSecond).fill(['ECONNRESET']))
  await expectNothingLost(client, (accounts) => on(accounts, 'server1'))
})
