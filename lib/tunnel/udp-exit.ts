// The way out of the tunnel by UDP: datagrams that came through a flow, in trains, to one socket's outbox.
import { getSystemErrorName } from 'node:util'
import { EAGAIN } from '../errors.ts'
import type { TrainOwner } from '../link/outbox.ts'
import { view } from '../message-arena.ts'
import { D_IFINDEX, D_KEY, KEY_WORDS } from '../native/layout.ts'
import type { UdpSocket } from '../udp/socket.ts'
import { datagramsIn } from './messages.ts'
import type { Shared } from './shared.ts'

export class UdpExit implements TrainOwner {
  readonly #shared: Shared
  readonly #socket: UdpSocket

  constructor(shared: Shared, socket: UdpSocket) {
    this.#shared = shared
    this.#socket = socket
  }

  /**
   * Adds datagrams of `segment` bytes each, the last may be shorter; `length` 0: one empty datagram. The bytes must stay until `flush` has returned.
   *
   * @param key nine words: whom to, and from which of our addresses; undefined for a connected socket
   */
  add(memory: Uint8Array, offset: number, length: number, segment: number, key?: Int32Array, ifindex = 0): void {
    const { outbox } = this.#socket
    const messages = datagramsIn(length, segment)
    if (!outbox.makeRoom()) {
      this.#shared.drops['udp-refused'] += messages
      return
    }
    const at = outbox.open(this, messages, segment)
    if (key !== undefined) {
      for (let i = 0; i < KEY_WORDS; i++) outbox.words[at + D_KEY + i] = key[i]
      outbox.words[at + D_IFINDEX] = ifindex
    }
    if (length > 0) outbox.add(view(memory, offset, offset + length))
  }

  /** Sends what was added; what the kernel has no room for is dropped, as by every UDP socket. */
  flush(): void {
    const { outbox } = this.#socket
    outbox.transmit()
    if (outbox.blocked) outbox.discard()
    outbox.settle()
  }

  trainDone(): void {}

  segmentRefused(errno: number, size: number): void {
    this.#shared.drops['udp-refused']++
    if (errno !== EAGAIN)
      this.#shared.warnings.warn('udp', () => `The kernel refused a UDP datagram of ${size} bytes: ${getSystemErrorName(errno)}`)
  }
}
