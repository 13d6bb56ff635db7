// Flows that live here although their remote ends belong to other shards: which exceptions the captures make for them. Pure bookkeeping.
import { KEY_PORTS, KEY_REMOTE } from '../native/layout.ts'
import { MAX_EXCEPTIONS, type RemoteEnd, type Shard, type ShardFilter, shardOf } from '../wire/shards.ts'

/** A remote end and how many flows (old and new on one 4-tuple, several local addresses) need it. */
interface Stray extends RemoteEnd {
  users: number
}

/**
 * Up to MAX_EXCEPTIONS remote ends are excepted one by one. Beyond, the shard with the most of them is captured as a whole until few are left: then its
 * own listener and this one both see its packets, each delivers those of its own flows, and what is paid is time, not messages.
 */
export class Strays {
  readonly #shard: Shard
  readonly #byShard = new Map<number, Map<string, Stray>>()
  readonly #whole = new Set<number>()
  #exceptions = 0

  constructor({ index, count }: Shard) {
    this.#shard = { index, count }
  }

  /** Remote ends excepted one by one now. */
  get exceptions(): number {
    return this.#exceptions
  }

  /** Other shards captured as a whole now. */
  get wholeShards(): number {
    return this.#whole.size
  }

  get filter(): ShardFilter {
    const exceptions = [...this.#byShard].flatMap(([shard, strays]) => (this.#whole.has(shard) ? [] : [...strays.values()]))
    return { ...this.#shard, exceptions, wholeShards: [...this.#whole] }
  }

  /** @returns true when the captures need the new filter */
  add(key: Int32Array): boolean {
    const { shard, name } = this.#place(key)
    const strays = this.#byShard.get(shard) ?? new Map<string, Stray>()
    this.#byShard.set(shard, strays)
    const known = strays.get(name)
    if (known !== undefined) {
      known.users++
      return false
    }
    strays.set(name, { address: key.slice(KEY_REMOTE, KEY_REMOTE + 4), port: key[KEY_PORTS] >>> 16, users: 1 })
    if (this.#whole.has(shard)) return false
    if (++this.#exceptions > MAX_EXCEPTIONS) this.#takeLargest()
    return true
  }

  /** @returns true when the captures need the new filter */
  remove(key: Int32Array): boolean {
    const { shard, name } = this.#place(key)
    const strays = this.#byShard.get(shard)
    const stray = strays?.get(name)
    if (strays === undefined || stray === undefined || --stray.users > 0) return false
    strays.delete(name)
    if (strays.size === 0) this.#byShard.delete(shard)
    if (!this.#whole.has(shard)) {
      this.#exceptions--
      return true
    }
    // Half of the room, so that one flow that comes and goes does not turn the whole over each time.
    if (strays.size > 0 && this.#exceptions + strays.size > MAX_EXCEPTIONS / 2) return false
    this.#whole.delete(shard)
    this.#exceptions += strays.size
    return true
  }

  #takeLargest(): void {
    let largest = -1
    let size = 0
    for (const [shard, strays] of this.#byShard) {
      if (strays.size > size && !this.#whole.has(shard)) [largest, size] = [shard, strays.size]
    }
    this.#whole.add(largest)
    this.#exceptions -= size
  }

  #place(key: Int32Array): { shard: number; name: string } {
    const remote = [...key.subarray(KEY_REMOTE, KEY_REMOTE + 4), key[KEY_PORTS] >>> 16]
    return { shard: shardOf(key, 0, this.#shard.count), name: remote.join() }
  }
}
