// What a flow look-up costs: in the table by its owner, the same while another thread inserts and removes, another thread's flow, and a
// plain Map beside them. One run, medians over rounds that take turns, so that a noisy machine treats all alike.
// Run: npx tsx bench/flow-table.ts
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { build } from 'esbuild'
import { hashKey } from '../lib/flow/hash.ts'
import { FlowTable } from '../lib/flow/table.ts'
import { KEY_LOCAL, KEY_PORTS, KEY_REMOTE, KEY_WORDS } from '../lib/native/layout.ts'

const FLOWS = 1000
const LOOKUPS = 20_000
const ROUNDS = 301

/** `count` IPv4 flows to one local port, one key after the other. */
function ipv4Keys(count: number, network: number): Int32Array {
  const keys = new Int32Array(count * KEY_WORDS)
  for (let i = 0; i < count; i++) {
    const at = i * KEY_WORDS
    keys[at + KEY_REMOTE + 2] = 0xffff
    keys[at + KEY_REMOTE + 3] = network + i
    keys[at + KEY_LOCAL + 2] = 0xffff
    keys[at + KEY_LOCAL + 3] = 0x0a000001
    keys[at + KEY_PORTS] = ((32768 + 2 * i) << 16) | 9191
  }
  return keys
}

/** The same flows from hosts of one IPv6 /64. */
function ipv6Keys(count: number): Int32Array {
  const keys = ipv4Keys(count, 0)
  for (let i = 0; i < count; i++) keys.set([0x20010db8, 1, 2, i, 0xfd000000 | 0, 0, 0, 1], i * KEY_WORDS)
  return keys
}

const stringKey = (keys: Int32Array, at: number): string =>
  `${keys[at + 3]},${keys[at + 7]},${keys[at + 8]},${keys[at]},${keys[at + 1]},${keys[at + 2]},${keys[at + 4]},${keys[at + 5]},${keys[at + 6]}`

const bigintKey = (keys: Int32Array, at: number): bigint => {
  let key = 0n
  for (let i = 0; i < KEY_WORDS; i++) key = (key << 32n) | BigInt(keys[at + i] >>> 0)
  return key
}

type Find = (keys: Int32Array, at: number) => number

/**
 * A loop over one case, in nanoseconds for each look-up. Compiled anew for each: V8 would see all cases in one shared loop and inline none.
 * The sum keeps it from dropping the work.
 */
function compileLoop(keys: Int32Array, find: Find): () => number {
  const loop = new Function(
    'keys',
    'find',
    'lookups',
    'step',
    `let sum = 0
     for (let i = 0, at = 0; i < lookups; i++) {
       sum += find(keys, at)
       at += step
       if (at >= keys.length) at -= keys.length
     }
     return sum`,
  )
  return () => {
    const start = process.hrtime.bigint()
    loop(keys, find, LOOKUPS, 7 * KEY_WORDS)
    return Number(process.hrtime.bigint() - start) / LOOKUPS
  }
}

interface Result {
  median: number
  /** The quickest round: what it costs when nothing else on the machine gets in the way. */
  best: number
}

function resultOf(rounds: number[]): Result {
  rounds.sort((a, b) => a - b)
  return { median: rounds[rounds.length >> 1], best: rounds[0] }
}

/** A thread that inserts and removes flows of its own without a pause, or (`idle`) owns 1000 and does nothing. */
async function startOther(table: FlowTable, idle: boolean): Promise<Worker> {
  const source = `
    import { parentPort, workerData } from 'node:worker_threads'
    import { FlowTable } from './table.ts'
    const table = FlowTable.attach(workerData.handle)
    const owner = table.register()
    const { keys, idle } = workerData
    for (let at = 0; at < keys.length; at += 9) table.insert(keys, at, owner)
    parentPort.postMessage('ready')
    if (idle) parentPort.on('message', () => {})
    else for (let at = 0; ; at = at + 9 < keys.length ? at + 9 : 0) {
      table.remove(table.find(keys, at), owner)
      table.insert(keys, at, owner)
    }`
  const resolveDir = fileURLToPath(new URL('../lib/flow', import.meta.url))
  const { outputFiles } = await build({
    stdin: { contents: source, resolveDir },
    bundle: true,
    platform: 'node',
    format: 'cjs',
    write: false,
  })
  const keys = ipv4Keys(FLOWS, idle ? 0x0b000000 : 0x0c000000)
  const worker = new Worker(outputFiles[0].text, { eval: true, workerData: { handle: table.handle, keys, idle } })
  await once(worker, 'message')
  return worker
}

const table = FlowTable.create()
const owner = table.register()
const keys = ipv4Keys(FLOWS, 0x0a000000)
const keys6 = ipv6Keys(FLOWS)
const foreign = ipv4Keys(FLOWS, 0x0b000000)
const unknown = ipv4Keys(FLOWS, 0x0d000000)
const byString = new Map<string, number>()
const byBigint = new Map<bigint, number>()
const byHash = new Map<number, number>()
for (const list of [keys, keys6]) {
  for (let at = 0; at < list.length; at += KEY_WORDS) {
    const slot = table.insert(list, at, owner)
    byString.set(stringKey(list, at), slot)
    byBigint.set(bigintKey(list, at), slot)
    byHash.set(hashKey(list, at, 1, 2), slot)
  }
}
const idler = await startOther(table, true)

const CASES: [name: string, keys: Int32Array, find: Find][] = [
  ['Map, string key, made for each look-up', keys, (list, at) => byString.get(stringKey(list, at)) ?? -1],
  ['Map, bigint key, made for each look-up', keys, (list, at) => byBigint.get(bigintKey(list, at)) ?? -1],
  ['Map, the 32-bit hash as key (collisions not handled)', keys, (list, at) => byHash.get(hashKey(list, at, 1, 2)) ?? -1],
  ['the hash alone', keys, (list, at) => hashKey(list, at, 1, 2)],
  ['table, own flow, IPv4', keys, (list, at) => table.find(list, at)],
  ['table, own flow, IPv6', keys6, (list, at) => table.find(list, at)],
  ["table, another thread's flow", foreign, (list, at) => table.find(list, at)],
  ['table, no such flow', unknown, (list, at) => table.find(list, at)],
]
// The Map is there to show what the other thread costs by merely running.
const UNDER_WRITES = CASES.slice(2)

function run(cases: typeof CASES): Map<string, Result> {
  const loops = cases.map(([, list, find]) => compileLoop(list, find))
  const rounds = cases.map((): number[] => [])
  for (let round = -20; round < ROUNDS; round++) {
    for (const [i, loop] of loops.entries()) {
      const ns = loop()
      if (round >= 0) rounds[i].push(ns)
    }
  }
  return new Map(cases.map(([name], i) => [name, resultOf(rounds[i])]))
}

const results = run(CASES)
const writer = await startOther(table, false)
for (const [name, result] of run(UNDER_WRITES)) results.set(`${name}, while another thread writes`, result)
await Promise.all([idler.terminate(), writer.terminate()])

const base = results.get('table, own flow, IPv4')?.median ?? Number.NaN
const rows = [...results].map(([name, { median, best }]) => [
  name,
  { 'ns, median': Math.round(median), 'ns, best': Math.round(best), 'to own flow': Number((median / base).toFixed(2)) },
])
console.table(Object.fromEntries(rows))
