// Addresses as people write them, and as the flow's key holds them.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { familyOf, formatAddress, formatHostPort, parseHostPort } from '../../lib/address.ts'
import { loadBinding } from '../../lib/native/loader.ts'

describe('parseHostPort', () => {
  it.each([
    ['192.0.2.1:9191', { host: '192.0.2.1', port: 9191 }],
    ['example.net:80', { host: 'example.net', port: 80 }],
    ['[2001:db8::1]:443', { host: '2001:db8::1', port: 443 }],
    ['[fe80::1%eth0]:443', { host: 'fe80::1%eth0', port: 443 }],
    [':9191', { host: '', port: 9191 }],
    ['9191', { host: '', port: 9191 }],
    [0, { host: '', port: 0 }],
  ])('reads %j', (text, expected) => {
    expect(parseHostPort(text)).toEqual(expected)
  })

  it.each([
    '',
    'example.net',
    '2001:db8::1',
    '2001:db8::1:9191',
    '[example.net]:80',
    '[::1]',
    '[::1]:',
    'host:65536',
    'host:-1',
    'host:http',
    'a b:1:2',
    65536,
    -1,
    1.5,
    Number.NaN,
  ])('refuses %j and says what came', (text) => {
    const error = expect.objectContaining({ code: 'ERR_FAKETCP_INVALID_ADDRESS', message: expect.stringContaining(String(text)) as string })
    expect(() => parseHostPort(text)).toThrow(error as unknown as Error)
  })

  it('tells how an IPv6 address is written', () => {
    expect(() => parseHostPort('2001:db8::1')).toThrow("written in brackets, '[2001:db8::1]:9191'")
  })
})

describe('formatAddress', () => {
  const words = new Int32Array(4)

  it('is the inverse of the kernel’s reading, for IPv4 and IPv6', () => {
    const binding = loadBinding()
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => {
        expect(binding.parseAddress(text, words)).toBe(true)
        const again = new Int32Array(4)
        const formatted = formatAddress(words, 0)
        expect(binding.parseAddress(formatted, again)).toBe(true)
        expect(again).toEqual(words)
        // An IPv4-mapped address is IPv4 here.
        if (familyOf(text) === 4) expect(formatted).toBe(text)
      }),
    )
  })

  it.each([
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['0:0:0:0:0:0:0:1', '::1'],
    ['fe80:0:0:0:0:0:0:0', 'fe80::'],
  ])('writes %s as RFC 5952 wants: %s', (text, expected) => {
    loadBinding().parseAddress(text, words)
    expect(formatAddress(words, 0)).toBe(expected)
  })
})

it('formatHostPort puts brackets around IPv6 only', () => {
  expect([formatHostPort('192.0.2.1', 1), formatHostPort('::1', 2)]).toEqual(['192.0.2.1:1', '[::1]:2'])
})
