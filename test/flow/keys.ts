// Keys for the flow table's tests.
import { hashKey } from '../../lib/flow/hash.ts'
import { H_SEED } from '../../lib/flow/layout.ts'
import type { FlowTable } from '../../lib/flow/table.ts'
import { KEY_LOCAL, KEY_PORTS, KEY_REMOTE, KEY_WORDS } from '../../lib/native/layout.ts'
import { layoutOf } from './consistency.ts'

/** A key of an IPv4 flow to 10.0.0.1:9191. */
export function ipv4Key(remoteAddress: number, remotePort: number, localPort = 9191): Int32Array {
  const key = new Int32Array(KEY_WORDS)
  key[KEY_REMOTE + 2] = 0xffff
  key[KEY_REMOTE + 3] = remoteAddress
  key[KEY_LOCAL + 2] = 0xffff
  key[KEY_LOCAL + 3] = 0x0a000001
  key[KEY_PORTS] = (remotePort << 16) | localPort
  return key
}

/** A key of an IPv6 flow to fd00::1:9191 from one address of a /64 that the peer owns. */
export function ipv6Key(subnet: number, hostHigh: number, hostLow: number, remotePort: number): Int32Array {
  return Int32Array.of(0x20010db8, subnet, hostHigh, hostLow, 0xfd000000 | 0, 0, 0, 1, (remotePort << 16) | 9191)
}

/** Keys that all start in the same bucket of the same shard: one chain. */
export function collidingKeys(table: FlowTable, count: number): Int32Array[] {
  const { buckets, shards } = layoutOf(table)
  const bits = ((shards - 1) << 24) | (buckets - 1)
  const chains = new Map<number, Int32Array[]>()
  for (let i = 0; ; i++) {
    const key = ipv4Key(i, 40000)
    const home = hashKey(key, 0, table.words[H_SEED], table.words[H_SEED + 1]) & bits
    const chain = chains.get(home) ?? []
    chains.set(home, chain)
    if (chain.push(key) === count) return chain
  }
}
