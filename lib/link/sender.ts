// How trains leave: the part of a link that sends. Two exist by design, IP raw sockets here and AF_PACKET (to come); the engine knows this interface.
import type { Binding, NativeSender } from '../native/binding.ts'

/** See {@link NativeSender}: trains in, segments taken by the kernel out. */
export type Sender = NativeSender

/** What the kernel is asked for; a burst of one tick fits. */
const SEND_BUFFER_BYTES = 4 << 20

/** Sends by IP raw sockets with headers of our own. Needs CAP_NET_RAW. */
export function openRawSender(binding: Binding, family: 4 | 6, onWritable: () => void): Sender {
  return new binding.RawSender({ family, sendBufferBytes: SEND_BUFFER_BYTES, onWritable })
}
