// What acceptor and connector have in common about the sockets that they open. It knows no handshake.
import type { UdpSink, UdpSocket } from './socket.ts'

/** Trains in the outbox of a socket with one peer. */
export const OUTBOX_TRAINS = 32

/** Stands in until somebody takes the socket over, within the same tick. */
export const NOBODY: UdpSink = { onTrains() {}, onRoom() {}, onError() {} }

/** Asked for by name and not granted: said once for each size. */
const warned = new Set<number>()

export interface AskedBuffer {
  readonly receiveBufferBytes: number
  /** The application named it. */
  readonly receiveBufferAsked: boolean
}

/** Tells the application, as Node tells warnings (`process.on('warning')`, code FAKETCP_RECEIVE_BUFFER), that the kernel gave less than it asked for. */
export function warnIfCapped(socket: UdpSocket, { receiveBufferBytes, receiveBufferAsked }: AskedBuffer): void {
  // The kernel grants double, for its own bookkeeping (sock_setsockopt).
  const granted = socket.receiveBufferBytes / 2
  if (!receiveBufferAsked || granted >= receiveBufferBytes || warned.has(receiveBufferBytes)) return
  warned.add(receiveBufferBytes)
  process.emitWarning(
    `A receive buffer of ${receiveBufferBytes} bytes was asked for and ${granted} granted: raise net.core.rmem_max, or give the process CAP_NET_ADMIN`,
    { type: 'FakeTcpWarning', code: 'FAKETCP_RECEIVE_BUFFER' },
  )
}
