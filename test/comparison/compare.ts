// Two recorded connections, field by field: what each shows of a field is put into words, and equal words mean that nobody can tell them apart by it.

import { FLAGS, type Packet } from './packets.ts'
import { CONVERSATION } from './traffic.ts'

export interface Finding {
  readonly field: string
  readonly kernel: string
  readonly ours: string
}

type Side = 'dialler' | 'listener'

/** What one end shows of a field; undefined where its IP version has no such field. */
type Describe = (own: readonly Packet[], all: readonly Packet[]) => string | undefined

/** Fields of which both ends are looked at. The names are those of docs/wire.md. */
const FIELDS: Readonly<Record<string, Describe>> = {
  'TTL or hop limit': (own) => values(own, ({ hops }) => hops),
  'TOS or traffic class': (own) => values(own, ({ trafficClass }) => trafficClass),
  'Bytes of IP header': (own) => values(own, ({ headerBytes }) => headerBytes),
  'Don’t fragment': (own) => (own[0].dontFragment === undefined ? undefined : values(own, ({ dontFragment }) => dontFragment)),
  'IPv4 identification': identification,
  'IPv6 flow label': flowLabel,
  'Options of the handshake': (own) =>
    own
      .filter(isSyn)
      .map(({ options, mss, scale }) => `${options} MSS ${mss} scale ${scale}`)
      .join(', '),
  'Options of every other segment': (own) => values(own.filter(isNotSyn), ({ options }) => options),
  'TCP flags': (own) => values(own, ({ flags }) => flags & ~FLAGS.PSH & ~FLAGS.FIN),
  'Urgent pointer': (own) => values(own, ({ urgent }) => urgent),
  Checksums: (own) => (own.every(({ checksumIsRight }) => checksumIsRight) ? 'right' : 'wrong'),
  'Sequence numbers': (own) => (own.every(continues) ? 'go on where the last segment ended' : 'leave gaps or go back'),
  Acknowledgements: (own) => (risesOnly(own.filter(isNotFirstSyn).map(({ ack }) => ack)) ? 'never go back' : 'go back'),
  'Pure acknowledgements': acknowledgementRate,
  'First window': firstWindow,
  'Window afterwards': windowGrowth,
  'TSval: rate': clockRate,
  'TSval: order': (own) => (risesOnly(own.map(({ tsval }) => tsval ?? 0)) ? 'never goes back, from the SYN on' : 'goes back'),
  'TSecr: values': (own, all) =>
    own.every((packet) => echoesSomethingSent(packet, all)) ? 'all were sent by the peer' : 'some were never sent',
  'TSecr: order': (own) => (risesOnly(own.filter(isNotFirstSyn).map(({ tsecr }) => tsecr ?? 0)) ? 'never goes back' : 'goes back'),
  'PSH on single messages': (own) => values(singles(own), ({ flags }) => (flags & FLAGS.PSH) !== 0),
  'PSH on many at once': (own) => {
    const many = bursts(own)
    return many.length === 0 ? undefined : many.every(({ flags }) => (flags & FLAGS.PSH) !== 0) ? 'on each segment' : 'on some segments'
  },
  'Segment lengths of many at once': (own) => {
    const many = bursts(own)
    return many.length === 0
      ? undefined
      : many.every(({ length }) => length === CONVERSATION.burstBytes)
        ? 'of the messages'
        : 'as much as fits'
  },
  'FIN and RST': (own) =>
    `${own.filter(({ flags }) => flags & FLAGS.FIN).length} FIN, ${own.filter(({ flags }) => flags & FLAGS.RST).length} RST`,
  'What Wireshark marks': (own) => [...new Set(own.flatMap(({ marks }) => marks))].sort().join(', ') || 'nothing',
}

/** Every field of both ends that the IP version has. */
export function compare(kernel: readonly Packet[], ours: readonly Packet[]): Finding[] {
  return Object.entries(FIELDS).flatMap(([field, describe]) =>
    (['dialler', 'listener'] as const).flatMap((side) => {
      const [one, other] = [kernel, ours].map((all) => describe(of(all, side), all))
      return one === undefined && other === undefined ? [] : [{ field: `${field} (${side})`, kernel: one ?? 'none', ours: other ?? 'none' }]
    }),
  )
}

export const differs = ({ kernel, ours }: Finding) => kernel !== ours

const of = (all: readonly Packet[], side: Side) => all.filter(({ dialled }) => dialled === (side === 'dialler')).filter(isNoRepeat)

/** On a slow machine our hello, which is the first payload, may go twice before it is answered. */
function isNoRepeat({ seq, length }: Packet, i: number, own: readonly Packet[]): boolean {
  const [syn] = own
  return seq !== (syn.seq + 1) >>> 0 || !own.slice(0, i).some((before) => before.seq === seq && (before.length > 0 || length === 0))
}

const isSyn = ({ flags }: Packet) => (flags & FLAGS.SYN) !== 0
const isNotSyn = (packet: Packet) => !isSyn(packet)
const isNotFirstSyn = ({ flags }: Packet) => (flags & FLAGS.ACK) !== 0
const singles = (own: readonly Packet[]) => own.filter(({ length }) => length === CONVERSATION.echoBytes)
/** The last segment of what was written at once may be short. */
const bursts = (own: readonly Packet[]) => own.filter(({ length }) => length >= CONVERSATION.burstBytes)
/** Serial arithmetic (RFC 1982). */
const ahead = (a: number, b: number) => (a - b) | 0
const risesOnly = (numbers: readonly number[]) => numbers.every((one, i) => i === 0 || ahead(one, numbers[i - 1]) >= 0)

function values(own: readonly Packet[], pick: (packet: Packet) => unknown): string {
  return [...new Set(own.map(pick))].sort().join(', ')
}

/** Bytes of sequence space that a packet takes. */
const spaceOf = ({ flags, length }: Packet) => length + (flags & FLAGS.SYN ? 1 : 0) + (flags & FLAGS.FIN ? 1 : 0)

function continues(packet: Packet, i: number, own: readonly Packet[]): boolean {
  const before = own[i - 1]
  return before === undefined || packet.seq === (before.seq + spaceOf(before)) >>> 0
}

/** Where the counter of a connection starts, and where it jumps. */
function identification(own: readonly Packet[]): string | undefined {
  if (own[0].id === undefined) return undefined
  const jumps = own.flatMap(({ id }, i) => (i > 0 && id !== (((own[i - 1].id ?? 0) + 1) & 0xffff) ? [i] : []))
  const steps = own[0].id === 0 ? 'a SYN-ACK with 0, then' : ''
  const where = jumps.filter((i) => own[0].id !== 0 || i !== 1).map((i) => (i < 3 ? 'after the handshake' : 'later'))
  return `${steps} up by one from anywhere${where.length > 0 ? `, anew ${where.join(', ')}` : ''}`.trim()
}

function flowLabel(own: readonly Packet[]): string | undefined {
  const labels = new Set(own.map((packet) => packet.flowLabel))
  if (labels.has(undefined)) return undefined
  return labels.size > 1 ? 'changes' : labels.has(0) ? 'always 0' : 'always the same number'
}

/** What arrives between two of them, in segments of the burst. */
function acknowledgementRate(own: readonly Packet[], all: readonly Packet[]): string | undefined {
  const [first] = own
  const theirs = bursts(all.filter(({ dialled }) => dialled !== first.dialled))
  if (theirs.length === 0) return undefined
  const [from, to] = [theirs[0].time, theirs[theirs.length - 1].time]
  const pure = own.filter(({ length, time, flags }) => length === 0 && flags === FLAGS.ACK && time >= from && time <= to)
  const each = theirs.length / Math.max(1, pure.length)
  return each < 4 ? 'for each two or three segments' : 'for more than three segments at once'
}

const scaleOf = (own: readonly Packet[]) => own.find(isSyn)?.scale ?? 0

/** The first scaled one: the SYN-ACK's and the SYN's stand as they are. */
function firstWindow(own: readonly Packet[]): string {
  const syn = own.filter(isSyn)[0]
  const next = own.filter(isNotSyn)[0]
  return `${syn.window} in the handshake, then ${Math.abs((next.window << scaleOf(own)) - syn.window) < 8192 ? 'the same' : 'another'}`
}

function windowGrowth(own: readonly Packet[]): string {
  const scale = scaleOf(own)
  const later = own.filter(isNotSyn)
  const windows = later.map(({ window }) => window << scale)
  // What was once allowed stays allowed (RFC 9293, 3.8.6), but for what the scale rounds off.
  const edges = later.map(({ ack }, i) => (ack + windows[i]) | 0)
  const takesBack = edges.some((edge, i) => i > 0 && ahead(edge, edges[i - 1]) < -(1 << scale))
  const jumps = windows.some((window, i) => i > 0 && window > 8 * windows[i - 1])
  const grows = Math.max(...windows) > 2 * windows[0] ? 'grows step by step to more than twice the first' : 'grows little or not'
  return `${jumps ? 'jumps' : grows}${takesBack ? ', and takes back' : ''}`
}

function clockRate(own: readonly Packet[]): string {
  const [first, last] = [own[0], own[own.length - 1]]
  const ticks = ahead(last.tsval ?? 0, first.tsval ?? 0)
  return `${Math.round(ticks / (last.time - first.time) / 50) * 50} a second`
}

function echoesSomethingSent(packet: Packet, all: readonly Packet[]): boolean {
  if (packet.tsecr === 0 && !isNotFirstSyn(packet)) return true
  return all.some(({ dialled, tsval, time }) => dialled !== packet.dialled && tsval === packet.tsecr && time <= packet.time)
}
