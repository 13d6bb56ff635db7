// Which shard of a port a remote end belongs to: the same hash as instructions for the kernel and as JavaScript. Knows no sockets, and not which
// shards are alive.
import { KEY_PORTS, KEY_REMOTE } from '../native/layout.ts'
import type { Assembler } from './bpf.ts'
import { type AddressWords, compareWords, isIPv4, matchRanges, mergeRanges, type TcpHeader, unsignedWords, type Words } from './matching.ts'

/** One of the listeners that divide a port among them. */
export interface Shard {
  /** From 0 to `count - 1`. */
  readonly index: number
  readonly count: number
}

export interface RemoteEnd {
  readonly address: AddressWords
  readonly port: number
}

/**
 * What a capture of one shard keeps. By a program of its own rather than PACKET_FANOUT, whose numbers follow the sockets that are in the group at the moment:
 * when one of those goes, packets of living flows would go to others, and IP raw sockets have no such thing.
 */
export interface ShardFilter extends Shard {
  /** Remote ends that are kept although they belong to other shards; at most {@link MAX_EXCEPTIONS}. */
  readonly exceptions: readonly RemoteEnd[]
  /** Other shards of which everything is kept. */
  readonly wholeShards: readonly number[]
}

/** With as many different IPv6 addresses the program still leaves room in net.core.optmem_max, as that of MAX_PORTS does. */
export const MAX_EXCEPTIONS = 64

/** Where the remote port is kept while X and A are needed; findTcp uses word 0. */
export const PORT_SCRATCH = 1
/** From here on the four words of an IPv6 source, while exceptions are compared with it: the kernel translates each load from the packet into eight
 * instructions of its own, which count against net.core.optmem_max, and one from here into one. */
const SOURCE_SCRATCH = 2

// Multipliers and shifts of a 32-bit mixer in the manner of murmur's: Linux clients pick ephemeral ports of one parity and neighbouring addresses,
// so every bit has to reach the lowest. It is not keyed (processes share no secret): a peer can choose its shard.
const STEP_MULTIPLIER = 0x7feb352d
const STEP_SHIFT = 15
const LAST_MULTIPLIER = 0x846ca68b
const LAST_SHIFT = 16

/** The shard of a flow's key: of its remote address and port. Of an IPv4 address only its one word counts. */
export function shardOf(key: Int32Array, at: number, count: number): number {
  const remote = at + KEY_REMOTE
  const ipv4 = key[remote + 2] === 0xffff && (key[remote] | key[remote + 1]) === 0
  let hash = 0
  for (let i = ipv4 ? 3 : 0; i < 4; i++) hash = mix(hash ^ key[remote + i], STEP_MULTIPLIER, STEP_SHIFT)
  hash = mix(hash ^ (key[at + KEY_PORTS] >>> 16), STEP_MULTIPLIER, STEP_SHIFT)
  return (mix(hash, LAST_MULTIPLIER, LAST_SHIFT) >>> 0) % count
}

function mix(hash: number, multiplier: number, shift: number): number {
  const product = Math.imul(hash, multiplier)
  return product ^ (product >>> shift)
}

/** A = the shard of the packet's source. Its port is in PORT_SCRATCH; X is lost. `ip` is the offset of the IP header. */
export function loadShard(program: Assembler, family: 4 | 6, ip: number, count: number): Assembler {
  const source = family === 4 ? [ip + 12] : [0, 4, 8, 12].map((offset) => ip + 8 + offset)
  for (const [i, offset] of source.entries()) {
    if (i > 0) program.copyToIndex()
    program.load('word', offset)
    if (i > 0) program.alu('xor', 'x')
    emitMix(program, STEP_MULTIPLIER, STEP_SHIFT)
  }
  program.copyToIndex().loadScratch(PORT_SCRATCH).alu('xor', 'x')
  emitMix(program, STEP_MULTIPLIER, STEP_SHIFT)
  return emitMix(program, LAST_MULTIPLIER, LAST_SHIFT).alu('mod', count)
}

function emitMix(program: Assembler, multiplier: number, shift: number): Assembler {
  return program.alu('mul', multiplier).copyToIndex().alu('rsh', shift).alu('xor', 'x')
}

/** Continues if the packet belongs to the shard or is excepted, else goes to `drop`. X is lost. */
export function matchShard(program: Assembler, tcp: TcpHeader, family: 4 | 6, ip: number, shard: ShardFilter): void {
  if (shard.exceptions.length > MAX_EXCEPTIONS) {
    throw new RangeError(`${shard.exceptions.length} exceptions, expected at most ${MAX_EXCEPTIONS}`)
  }
  tcp.loadHalf(0).store(PORT_SCRATCH)
  loadShard(program, family, ip, shard.count)
  for (const index of [shard.index, ...shard.wholeShards]) program.jump('eq', index, { yes: 'shard matches' })
  const exceptions = byAddress(family, shard.exceptions)
  if (family === 6 && exceptions.length > 0) for (let w = 0; w < 4; w++) program.load('word', ip + 8 + w * 4).store(SOURCE_SCRATCH + w)
  for (const [i, { words, ports }] of exceptions.entries()) {
    const next = `exception ${i} is another`
    if (family === 4) program.load('word', ip + 12).jump('eq', words[3], { no: next })
    else compareWords(program, words, (w) => program.loadScratch(SOURCE_SCRATCH + w), { no: next })
    program.loadScratch(PORT_SCRATCH)
    matchRanges(program, `exception ${i}`, mergeRanges(ports), 'shard matches')
    program.label(next)
  }
  program.goto('drop').label('shard matches')
}

function byAddress(family: 4 | 6, ends: readonly RemoteEnd[]): Array<{ words: Words; ports: number[] }> {
  const groups = new Map<string, { words: Words; ports: number[] }>()
  for (const { address, port } of ends) {
    const words = unsignedWords(address)
    if (isIPv4(words) !== (family === 4)) continue
    const name = String(words)
    const group = groups.get(name) ?? { words, ports: [] }
    groups.set(name, group)
    group.ports.push(port)
  }
  return [...groups.values()]
}
