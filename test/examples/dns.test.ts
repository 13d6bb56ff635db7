// The DNS examples: a protocol made for UDP, unchanged in messages over fake TCP.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Host, twoHosts } from '../support/hosts.ts'
import { dropArriving, type Running, runExample, startExample } from './commands.ts'

let hosts: Awaited<ReturnType<typeof twoHosts>>
let a: Host
let server: Running
let address: string

beforeAll(async () => {
  hosts = await twoHosts()
  a = hosts.a
  address = `${hosts.b.address4}:5353`
  server = await startExample(hosts.b, 'dns-server.ts', address)
})

afterAll(() => hosts.network.remove())

it('answers several queries at a time, each with its own records', async () => {
  const { code, stdout } = await runExample(a, 'dns-client.ts', address, 'example.test')
  expect(stdout.trim().split('\n')).toEqual([
    'example.test 300 A 192.0.2.1',
    'example.test 300 A 192.0.2.2',
    'example.test 300 AAAA 2001:db8::1',
    'example.test 60 TXT "carried by segments that look like TCP"',
  ])
  expect(code).toBe(0)
})

it('asks for one type, whatever the case of the name', async () => {
  expect(await runExample(a, 'dns-client.ts', address, 'Mail.Example.TEST', 'aaaa')).toEqual({
    code: 0,
    stdout: 'mail.example.test 300 AAAA 2001:db8::25\n',
    stderr: '',
  })
})

it('tells a name that does not exist from a type that it does not have', async () => {
  const nowhere = await runExample(a, 'dns-client.ts', address, 'nowhere.test', 'A')
  expect(nowhere.stdout).toBe('nowhere.test A: NXDOMAIN (there is no such name)\n')
  const without = await runExample(a, 'dns-client.ts', address, 'mail.example.test', 'TXT')
  expect(without.stdout).toBe('mail.example.test TXT: no record of this type\n')
})

it('repeats a query that was lost', async () => {
  // IP header, TCP header with timestamps, DNS header, name, type and class. The first of such size is dropped, further ones exceed the rate.
  const size = 20 + 32 + 12 + 'example.test'.length + 2 + 4
  await dropArriving(hosts.b.interfaces[0], `tcp dport 5353 meta length ${size} limit rate 1/minute burst 1 packets`)
  const { code, stdout } = await runExample(a, 'dns-client.ts', address, 'example.test', 'AAAA')
  expect({ code, stdout }).toEqual({ code: 0, stdout: 'example.test 300 AAAA 2001:db8::1\n' })
  expect(await hosts.b.output('nft', ['list', 'ruleset'])).toContain('counter packets 1 bytes')
})

it('gives up where nobody answers', async () => {
  const deaf = await startExample(hosts.b, 'several-addresses.ts', `${hosts.b.address4}:5454`)
  const { code, stderr } = await runExample(a, 'dns-client.ts', `${hosts.b.address4}:5454`, 'example.test', 'A')
  expect({ code, stderr }).toEqual({ code: 1, stderr: 'No answer to A example.test after 3 tries\n' })
  await deaf.interrupt()
})

it('explains wrong arguments', async () => {
  const cases = [[], [address], [address, 'example.test', 'MX']]
  for (const { code, stderr } of await Promise.all(cases.map((args) => runExample(a, 'dns-client.ts', ...args)))) {
    expect(code).toBe(2)
    expect(stderr).toContain('usage: npx tsx examples/dns-client.ts <address> <name> [A|AAAA|TXT]')
  }
  expect((await runExample(a, 'dns-server.ts')).code).toBe(2)
})

it('ends by Ctrl-C', async () => {
  expect(await server.interrupt()).toBe(0)
})
