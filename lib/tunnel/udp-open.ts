// Opens the tunnel's UDP sockets, and says so when the kernel grants them less than they need.
import { familyOf } from '../address.ts'
import { fromNative } from '../errors.ts'
import type { Binding } from '../native/binding.ts'
import { type UdpSink, UdpSocket } from '../udp/socket.ts'
import type { Shared } from './shared.ts'

export interface UdpTarget {
  /** '': every address, of both families where the host has both. */
  readonly address: string
  /** 0: the kernel chooses. */
  readonly port: number
  readonly receiveBufferBytes: number
  /** Trains that may wait for the kernel within one call. */
  readonly outboxTrains?: number
}

/** @throws system errors, with the address and the port */
export function openUdp(binding: Binding, target: UdpTarget, sink: UdpSink, shared: Shared): UdpSocket {
  const socket = target.address === '' ? openAnyAddress(binding, target, sink) : open(binding, target, sink)
  // The kernel doubles what it grants, for its own book-keeping.
  const granted = socket.receiveBufferBytes / 2
  const asked = target.receiveBufferBytes
  if (granted < asked) {
    shared.warnings.warn(
      'receive-buffer',
      () => `A UDP socket has ${granted} bytes of receive buffer, not ${asked}: raise net.core.rmem_max, or run with CAP_NET_ADMIN`,
    )
  }
  return socket
}

function openAnyAddress(binding: Binding, target: UdpTarget, sink: UdpSink): UdpSocket {
  try {
    return open(binding, { ...target, address: '::' }, sink)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'EAFNOSUPPORT' && code !== 'EADDRNOTAVAIL') throw error
    return open(binding, { ...target, address: '0.0.0.0' }, sink)
  }
}

function open(binding: Binding, target: UdpTarget, sink: UdpSink): UdpSocket {
  const family = familyOf(target.address) === 6 ? 6 : 4
  try {
    // What an application sent in one datagram leaves as one, in fragments if need be.
    return new UdpSocket(binding, { ...target, family, ipv6Only: false, sharing: 'none', tos: 0, dontFragment: false }, sink)
  } catch (error) {
    throw fromNative(error, { address: target.address, port: target.port })
  }
}
