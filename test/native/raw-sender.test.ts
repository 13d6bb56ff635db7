// The sender by IP raw socket: the contract of senders, and what only it has.
import { expect, it } from 'vitest'
import { binding } from './rig.ts'
import { senderContract } from './sender-contract.ts'
import { sender } from './sender-rig.ts'

senderContract({
  open: (family) => sender(family),
  checksum: 'right',
  // No packet leaves: broadcast is refused without SO_BROADCAST, and so is a source that is not ours in IPv6.
  refused: (family) => (family === 4 ? { fields: { to: '255.255.255.255' }, errno: -13 } : { fields: { from: '2001:db8::1' }, errno: -22 }),
  wrong: (family) => [['an address of the other family', { to: family === 4 ? '::1' : '127.0.0.1' }, /this sender is for IPv/]],
})

it('throws for options that it cannot use, and for a receiver that is none', () => {
  const options = { family: 4, sendBufferBytes: 4096, onWritable() {} } as const
  expect(() => new binding.RawSender({ ...options, family: 5 as never })).toThrow(RangeError)
  expect(() => new binding.RawSender({ ...options, sendBufferBytes: -1 })).toThrow(RangeError)
  expect(() => new binding.RawSender({ ...options, onWritable: undefined as never })).toThrow(/onWritable must be a function/)
  expect(() => (binding.RawSender as unknown as (options: unknown) => void)(options)).toThrow(TypeError)
  using rig = sender(4)
  expect(() => rig.native.close.call({} as never)).toThrow(TypeError)
})
