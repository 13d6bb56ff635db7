// A client's peers by address and by session, and what waits for a flow: no more than it may.
import { expect, it } from 'vitest'
import { D_WORDS, KEY_PORTS } from '../../lib/native/layout.ts'
import type { ClientFlow } from '../../lib/tunnel/client-flow.ts'
import { PeerTable } from '../../lib/tunnel/peer-table.ts'
import { noDrops } from '../../lib/tunnel/stats.ts'
import type { TunnelFlow } from '../../lib/tunnel/tunnel-flow.ts'
import { WaitingTrains } from '../../lib/tunnel/waiting-trains.ts'

const FLOW = {} as ClientFlow

/** Descriptors of datagrams from ports 0, 1, 2, ... of one address. */
function descriptors(count: number): Int32Array {
  const words = new Int32Array(count * D_WORDS)
  for (let i = 0; i < count; i++) {
    words.set([0, 0, 0xffff, 0x7f000001, 0, 0, 0xffff, 0x7f000001], i * D_WORDS)
    words[i * D_WORDS + KEY_PORTS] = (i << 16) | 7001
  }
  return words
}

it('finds each of many peers by its address and by its session, until it is removed', () => {
  const count = 5000
  const words = descriptors(count)
  const table = new PeerTable()
  const peers = Array.from({ length: count }, (_, i) => table.add(words, i * D_WORDS, FLOW))
  const found = () => peers.map((peer, i) => table.find(words, i * D_WORDS) === peer && table.bySession(peer.session) === peer)
  expect(found().every(Boolean)).toBe(true)
  expect(new Set(peers.map(({ session }) => session)).size).toBe(count)
  for (let i = 0; i < count; i += 2) table.remove(peers[i])
  expect(found()).toEqual(peers.map((_, i) => i % 2 === 1))
  expect(table.size).toBe(count / 2)
})

it('gives a session that was freed to somebody else only when all others have been', () => {
  const words = descriptors(1)
  const table = new PeerTable()
  const sessions = new Set<number>()
  for (let i = 0; i < 65_535; i++) {
    const peer = table.add(words, 0, FLOW)
    sessions.add(peer.session)
    table.remove(peer)
  }
  expect(sessions.size).toBe(65_535)
  expect(sessions.has(0)).toBe(false)
})

/** Takes what is flushed. */
function taken(): { flow: TunnelFlow; sent: string[] } {
  const sent: string[] = []
  const send = (session: number, bytes: Uint8Array, _offset: number, _length: number, segment: number) =>
    sent.push(`${session}:${Buffer.from(bytes)}/${segment}`)
  return { flow: { send } as unknown as TunnelFlow, sent }
}

it('keeps copies of what waits, in order', () => {
  const waiting = new WaitingTrains({ drops: noDrops(), waitingBytes: 0 })
  const memory = Buffer.from('..aabb..')
  waiting.push(7, memory, 2, 4, 2)
  memory.fill(0)
  waiting.push(8, memory, 0, 0, 0)
  const { flow, sent } = taken()
  waiting.flush(flow)
  expect(sent).toEqual(['7:aabb/2', '8:/0'])
  expect(waiting.empty).toBe(true)
})

it('drops what came first when too much waits, and counts its datagrams', () => {
  const drops = noDrops()
  const waiting = new WaitingTrains({ drops, waitingBytes: 0 })
  const memory = Buffer.alloc(64 << 10)
  for (let i = 0; i < 6; i++) waiting.push(i, memory, 0, memory.length, 1024)
  expect(drops['no-flow']).toBe(2 * 64)
  for (let i = 0; i < 100; i++) waiting.push(i, memory, 0, 1, 1)
  const { flow, sent } = taken()
  waiting.flush(flow)
  expect(sent).toHaveLength(64)
  expect(drops['no-flow']).toBe(6 * 64 + 36)
})

it('bounds what waits for all flows together, and forgets what has gone', () => {
  const shared = { drops: noDrops(), waitingBytes: 0 }
  const memory = Buffer.alloc(64 << 10)
  const all = Array.from({ length: 100 }, () => new WaitingTrains(shared))
  for (const one of all) for (let i = 0; i < 4; i++) one.push(1, memory, 0, memory.length, 1024)
  expect(shared.waitingBytes).toBe(16 << 20)
  all[0].flush(taken().flow)
  expect(shared.waitingBytes).toBe((16 << 20) - (256 << 10))
  for (const one of all) one.clear()
  expect(shared).toMatchObject({ waitingBytes: 0, drops: { 'no-flow': 396 * 64 } })
})
