// Strangers at a UDP listener: hellos under false addresses, and noise. They cost it no socket, no memory and no peer, and get no more bytes than they send.
import { existsSync } from 'node:fs'
import { expect, it } from 'vitest'
import { D_KEY, D_LENGTH, D_OFFSET, D_SEGMENT, D_WORDS, KEY_LOCAL, KEY_PORTS, KEY_REMOTE } from '../../lib/native/layout.ts'
import { addonPaths } from '../../lib/native/loader.ts'
import { CONTROL_BYTES, HELLO, HELLO_TOKEN, writeControl } from '../../lib/udp/control.ts'
import { addressWords } from '../native/packets.ts'
import { twoHosts } from '../support/hosts.ts'
import { descriptors } from '../support/leaks.ts'
import { Peer } from './peer.ts'

const PORT = 9191
const HELLOS = 100_000
/** Addresses of nobody, which host a takes for its own, so that its kernel lets them out as sources. */
const STRANGERS = '10.99.0.0/16'
const PATIENCE = { timeout: 20_000, interval: 50 }

/** The addon's own UDP socket in the agent's process: `state.flood(datagram, count)` sends that many, each from another address and port of STRANGERS. */
const env = { FAKETCP_ADDON: addonPaths().find((path) => existsSync(path)) }

async function flooder(peer: Peer, words: number[]): Promise<void> {
  const layout = { D_KEY, D_LENGTH, D_OFFSET, D_SEGMENT, D_WORDS, KEY_LOCAL, KEY_PORTS, KEY_REMOTE }
  await peer.agent.run(
    async (ctx, { words, layout: l, port }) => {
      const { createRequire } = await ctx.import<typeof import('node:module')>('node:module')
      const addon = createRequire('/')(process.env.FAKETCP_ADDON as string)
      const slots = 1
      const memory = {
        slab: new Uint8Array(66_000),
        slots,
        slotBytes: 66_000,
        descriptors: new Int32Array(l.D_WORDS),
        counters: new Float64Array(8),
      }
      const nothing = () => {}
      const sockets = Array.from(
        { length: 4 },
        () =>
          new addon.UdpSocket({
            family: 4,
            address: '0.0.0.0',
            port: 0,
            ipv6Only: false,
            sharing: 'none',
            tos: 0,
            dontFragment: true,
            receiveBufferBytes: 1 << 20,
            sendBufferBytes: 1 << 22,
            ...memory,
            onBatch: nothing,
            onWritable: nothing,
            onError: nothing,
          }),
      )
      for (const socket of sockets) socket.unref()
      let stranger = 0
      ctx.state.flood = async (datagram: Uint8Array, count: number) => {
        const batch = 250
        const d = new Int32Array(batch * l.D_WORDS)
        let sent = 0
        for (let done = 0; done < count; done += batch) {
          for (let i = 0; i < batch; i++, stranger++) {
            const at = i * l.D_WORDS
            d.set(words, at + l.D_KEY + l.KEY_REMOTE)
            d.set([0, 0, 0xffff, 0x0a630000 + (stranger & 0xffff)], at + l.D_KEY + l.KEY_LOCAL)
            d[at + l.D_KEY + l.KEY_PORTS] = port << 16
            d[at + l.D_OFFSET] = 0
            d[at + l.D_LENGTH] = 1
            d[at + l.D_SEGMENT] = datagram.length
          }
          sent += sockets[(stranger >> 16) & 3].send(d, 0, batch, [datagram])
          // No faster than the listener reads: what the kernel drops proves nothing.
          await new Promise((resolve) => setTimeout(resolve, 4))
        }
        return sent
      }
    },
    { words, layout, port: PORT },
  )
}

it('100 000 hellos under false addresses leave nothing behind, and a true client is served among them', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  await a.output('ip', ['route', 'add', 'local', STRANGERS, 'dev', 'lo'])
  await b.output('ip', ['route', 'add', STRANGERS, 'via', a.address4])
  const server = await Peer.on(b, { transport: 'udp', nodeArgs: ['--expose-gc'] })
  const client = await Peer.on(a, { transport: 'udp', env })
  await server.listen({ host: b.address4, port: PORT, receiveBufferBytes: 32 << 20 })
  await flooder(client, addressWords(b.address4))
  const heap = () =>
    server.agent.run(() => {
      globalThis.gc?.()
      return process.memoryUsage().heapUsed + process.memoryUsage().external
    })
  const hello = new Uint8Array(CONTROL_BYTES)
  writeControl(hello, 0, HELLO_TOKEN, HELLO, { token: hello.slice(0, 16).fill(7) })
  const flood = (datagram: Uint8Array, count: number) =>
    client.agent.run((ctx, { datagram, count }) => ctx.state.flood(datagram, count) as Promise<number>, { datagram, count })
  // What the first ones load and compile is no cost of the later ones.
  await flood(hello, 5000)
  await expect.poll(async () => (await server.listenerStats()).packets, PATIENCE).toBe(5000)
  const before = { heap: await heap(), descriptors: await descriptors(server.pid) }
  const bytesOut = async () => Number(await b.output('cat', [`/sys/class/net/${b.iface}/statistics/tx_bytes`]))
  const bytesIn = async () => Number(await b.output('cat', [`/sys/class/net/${b.iface}/statistics/rx_bytes`]))
  const [inBefore, outBefore] = [await bytesIn(), await bytesOut()]

  const flooding = flood(hello, HELLOS)
  const { id } = await client.dial({ host: b.address4, port: PORT })
  await client.write(id, 'a true one')
  expect((await server.next('message')).text).toBe('a true one')
  await client.close(id)
  expect(await flooding).toBe(HELLOS)

  await expect.poll(async () => (await server.listenerStats()).packets, PATIENCE).toBeGreaterThanOrEqual(5000 + HELLOS)
  const stats = await server.listenerStats()
  expect(stats).toMatchObject({ accepted: 1, refused: 0, kernelDrops: 0 })
  // The true one's own socket answers for a second after its end.
  await expect.poll(() => descriptors(server.pid), PATIENCE).toEqual(before.descriptors)
  expect((await heap()) - before.heap).toBeLessThan(2 << 20)
  const [received, answered] = [(await bytesIn()) - inBefore, (await bytesOut()) - outBefore]
  expect(received).toBeGreaterThan(HELLOS * CONTROL_BYTES)
  expect(answered).toBeLessThan(received * 1.01)

  const noise = new Uint8Array(CONTROL_BYTES).fill(3)
  await flood(noise, 10_000)
  await expect.poll(async () => (await server.listenerStats()).rejected.orphan, PATIENCE).toBe(10_000)
  expect(await descriptors(server.pid)).toEqual(before.descriptors)
})
