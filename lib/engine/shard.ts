// A listener's part in a port that several share: which handshakes are its own, who gets the others, and what is kept although it is not. It accepts
// nothing itself (acceptor.ts).
//
// The kernel picks a listener by its place in the group, and places move when one closes (reuseport_detach_sock), so it is only mostly right. Whoever
// gets a handshake that belongs to another shard passes the kernel socket on; that shard has captured the handshake. While it has nobody, whoever got the handshake
// keeps it and makes its capture see the peer: a stray.
import type { Binding, NativeCarrier, NativeCarrierInbox } from '../native/binding.ts'
import type { ShardStats } from '../stats.ts'
import { type Shard, type ShardFilter, shardOf } from '../wire/shards.ts'
import { Strays } from './strays.ts'

export interface ShardPlace {
  readonly address: string
  readonly port: number
}

export class ShardMember implements ShardStats {
  readonly index: number
  readonly count: number
  steered = false
  handedOver = 0
  takenOver = 0
  strays = 0
  readonly #strays: Strays
  readonly #place: string
  #inbox: NativeCarrierInbox | undefined

  /** @param words the address as the flow key has it, so that every way to write it is the same place */
  constructor({ index, count }: Shard, where: ShardPlace, words: Int32Array) {
    this.index = index
    this.count = count
    this.#strays = new Strays({ index, count })
    const zone = where.address.split('%')[1] ?? ''
    this.#place = `faketcp:${Buffer.from(words.buffer, words.byteOffset, words.byteLength).toString('hex')}%${zone}:${where.port}`
  }

  /**
   * From now on others hand over what belongs to this shard, so its captures must be open.
   *
   * @throws `EADDRINUSE` while another listener has this shard
   */
  open(binding: Binding, onCarriers: (carriers: NativeCarrier[], errno: number) => void): void {
    this.#inbox = new binding.CarrierInbox({ name: this.#inboxOf(this.index), onCarriers })
  }

  /** What the captures are to keep now. */
  get filter(): ShardFilter {
    return this.#strays.filter
  }
  get exceptions(): number {
    return this.#strays.exceptions
  }
  get wholeShards(): number {
    return this.#strays.wholeShards
  }

  owns(words: Int32Array, at: number): boolean {
    return shardOf(words, at, this.count) === this.index
  }

  /** Gives a carrier to the shard that it belongs to. @returns false, and nothing has changed, when nobody is there to take it */
  handOver(carrier: NativeCarrier, key: Int32Array): boolean {
    if (carrier.handOver(this.#inboxOf(shardOf(key, 0, this.count))) !== 0) return false
    this.handedOver++
    return true
  }

  /** Receives again after `onCarriers` got an error. */
  resume(): void {
    this.#inbox?.resume()
  }

  /** A flow of another shard is to live here. @returns true when the captures need the new filter */
  keep(key: Int32Array): boolean {
    this.strays++
    return this.#strays.add(key)
  }

  /** Its flow is gone. @returns true when the captures need the new filter */
  release(key: Int32Array): boolean {
    return this.#strays.remove(key)
  }

  /** Takes no more from others. */
  close(): void {
    this.#inbox?.close()
  }

  /** Abstract names belong to the network namespace, as ports do, and go with their sockets. */
  #inboxOf(index: number): string {
    return `${this.#place}:${index}`
  }
}
