// The addon's UDP socket between two hosts: paths that are too narrow for what is sent in one piece, full buffers, link-local addresses.
import { existsSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { addonPaths } from '../../lib/native/loader.ts'
import type { Agent } from '../support/agent.ts'
import { twoHosts } from '../support/hosts.ts'

const RIG = new URL('fixtures/udp-rig.mjs', import.meta.url).href
const COMMON = new URL('fixtures/common.mjs', import.meta.url).href
const env = { FAKETCP_ADDON: addonPaths().find((path) => existsSync(path)) }
const [EAGAIN, EMSGSIZE] = [-11, -90]
const PORT = 9191

let hosts: Awaited<ReturnType<typeof twoHosts>>
let a: Agent
let b: Agent

beforeAll(async () => {
  hosts = await twoHosts()
  ;[a, b] = await Promise.all([hosts.a.agent({ env }), hosts.b.agent()])
  await a.run(
    async (ctx, [rig, common]) => {
      const { open } = await ctx.import<{ open: (...args: unknown[]) => unknown }>(rig)
      const { addon } = await ctx.import<{ addon: unknown }>(common)
      ctx.state.open = (address: string, options: object) => {
        ctx.state.rig?.socket.close()
        ctx.state.rig = open(addon, address, options)
      }
    },
    [RIG, COMMON],
  )
  await b.run(async (ctx, port) => {
    const { createSocket } = await ctx.import<typeof import('node:dgram')>('node:dgram')
    for (const type of ['udp4', 'udp6'] as const) {
      const socket = createSocket({ type, ipv6Only: type === 'udp6' })
      socket.on('message', (message) => ctx.emit('datagram', message.length))
      await new Promise<void>((bound) => socket.bind(port, () => bound()))
    }
  }, PORT)
})
afterAll(() => hosts?.[Symbol.asyncDispose]())

const send = (to: string, segment: number, bytes: number, ifindex = 0) =>
  a.run((ctx, [to, port, ...rest]) => ctx.state.rig.send(to, port, ...rest) as [number, number], [
    to,
    PORT,
    segment,
    bytes,
    ifindex,
  ] as const)
const open = (address: string, options = {}) =>
  a.run((ctx, [address, options]) => void ctx.state.open(address, options), [address, options] as const)

it.each([
  ['0.0.0.0', '10.77.0.2'],
  ['::', 'fd00:77::2'],
])('a train of datagrams longer than the path: each is fragmented where that is allowed (from %s)', async (from, to) => {
  await open(from, { dontFragment: false })
  expect(await send(to, 3000, 8000)).toEqual([3, 0])
  expect([await b.next('datagram'), await b.next('datagram'), await b.next('datagram')]).toEqual([3000, 3000, 2000])
  // And those that fit still leave in one piece: the refusal was this train's.
  expect(await send(to, 1000, 2500)).toEqual([3, 0])
  expect([await b.next('datagram'), await b.next('datagram'), await b.next('datagram')]).toEqual([1000, 1000, 500])
})

it.each([
  ['0.0.0.0', '10.77.0.2'],
  ['::', 'fd00:77::2'],
])('a train of datagrams longer than the path is refused by EMSGSIZE where fragments are not allowed (from %s)', async (from, to) => {
  await open(from, { dontFragment: true })
  expect(await send(to, 3000, 8000)).toEqual([0, EMSGSIZE])
})

it('a full send buffer is told by EAGAIN, and onWritable follows when it has drained', async () => {
  // An address that nobody answers for: the kernel keeps the packets, charged to the socket, until it gives up asking.
  await hosts.a.output('sysctl', ['-q', '-w', `net.ipv4.neigh.${hosts.a.iface}.retrans_time_ms=50`])
  await open('0.0.0.0', { sendBufferBytes: 20_000 })
  const outcome = await a.run(async (ctx) => {
    const { rig } = ctx.state
    let sent = 0
    let errno = 0
    for (let i = 0; i < 1000 && errno === 0; i++) {
      const [taken, why] = rig.send('10.77.0.77', 9, 1000, 1000)
      sent += taken
      errno = why
    }
    for (let i = 0; i < 200 && rig.events.writable === 0; i++) await new Promise((resolve) => setTimeout(resolve, 50))
    return { sent, errno, writable: rig.events.writable }
  })
  expect(outcome).toEqual({ sent: expect.any(Number), errno: EAGAIN, writable: 1 })
  expect(outcome.sent).toBeGreaterThan(0)
})

it('link-local addresses are reached by the interface that the descriptor names', async () => {
  await Promise.all([hosts.a.addAddress('fe80::77:1/64'), hosts.b.addAddress('fe80::77:2/64')])
  const ifindex = Number((await hosts.a.output('cat', [`/sys/class/net/${hosts.a.iface}/ifindex`])).trim())
  await open('::')
  expect(await send('fe80::77:2', 100, 100, ifindex)).toEqual([1, 0])
  expect(await b.next('datagram')).toBe(100)
})
