// A fast sender and receiver of UDP for agents that load TypeScript (`--import tsx`): trains both ways by the library's own socket, as fast as nothing is lost.
// Each datagram carries its number and a content that follows from it. The receiver tells from time to time how many have come, and the sender keeps what is under
// way below a bound.
import { setImmediate as turn } from 'node:timers/promises'
import type { TrainOwner } from '../../lib/link/outbox.ts'
import { D_IFINDEX, D_KEY, D_LENGTH, D_OFFSET, D_SEGMENT, D_WORDS, KEY_WORDS } from '../../lib/native/layout.ts'
import { loadBinding } from '../../lib/native/loader.ts'
import { UdpSocket } from '../../lib/udp/socket.ts'

const SIZE = 1400
/** Datagrams of a train. */
const TRAIN = 40
const TELL_EVERY = 8 * TRAIN
/** Less than the server's UDP sockets hold. */
const UNDER_WAY = 20 * TRAIN
/** After so long without news what is under way counts as lost. */
const PATIENCE_MS = 300
const GREETING = Buffer.from('hello')
const BUFFER_BYTES = 8 << 20

export interface Received {
  intact: number
  corrupt: number
  doubled: number
}

export class UdpStream implements TrainOwner {
  readonly received: Received = { intact: 0, corrupt: 0, doubled: 0 }
  /** Somebody has greeted it. */
  readonly greeted: Promise<void>
  readonly #socket: UdpSocket
  readonly #expected = Buffer.alloc(SIZE, 0xa5)
  readonly #key = new Int32Array(KEY_WORDS)
  #ifindex = 0
  #seen = new Uint8Array(0)
  /** What the other end has told. */
  #told = 0
  #onNews: () => void = () => {}
  #onGreeting: () => void = () => {}

  /** @param to where it sends to; else it answers whoever has spoken last */
  constructor(port: number, to?: number) {
    const target = { family: 4, address: '127.0.0.1', port, ipv6Only: false, sharing: 'none', tos: 0, dontFragment: false } as const
    this.#socket = new UdpSocket(
      loadBinding(),
      { ...target, receiveBufferBytes: BUFFER_BYTES },
      { onTrains: (socket, count) => this.#take(socket, count), onRoom: () => this.#onNews(), onError: () => {} },
    )
    if (to !== undefined) this.#socket.connect('127.0.0.1', to)
    this.greeted = new Promise((resolve) => {
      this.#onGreeting = resolve
    })
  }

  /** So that the other end knows whom to send to. */
  greet(): void {
    this.#add([GREETING], GREETING.length)
  }

  /** Forgets what has come; so many will come. */
  expect(datagrams: number): void {
    this.#seen = new Uint8Array(datagrams)
    Object.assign(this.received, { intact: 0, corrupt: 0, doubled: 0 })
  }

  /** Resolves when all has been sent, and has arrived or been given up. */
  async send(datagrams: number): Promise<void> {
    let lost = 0
    let sent = 0
    this.#told = 0
    while (sent < datagrams || sent - lost > this.#told) {
      const room = sent < datagrams && !this.#socket.outbox.blocked && sent - lost - this.#told < UNDER_WAY
      if (room) {
        const train = Buffer.alloc(Math.min(TRAIN, datagrams - sent) * SIZE, 0xa5)
        for (let at = 0; at < train.length; at += SIZE) train.writeUInt32LE(sent++, at)
        this.#add([train], SIZE)
        // Its own socket has to be read as well.
        if (sent % TELL_EVERY === 0) await turn()
      } else if (!(await this.#news())) lost = sent - this.#told
    }
  }

  trainDone(): void {}
  segmentRefused(): void {}

  #add(buffers: readonly Uint8Array[], segment: number): void {
    const { outbox } = this.#socket
    if (!outbox.makeRoom()) return
    const at = outbox.open(this, Math.ceil(buffers[0].length / segment), segment)
    outbox.words.set(this.#key, at + D_KEY)
    outbox.words[at + D_IFINDEX] = this.#ifindex
    for (const buffer of buffers) outbox.add(buffer)
    outbox.transmit()
    outbox.settle()
  }

  #news(): Promise<boolean> {
    return new Promise((resolve) => {
      const settle = (is: boolean) => {
        clearTimeout(timer)
        this.#onNews = () => {}
        resolve(is)
      }
      const timer = setTimeout(settle, PATIENCE_MS, false)
      this.#onNews = () => settle(true)
    })
  }

  #take({ descriptors, slab }: UdpSocket, count: number): void {
    for (let d = 0; d < count * D_WORDS; d += D_WORDS) {
      this.#key.set(descriptors.subarray(d + D_KEY, d + D_KEY + KEY_WORDS))
      this.#ifindex = descriptors[d + D_IFINDEX]
      const train = Buffer.from(slab.buffer, slab.byteOffset + descriptors[d + D_OFFSET], descriptors[d + D_LENGTH])
      const segment = descriptors[d + D_SEGMENT]
      for (let at = 0; at < train.length; at += segment) this.#takeOne(train.subarray(at, at + segment))
    }
  }

  #takeOne(datagram: Buffer): void {
    if (datagram.length === 4) {
      this.#told = datagram.readUInt32LE(0)
      this.#onNews()
      return
    }
    if (datagram.equals(GREETING)) {
      this.#onGreeting()
      return
    }
    const number = datagram.length === SIZE ? datagram.readUInt32LE(0) : this.#seen.length
    this.#expected.writeUInt32LE(number)
    if (number >= this.#seen.length || !datagram.equals(this.#expected)) {
      this.received.corrupt++
      return
    }
    if (this.#seen[number]++ > 0) this.received.doubled++
    else this.received.intact++
    if (this.received.intact % TELL_EVERY === 0 || this.received.intact === this.#seen.length) {
      const news = Buffer.alloc(4)
      news.writeUInt32LE(this.received.intact)
      this.#add([news], 4)
    }
  }
}
