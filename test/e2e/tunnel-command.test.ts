// `faketcp tunnel` as an operator runs it: both ends by the built command, datagrams through, metrics, status, signals, and nothing left afterwards.
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { makeKey } from '../../bin/key.ts'
import { FAKETCP } from '../bin/command.ts'
import { Running } from '../examples/commands.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { UdpPeer } from './tunnel-ends.ts'

const SERVICE = 7000
const USERS = 7001
const METRICS = 9100
/** An ordinary user with one capability, as the systemd unit makes it. */
const AS_A_SERVICE = [
  'setpriv',
  '--reuid=65534',
  '--regid=65534',
  '--clear-groups',
  '--inh-caps=-all,+net_raw',
  '--ambient-caps=-all,+net_raw',
  '--bounding-set=-all,+net_raw',
]

let directory = ''
const file = (name: string) => join(directory, name)

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'faketcp-tunnel-'))
  await writeFile(file('tunnel.key'), makeKey(), { mode: 0o600 })
  await writeFile(
    file('server.toml'),
    `role = "server"\nlisten = "0.0.0.0:4000"\nto = "127.0.0.1:${SERVICE}"\nkey-file = "tunnel.key"\nverbose = true\n`,
  )
})

afterAll(() => rm(directory, { recursive: true }))

async function start(host: Host, args: readonly string[], before: readonly string[] = []): Promise<Running> {
  const [command, ...rest] = [...before, process.execPath, FAKETCP, 'tunnel', ...args]
  const running = new Running(host.spawn(command, rest, { stdio: ['ignore', 'pipe', 'pipe'] }))
  await running.says(/: listening on /)
  return running
}

async function scene() {
  const hosts = await twoHosts()
  const { a, b } = hosts
  const server = await start(b, ['--config', file('server.toml')])
  const to = `${b.address4}:4000`
  const client = await start(a, [
    'client',
    '--listen',
    `127.0.0.1:${USERS}`,
    '--to',
    to,
    '--key-file',
    file('tunnel.key'),
    '--metrics',
    `127.0.0.1:${METRICS}`,
  ])
  return { ...hosts, server, client }
}

/** Sends a datagram from a new port and awaits its echo. */
async function expectEcho(users: UdpPeer, text: string, port = USERS): Promise<void> {
  const { id } = await users.open()
  await users.send(id, port, text)
  expect(await users.next()).toMatchObject({ socket: id, text })
}

async function metric(host: Host, name: string): Promise<number> {
  const text = await host.output(process.execPath, [
    '-e',
    `fetch('http://127.0.0.1:${METRICS}/metrics').then((r) => r.text()).then(console.log)`,
  ])
  return Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')[1],
  )
}

it('carries datagrams, counts them for Prometheus, and ends by SIGTERM and SIGINT with nothing left', async () => {
  await using hosts = await scene()
  const { a, b, server, client } = hosts
  const services = await UdpPeer.on(b)
  const users = await UdpPeer.on(a)
  await services.echo(SERVICE)
  await expectEcho(users, 'first')
  await expectEcho(users, 'second')
  expect(await metric(a, 'faketcp_tunnel_datagrams_total{direction="out"}')).toBe(2)
  expect(await metric(a, 'faketcp_tunnel_bytes_total{direction="in"}')).toBe('firstsecond'.length)
  expect(await metric(a, 'faketcp_tunnel_conversations')).toBe(2)
  expect(await metric(a, 'faketcp_tunnel_flows{state="open"}')).toBe(2)
  await server.says(/^flow open: 10\.77\.0\.2:4000 - 10\.77\.0\.1:\d+$/m)

  expect(await client.stop('SIGTERM')).toBe(0)
  expect(client.output).toMatch(
    /^tunnel client 127\.0\.0\.1:7001 \(UDP\) -> 10\.77\.0\.2:4000 \(fake TCP\): listening on 127\.0\.0\.1:7001, encrypted\nending\n$/,
  )
  await server.says(/^flow closed: /m)
  expect(await server.interrupt()).toBe(0)
  for (const host of [a, b]) {
    const sockets = await host.output('ss', ['-Hnltu'])
    expect(sockets.split('\n').filter((line) => /:(4000|7001|9100)\b/.test(line))).toEqual([])
  }
})

it('works for an ordinary user with CAP_NET_RAW alone', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  const services = await UdpPeer.on(b)
  const users = await UdpPeer.on(a)
  await services.echo(SERVICE)
  const server = await start(b, ['server', '--listen', '0.0.0.0:4000', '--to', `127.0.0.1:${SERVICE}`], AS_A_SERVICE)
  const client = await start(a, ['client', '--listen', `127.0.0.1:${USERS}`, '--to', `${b.address4}:4000`, '--flows', '1'], AS_A_SERVICE)
  await expectEcho(users, 'through')
  expect(await client.stop('SIGTERM')).toBe(0)
  expect(await server.stop('SIGTERM')).toBe(0)
})

it('what a server has received before SIGTERM is still passed on', async () => {
  await using hosts = await scene()
  const { a, b, client } = hosts
  const services = await UdpPeer.on(b)
  const users = await UdpPeer.on(a)
  await services.open(SERVICE)
  const { id } = await users.open()
  const texts = Array.from({ length: 100 }, (_, i) => `number ${i}`)
  await users.send(id, USERS, 'opens the flow')
  await services.next()
  await users.send(id, USERS, ...texts)
  await expect.poll(() => metric(a, 'faketcp_tunnel_datagrams_total{direction="out"}')).toBe(101)
  expect(await client.stop('SIGTERM')).toBe(0)
  const received: string[] = []
  for (let i = 0; i < texts.length; i++) received.push((await services.next()).text)
  expect(received).toEqual(texts)
})

it('a second signal ends it at once while the peer does not answer', async () => {
  await using hosts = await scene()
  const { a, b, client, server } = hosts
  const services = await UdpPeer.on(b)
  const users = await UdpPeer.on(a)
  await services.echo(SERVICE)
  await expectEcho(users, 'there')
  process.kill(server.pid, 'SIGSTOP')
  try {
    process.kill(client.pid, 'SIGTERM')
    await client.says(/^ending$/m)
    // Signals that follow each other closely are one.
    const ended = client.ended()
    const timer = setInterval(() => process.kill(client.pid, 'SIGTERM'), 100)
    try {
      expect(await ended).toBe(143)
    } finally {
      clearInterval(timer)
    }
  } finally {
    process.kill(server.pid, 'SIGCONT')
  }
})

it('--grace-ms says how long the end waits for a peer that does not answer', async () => {
  await using hosts = await scene()
  const { a, b, server } = hosts
  const to = `${b.address4}:4000`
  const withGrace = (port: number, ms: string) =>
    start(a, ['client', '--listen', `127.0.0.1:${port}`, '--to', to, '--key-file', file('tunnel.key'), '--grace-ms', ms])
  const patient = await withGrace(USERS + 1, '5000')
  const impatient = await withGrace(USERS + 2, '0')
  const services = await UdpPeer.on(b)
  const users = await UdpPeer.on(a)
  await services.echo(SERVICE)
  await expectEcho(users, 'there', USERS + 1)
  await expectEcho(users, 'there, too', USERS + 2)
  process.kill(server.pid, 'SIGSTOP')
  try {
    const patiently = patient.stop('SIGTERM').then(() => 'patient')
    await patient.says(/^ending$/m)
    const ends = [patiently, impatient.stop('SIGTERM').then(() => 'impatient')]
    expect(await Promise.race(ends)).toBe('impatient')
    await Promise.all(ends)
  } finally {
    process.kill(server.pid, 'SIGCONT')
  }
})

it('--status draws a page on a terminal, and warnings in it', async () => {
  await using hosts = await twoHosts()
  const { a } = hosts
  const command = [
    process.execPath,
    FAKETCP,
    'tunnel',
    'client',
    '--listen',
    `127.0.0.1:${USERS}`,
    '--to',
    `${hosts.b.address4}:4000`,
    '--flows',
    '1',
    '--status',
  ]
  // script(1) runs it on a terminal of its own.
  const child = a.spawn('script', ['-qec', `stty cols 120 rows 30; exec ${command.join(' ')}`, '/dev/null'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const running = new Running(child)
  await running.says(/tunnel client .* up 0:00:01/)
  await running.says(/conversations 0 now, 0 so far {3}flows 1 now/)
  await running.says(/warning: unreachable: /)
  const closed = once(child, 'close')
  for (const pid of await a.pids()) if (pid !== child.pid) process.kill(pid, 'SIGTERM')
  await closed
  expect(running.output).toContain('ending')
})
