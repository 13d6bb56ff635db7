// How trains leave: the part of a link that sends, by IP raw sockets or by AF_PACKET. The engine knows this interface and which of the two it asked for.
import type { Binding, NativeSender } from '../native/binding.ts'

/** See {@link NativeSender}: trains in, segments taken by the kernel out. */
export type Sender = NativeSender

export type LinkMode = 'packet' | 'raw'

/** What the kernel is asked for; a burst of one tick fits. */
export const SEND_BUFFER_BYTES = 4 << 20

/** Sends by IP raw sockets with headers of our own. Needs CAP_NET_RAW. */
export function openRawSender(binding: Binding, family: 4 | 6, onWritable: () => void): Sender {
  return new binding.RawSender({ family, sendBufferBytes: SEND_BUFFER_BYTES, onWritable })
}

/**
 * Sends by AF_PACKET, trains in one piece; both families. Needs CAP_NET_RAW.
 *
 * @param hops where the table of hops is that descriptors name
 */
export function openPacketSender(binding: Binding, hops: { readonly table: Int32Array }, onWritable: () => void): Sender {
  const native = new binding.PacketSender({ sendBufferBytes: SEND_BUFFER_BYTES, onWritable })
  return {
    send: (descriptors, from, count, buffers) => native.send(descriptors, from, count, buffers, hops.table),
    get errno() {
      return native.errno
    },
    close: () => native.close(),
  }
}
