import { describe, expect, it } from 'vitest'
import { addressWords } from './packets.ts'
import { binding } from './rig.ts'

function parsed(text: string): number[] | false {
  const out = new Int32Array(4)
  return binding.parseAddress(text, out) && [...out]
}

describe('parseAddress', () => {
  it.each(['0.0.0.0', '127.0.0.1', '255.255.255.255', '::', '::1', 'fd00:77::2', '2001:db8:1:2:3:4:5:ffff', '::ffff:10.0.0.1'])(
    'reads %s',
    (text) => {
      expect(parsed(text)).toEqual(addressWords(text))
    },
  )

  it('leaves the zone of an IPv6 address out', () => {
    expect(parsed('fe80::1%eth0')).toEqual(addressWords('fe80::1'))
    expect(parsed('fe80::1%12')).toEqual(addressWords('fe80::1'))
  })

  it.each([
    '',
    'localhost',
    '1.2.3',
    '1.2.3.4.5',
    '256.1.1.1',
    ':::1',
    'fe80::1%',
    '1.2.3.4%eth0',
    '[::1]',
    ' 1.2.3.4',
    `1.2.3.4${' '.repeat(100)}`,
  ])('takes %j for no address', (text) => {
    expect(parsed(text)).toBe(false)
  })

  it('says what it expected when it is called wrongly', () => {
    expect(() => binding.parseAddress(4 as never, new Int32Array(4))).toThrow(/address must be a string, it is a number/)
    expect(() => binding.parseAddress('::1', new Int32Array(3))).toThrow(RangeError)
    expect(() => binding.parseAddress('::1', new Uint8Array(16) as never)).toThrow(TypeError)
  })
})

describe('sourceAddress', () => {
  it.each(['127.0.0.1', '::1'])('of a local destination (%s) is that address, with the path MTU', (text) => {
    const out = new Int32Array(4)
    expect(binding.sourceAddress(text, out)).toBeGreaterThanOrEqual(1280)
    expect([...out]).toEqual(addressWords(text))
  })

  it('throws a system error with errno, code and syscall where there is no way', () => {
    // Broadcast: refused without SO_BROADCAST; a host without any route has no way at all.
    expect(() => binding.sourceAddress('255.255.255.255', new Int32Array(4))).toThrow(
      expect.objectContaining({
        code: expect.stringMatching(/^(EACCES|ENETUNREACH)$/),
        errno: expect.any(Number),
        syscall: 'connect',
        message: expect.stringMatching(/^connect E/),
      }),
    )
  })

  it('refuses what is no address', () => {
    expect(() => binding.sourceAddress('example.com', new Int32Array(4))).toThrow(RangeError)
  })
})
