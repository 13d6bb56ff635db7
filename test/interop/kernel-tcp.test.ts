// Dialect 'tcp': streams between our dial and servers that are ordinary TCP, as the kernel has it, on clean and on lossy ways.
import { expect, it } from 'vitest'
import { Peer } from '../e2e/peer.ts'
import { type Host, twoHosts } from '../support/hosts.ts'
import { counters, drop, dropped, exchange, routed, serve } from './kernel-tcp.ts'

const PORT = 9191
const MB = 1 << 20

/** What a kernel counts when it finds fault with a peer's segments: old timestamps, nothing of the window, resets and SYNs that do not fit. */
const FAULTS = ['TcpExtPAWSEstab', 'TcpExtTCPPAWSEstab', 'TcpExtTCPChallengeACK', 'TcpExtTCPSYNChallenge', 'TcpExtTCPRcvQDrop', 'TcpInErrs']

async function faults(host: Host): Promise<Record<string, number>> {
  const all = await counters(host)
  return Object.fromEntries(FAULTS.filter((name) => all[name] > 0).map((name) => [name, all[name]]))
}

it.each([
  { family: 4, link: 'packet' },
  { family: 4, link: 'raw' },
  { family: 6, link: 'packet' },
  { family: 6, link: 'raw' },
] as const)('IPv$family, $link link: an echo server gives back every byte of 10 MB once', async ({ family, link }) => {
  await using hosts = await twoHosts()
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await serve(await hosts.b.agent(), { host, port: PORT }, { is: 'echo' })
  const client = await Peer.on(hosts.a)
  const { id } = await client.dial({ host, port: PORT, dialect: 'tcp', link })
  const { sent, received } = await exchange(client, { id, bytes: 10 * MB })
  expect(received).toEqual(sent)
  expect(await client.stats(id)).toMatchObject({ dialect: 'tcp', link, setBacks: 0, droppedIn: 0 })
  expect(await faults(hosts.b)).toEqual({})
})

it.each([{ family: 4 }, { family: 6 }] as const)('IPv$family: the same when 1 % of the server’s segments are lost', async ({ family }) => {
  await using hosts = await routed()
  const host = family === 4 ? hosts.b.address4 : hosts.b.address6
  await drop(hosts.r, `tcp sport ${PORT} meta length > 100 numgen random mod 100 == 0`)
  await serve(await hosts.b.agent(), { host, port: PORT }, { is: 'echo' })
  const client = await Peer.on(hosts.a)
  const { id } = await client.dial({ host, port: PORT, dialect: 'tcp' })
  const { sent, received } = await exchange(client, { id, bytes: 10 * MB })
  expect(received).toEqual(sent)
  expect(await dropped(hosts.r)).toBeGreaterThan(10)
  const server = await counters(hosts.b)
  // By what our acknowledgements tell of the gaps, not by waiting for a timeout: of these there may be a few, for a repeat that was lost as well.
  expect(server.TcpExtTCPSackRecovery).toBeGreaterThan(server.TcpExtTCPTimeouts ?? 0)
  expect(await faults(hosts.b)).toEqual({})
})

it('a server sends 50 MB one way', async () => {
  await using hosts = await twoHosts()
  const server = await hosts.b.agent()
  await serve(server, { host: hosts.b.address4, port: PORT }, { is: 'source', bytes: 50 * MB })
  const client = await Peer.on(hosts.a)
  const { id } = await client.dial({ host: hosts.b.address4, port: PORT, dialect: 'tcp' })
  const { received } = await exchange(client, { id, bytes: 0 })
  expect(received).toEqual(await server.next('sent'))
})

it('a reader of ours that pauses loses nothing: the server is made to wait', async () => {
  await using hosts = await twoHosts()
  const server = await hosts.b.agent()
  await serve(server, { host: hosts.b.address4, port: PORT }, { is: 'source', bytes: 16 * MB })
  const client = await Peer.on(hosts.a)
  const { id } = await client.dial({ host: hosts.b.address4, port: PORT, dialect: 'tcp', allowHalfOpen: true })
  const { received } = await exchange(client, { id, bytes: 0, pauses: 4 })
  expect(received).toEqual(await server.next('sent'))
  expect(await client.stats(id)).toMatchObject({ droppedIn: 0 })
})

it.each([
  { size: 1448, bytes: 20 * MB, pauseMs: 6000, is: 'for longer than a stall takes' },
  { size: 10, bytes: 2 * MB, pauseMs: 1000, is: 'while its buffer fills with tiny messages' },
])('a server that does not read $is gets all of it in the end', async ({ size, bytes, pauseMs }) => {
  await using hosts = await twoHosts()
  const server = await hosts.b.agent()
  await serve(server, { host: hosts.b.address4, port: PORT }, { is: 'sink', pauseMs })
  const client = await Peer.on(hosts.a)
  const { id } = await client.dial({ host: hosts.b.address4, port: PORT, dialect: 'tcp' })
  const { sent } = await exchange(client, { id, bytes, size })
  expect(await server.next('received')).toEqual(sent)
})

it('a server with a receive buffer of one KiB is sent what fits', async () => {
  await using hosts = await twoHosts()
  await hosts.b.output('sysctl', ['-q', '-w', 'net.ipv4.tcp_rmem=1024 1024 1024'])
  const server = await hosts.b.agent()
  await serve(server, { host: hosts.b.address4, port: PORT }, { is: 'sink', pauseMs: 300 })
  const client = await Peer.on(hosts.a)
  const { id } = await client.dial({ host: hosts.b.address4, port: PORT, dialect: 'tcp' })
  const { sent } = await exchange(client, { id, bytes: MB / 16, size: 1448 })
  expect(await server.next('received')).toEqual(sent)
})
