// The echo examples: every message answered, loss told, errors clear.
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Host, twoHosts } from '../support/hosts.ts'
import { dropArriving, type Running, runExample, startExample } from './commands.ts'

let hosts: Awaited<ReturnType<typeof twoHosts>>
let a: Host
let b: Host
let server: Running

beforeAll(async () => {
  hosts = await twoHosts()
  a = hosts.a
  b = hosts.b
  server = await startExample(b, 'echo-server.ts', '[::]:9191')
})

afterAll(() => hosts.network.remove())

const RTT = /^RTT {2}p50 [\d.]+ µs {2}p90 [\d.]+ µs {2}p99 [\d.]+ µs {2}max [\d.]+ µs$/m

it('sends messages one at a time unless told otherwise, over IPv4 and IPv6', async () => {
  for (const address of [`${b.address4}:9191`, `[${b.address6}]:9191`]) {
    const { code, stdout, stderr } = await runExample(a, 'echo-client.ts', address)
    expect(stderr).toBe('')
    expect(code).toBe(0)
    expect(stdout).toContain(`Connected to ${address}; sending 1000 messages of 64 bytes, 1 at a time`)
    expect(stdout).toContain('Sent 1000, answered 1000, lost 0 (0.00 %), answered twice or too late 0')
    expect(stdout).toMatch(RTT)
    expect(stdout).toMatch(/^Rate \d+ messages\/s, [\d.]+ Mbit\/s each way/m)
  }
  await server.says(/^\[fd00:77::1\]:\d+ closed: 1000 messages in, 1000 out, 0 dropped$/m)
  expect(server.output).toMatch(/^10\.77\.0\.1:\d+ connected$/m)
})

it('keeps a window of messages under way', async () => {
  const { code, stdout } = await runExample(
    a,
    'echo-client.ts',
    `${b.address4}:9191`,
    '--count',
    '20000',
    '--size',
    '1400',
    '--window',
    '64',
  )
  expect(code).toBe(0)
  expect(stdout).toContain('Sent 20000, answered 20000, lost 0')
})

it('sends at a rate, and tells programs in JSON', async () => {
  const args = ['--count', '500', '--rate', '1000', '--timeout', '3000', '--json']
  const { code, stdout } = await runExample(a, 'echo-client.ts', `${b.address4}:9191`, ...args)
  expect(code).toBe(0)
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const { result } = lines.pop()
  expect(result).toMatchObject({ size: 64, sent: 500, answered: 500, lost: 0, stray: 0 })
  expect(result.rttUs.p50).toBeGreaterThan(0)
  // 500 messages at 1000 a second take half a second, however busy the machine is.
  expect(result.seconds).toBeGreaterThan(0.45)
  expect(lines.length).toBeGreaterThan(2)
  expect(lines[0].progress).toMatchObject({ count: 500 })
})

it('counts messages without an answer as lost', async () => {
  await dropArriving(b.interfaces[0], 'tcp dport 9292 meta length >= 1000 numgen inc mod 2 == 0')
  const lossy = await startExample(b, 'echo-server.ts', `${b.address4}:9292`)
  const args = ['--count', '20', '--size', '1200', '--window', '20', '--timeout', '300']
  const { code, stdout } = await runExample(a, 'echo-client.ts', `${b.address4}:9292`, ...args)
  expect(code).toBe(0)
  expect(stdout).toContain('Sent 20, answered 10, lost 10 (50.00 %)')
  expect(await lossy.interrupt()).toBe(0)
})

it('explains wrong arguments', async () => {
  const address = `${b.address4}:9191`
  const cases: [string[], string][] = [
    [[], 'Expected the address of one echo server'],
    [[b.address4], "Expected an address such as '192.0.2.1:9191'"],
    [[address, '--size', 'big'], "--size must be an integer of at least 4; got 'big'"],
    [[address, '--window', '2', '--rate', '3'], '--window and --rate exclude each other'],
    [[address, '--loud'], "Unknown option '--loud'"],
    [[address, '--size', '1500'], '--size 1500 is too large: at most 1448 bytes fit one message on this path'],
  ]
  const outputs = await Promise.all(cases.map(([args]) => runExample(a, 'echo-client.ts', ...args)))
  for (const [i, { code, stderr }] of outputs.entries()) {
    const [, message] = cases[i]
    expect(stderr).toContain(message)
    expect(stderr).toContain('usage: npx tsx examples/echo-client.ts <address> [options]')
    expect(code).toBe(2)
  }
})

it('fails with one clear line', async () => {
  const refused = await runExample(a, 'echo-client.ts', `${b.address4}:9999`)
  expect(refused).toEqual({ code: 1, stdout: '', stderr: `connect ECONNREFUSED ${b.address4}:9999\n` })
  const used = await runExample(b, 'echo-server.ts', '[::]:9191')
  expect(used).toEqual({ code: 1, stdout: '', stderr: 'bind EADDRINUSE :::9191\n' })
})

it('ends by Ctrl-C', async () => {
  expect(await server.interrupt()).toBe(0)
})
