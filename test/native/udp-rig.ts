// UDP sockets of the addon as the tests use them: each collects what it received, on loopback. Other ends are Node's own dgram.
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { NativeUdpSocket, UdpSocketOptions } from '../../lib/native/binding.ts'
import * as layout from '../../lib/native/layout.ts'
import { addressWords } from './packets.ts'
import { binding, type Family, loopback } from './rig.ts'

/** One received train, copied out of the slab. */
export interface Datagrams {
  readonly remote: readonly number[]
  readonly local: readonly number[]
  readonly remotePort: number
  readonly localPort: number
  readonly segment: number
  readonly ifindex: number
  readonly payload: Buffer
}

export const textOf = ({ payload, segment }: Datagrams) => `${payload.toString('latin1')} by ${segment}`

const SLOTS = 16
const SLOT_BYTES = 66_048

export class UdpRig implements Disposable {
  readonly trains: Datagrams[] = []
  readonly errors: number[] = []
  readonly batches: number[] = []
  readonly counters = new Float64Array(layout.CAPTURE_COUNTERS)
  readonly native: NativeUdpSocket
  readonly family: Family
  writable = 0
  readonly #slab = new Uint8Array(SLOTS * SLOT_BYTES)
  readonly #descriptors = new Int32Array(SLOTS * layout.D_WORDS)
  readonly #waiting = new Set<() => void>()

  constructor(family: Family, options: Partial<UdpSocketOptions> = {}) {
    this.family = family
    this.native = new binding.UdpSocket({
      family,
      address: loopback(family),
      port: 0,
      ipv6Only: false,
      sharing: 'none',
      tos: 0,
      dontFragment: true,
      receiveBufferBytes: 1 << 20,
      sendBufferBytes: 1 << 20,
      slab: this.#slab,
      slots: SLOTS,
      slotBytes: SLOT_BYTES,
      descriptors: this.#descriptors,
      counters: this.counters,
      onBatch: (count) => {
        this.batches.push(count)
        for (let i = 0; i < count; i++) this.trains.push(this.#read(this.#descriptors.subarray(i * layout.D_WORDS)))
        this.#wake()
      },
      onWritable: () => {
        this.writable++
        this.#wake()
      },
      onError: (errno) => {
        this.errors.push(errno)
        this.#wake()
      },
      ...options,
    })
  }

  get port(): number {
    return this.native.localPort
  }

  key(): number[] {
    const words = new Int32Array(layout.KEY_WORDS)
    this.native.key(words)
    return [...words]
  }

  /** Resolves once `isSo`, asked again after each callback. */
  async until(isSo: () => boolean): Promise<void> {
    await new Promise<void>((resolve) => {
      const check = () => {
        if (!isSo()) return
        this.#waiting.delete(check)
        resolve()
      }
      this.#waiting.add(check)
      check()
    })
  }

  /** Resolves with all trains so far once there are `count`. */
  async received(count: number): Promise<Datagrams[]> {
    await this.until(() => this.trains.length >= count)
    return this.trains
  }

  /** Sends trains, each from `from` (any address unless told) to a port of loopback, or another address. */
  send(trains: readonly TrainOut[]): number {
    const descriptors = new Int32Array(trains.length * layout.D_WORDS)
    const buffers: Uint8Array[] = []
    for (const [i, { to, port = 0, from, segment, skip = 0, buffers: own = [] }] of trains.entries()) {
      const d = descriptors.subarray(i * layout.D_WORDS)
      d.set(addressWords(to ?? loopback(this.family)), layout.KEY_REMOTE)
      if (from !== undefined) d.set(addressWords(from), layout.KEY_LOCAL)
      d[layout.KEY_PORTS] = port << 16
      d[layout.D_OFFSET] = buffers.length
      d[layout.D_LENGTH] = own.length
      d[layout.D_SEGMENT] = segment ?? own[0]?.length ?? 0
      d[layout.D_SKIP] = skip
      buffers.push(...own.map((one) => (typeof one === 'string' ? Buffer.from(one) : one)))
    }
    return this.native.send(descriptors, 0, trains.length, buffers)
  }

  [Symbol.dispose](): void {
    this.native.close()
  }

  #wake(): void {
    for (const check of [...this.#waiting]) check()
  }

  #read(d: Int32Array): Datagrams {
    const ports = d[layout.KEY_PORTS] >>> 0
    return {
      remote: [...d.subarray(layout.KEY_REMOTE, layout.KEY_REMOTE + 4)],
      local: [...d.subarray(layout.KEY_LOCAL, layout.KEY_LOCAL + 4)],
      remotePort: ports >>> 16,
      localPort: ports & 0xffff,
      segment: d[layout.D_SEGMENT],
      ifindex: d[layout.D_IFINDEX],
      payload: Buffer.from(this.#slab.subarray(d[layout.D_OFFSET], d[layout.D_OFFSET] + d[layout.D_LENGTH])),
    }
  }
}

export interface TrainOut {
  readonly to?: string
  readonly port?: number
  readonly from?: string
  readonly segment?: number
  readonly skip?: number
  readonly buffers?: readonly (string | Uint8Array)[]
}

/** A socket of node:dgram on loopback. */
export async function plainSocket(
  family: Family,
  address = loopback(family),
): Promise<{ socket: Socket; port: number; send(port: number, ...messages: string[]): Promise<void> } & AsyncDisposable> {
  const socket = createSocket(family === 4 ? 'udp4' : 'udp6')
  socket.bind(0, address)
  await once(socket, 'listening')
  return {
    socket,
    port: socket.address().port,
    async send(port, ...messages) {
      for (const message of messages) await new Promise<void>((sent) => socket.send(message, port, loopback(family), () => sent()))
    },
    [Symbol.asyncDispose]: () => new Promise((closed) => socket.close(() => closed())),
  }
}
