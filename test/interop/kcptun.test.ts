// A peer that nobody here wrote: kcptun --tcp, which is KCP over the Go library tcpraw. It carries TCP transfers through our listener and through
// our dial, and tcpdump tells what the fake TCP looked like meanwhile.
//
// What tcpraw does, as recorded here (kcptun 20210922): the handshake is its kernel's, with timestamps and window scaling; its data has PSH, no
// options at all and a random window; it sends no pure ACK, it answers neither our FIN nor a reset. It takes every acknowledgement it receives for
// its next sequence number, so under load its numbers jump back to ours and are used again for new data, which TShark calls retransmission, and
// some of our acknowledgements fall into its gaps ("ACKed unseen segment"). Nothing of that is ours to avoid.
import { spawnSync } from 'node:child_process'
import { delimiter } from 'node:path'
import process from 'node:process'
import { expect, it } from 'vitest'
import { fields, type Segment } from '../support/capture.ts'
import type { Host } from '../support/hosts.ts'
import { FAKE_PORT, Kcptun } from './kcptun.ts'

const BYTES = 50_000_000
const TIMEOUT_MS = 120_000
/** kcptun's --mtu: its longest message. */
const LONGEST = 1350

it('carries 50 MB each way from kcptun --tcp to our listener', { timeout: TIMEOUT_MS }, async () => {
  const before = dropRules(undefined)
  await using tunnel = await Kcptun.start('to us', { record: true })
  await transferBothWays(tunnel)
  expect(dropRules(tunnel.a)).toEqual([expect.stringContaining(`--dport ${FAKE_PORT}`)])
  expect([dropRules(tunnel.b), dropRules(undefined)]).toEqual([[], before])
  await expectHealthyFlow(tunnel, 'listener')
})

it("carries 50 MB each way from our dial with dialect 'tcpraw' to kcptun --tcp", { timeout: TIMEOUT_MS }, async () => {
  const before = dropRules(undefined)
  await using tunnel = await Kcptun.start('from us', { record: true })
  await transferBothWays(tunnel)
  expect(dropRules(tunnel.b)).toEqual([expect.stringContaining(`--sport ${FAKE_PORT}`)])
  expect([dropRules(tunnel.a), dropRules(undefined)]).toEqual([[], before])
  await expectHealthyFlow(tunnel, 'dialler')
})

async function transferBothWays(tunnel: Kcptun): Promise<void> {
  for (const direction of ['upload', 'download'] as const) {
    const { sent, received } = await tunnel.transfer(direction, BYTES)
    expect(received, `SHA-256 of the ${direction}`).toBe(sent)
  }
}

/** tcpraw's own rules in a host, or in the machine's own namespace. */
function dropRules(host: Host | undefined): string[] {
  const inside = host === undefined ? [] : ['ip', 'netns', 'exec', host.netns]
  const [command, ...args] = [...inside, 'iptables-save']
  const env = { ...process.env, PATH: [process.env.PATH, '/usr/sbin', '/sbin'].join(delimiter) }
  const { stdout, status, stderr } = spawnSync(command, args, { env, encoding: 'utf8' })
  if (status !== 0) throw new Error(`iptables-save ended with ${status}: ${stderr}`)
  return stdout.split('\n').filter((line) => line.includes('--ttl-eq 1'))
}

/** What the recording at our end shows, and what our end has counted. */
async function expectHealthyFlow(tunnel: Kcptun, role: 'listener' | 'dialler'): Promise<void> {
  expect((await tunnel.recording.stop()).droppedByKernel).toBe(0)
  const [syn, synAck, ack, ...segments] = await tunnel.recording.segments()
  expect([syn, synAck, ack].map(({ flags, len }) => [flags, len])).toEqual([
    ['S', 0],
    ['SA', 0],
    ['A', 0],
  ])
  const isOurs = ({ srcport }: Segment) => (srcport === FAKE_PORT) === (role === 'listener')
  const ours = segments.filter(isOurs)
  const theirs = segments.filter((segment) => !isOurs(segment))

  // Every message has PSH, everything else is a pure ACK: no reset, no second handshake, no train. A pure ACK of tcpraw's side is its kernel's,
  // which speaks until tcpraw has accepted the connection.
  expect(kinds(ours).filter((kind) => kind !== 'A empty')).toEqual(['PA message'])
  expect(kinds(theirs).filter((kind) => kind !== 'A empty')).toEqual(['PA message'])
  expect(longest(ours)).toBe(LONGEST)
  expect(ours.filter(({ len }) => len === 0).length).toBeLessThan(theirs.length / 10)

  // The option that the handshake agreed on, on every segment; checksums wherever the whole segment was recorded.
  expect(ours.filter(({ options, malformed }) => malformed || !/^0101080a.{16}$/.test(options))).toEqual([])
  expect(ours.filter(({ tcpChecksum }) => tcpChecksum === 'bad')).toEqual([])
  expect(ours.filter(({ tcpChecksum }) => tcpChecksum === 'good').length).toBeGreaterThan(50)

  expectTrueNumbers([syn, synAck, ack, ...segments], isOurs, await windowScale(tunnel.recording.file, role))

  const { connections, connectionDrops, errors, conns } = await tunnel.counted()
  expect({ connections, connectionDrops, errors }).toEqual({ connections: 1, connectionDrops: {}, errors: {} })
  expect(conns).toMatchObject([{ dialect: 'tcpraw', capture: 'packet', link: 'packet', setBacks: 0 }])
  // None of the peer's messages was lost between the wire and the application; a few more may have come since the recording stopped.
  const recorded = theirs.filter(({ len }) => len > 0).length
  expect(conns[0].messagesIn).toBeGreaterThanOrEqual(recorded)
  expect(conns[0].messagesIn).toBeLessThan(recorded + 100)
}

/** Our sequence numbers are without gap and stay inside the peer's window; we acknowledge what has come, and never less than before. */
function expectTrueNumbers(segments: readonly Segment[], isOurs: (segment: Segment) => boolean, scale: number): void {
  let next: number | undefined
  let acked: number | undefined
  let highest: number | undefined
  let limit: number | undefined
  const wrong: { frame: number; is: string }[] = []
  for (const segment of segments) {
    const { frame, seq, ack, len, flags, window } = segment
    const synchronises = flags.includes('S')
    const end = (seq + len + (synchronises ? 1 : 0)) >>> 0
    if (isOurs(segment)) {
      if (next !== undefined && seq !== next) wrong.push({ frame, is: `seq ${seq}, expected ${next}` })
      if (limit !== undefined && ahead(end, limit) > 0) wrong.push({ frame, is: `beyond the peer's window by ${ahead(end, limit)}` })
      if (acked !== undefined && ahead(ack, acked) < 0) wrong.push({ frame, is: `ack ${ack} after ${acked}` })
      if (highest !== undefined && ahead(ack, highest) > 0) wrong.push({ frame, is: `ack ${ack} of what has not come, ${highest}` })
      next = end
      acked = flags.includes('A') ? ack : undefined
    } else {
      if (highest === undefined || ahead(end, highest) > 0) highest = end
      // The window of a SYN or SYN-ACK is not scaled (RFC 7323, 2.2).
      const bound = (ack + (synchronises ? window : window << scale)) >>> 0
      if (flags.includes('A') && (limit === undefined || ahead(bound, limit) > 0)) limit = bound
    }
  }
  expect(wrong.slice(0, 10)).toEqual([])
}

/** Serial arithmetic: how far `x` is ahead of `y`. */
function ahead(x: number, y: number): number {
  return (x - y) | 0
}

/** By how many bits our peer scales its windows; its SYN or SYN-ACK says it. */
async function windowScale(file: string, role: 'listener' | 'dialler'): Promise<number> {
  const [handshake] = await fields(
    file,
    ['tcp.options.wscale.shift'],
    `tcp.flags.syn == 1 && tcp.flags.ack == ${role === 'dialler' ? 1 : 0}`,
  )
  return Number(handshake.get('tcp.options.wscale.shift'))
}

function kinds(segments: readonly Segment[]): string[] {
  return [...new Set(segments.map(({ flags, len }) => `${flags} ${len > 0 ? 'message' : 'empty'}`))].sort()
}

function longest(segments: readonly Segment[]): number {
  return segments.reduce((most, { len }) => Math.max(most, len), 0)
}
