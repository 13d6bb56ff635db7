// What the parser makes of ICMP messages, by running it outside of Node under AddressSanitizer (native/test/path_report_tool.cc), and which of them
// the socket's program lets in.
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { REPORT_WORDS } from '../../lib/native/layout.ts'
import { pathReportProgram } from '../../lib/wire/programs.ts'
import { runProgram } from '../wire/fixtures/interpreter.ts'
import { compile, type Helper } from './compile.ts'
import { addressWords, internetSum, packet, withHeaderChecksum } from './packets.ts'
import { binding } from './rig.ts'

const FAMILIES = {
  4: { local: '10.0.0.1', remote: '10.0.0.2', header: 20, type: 3, code: 4 },
  6: { local: 'fd00::1', remote: 'fd00::2', header: 40, type: 2, code: 0 },
} as const
const ICMP = 1
const UDP = 17

let tool: Helper
beforeAll(() => {
  tool = compile(['test/path_report_tool.cc', 'path_report.cc'], { sanitize: true })
})
afterAll(() => tool?.[Symbol.dispose]())

type Family = keyof typeof FAMILIES

interface Message {
  readonly type?: number
  readonly code?: number
  readonly mtu?: number
  readonly quoted?: Buffer
  /** Of the message about the packet. */
  readonly ipOptions?: readonly number[]
}

/** What we sent: 1 452 bytes of TCP. */
function sent(family: Family, more: Partial<Parameters<typeof packet>[0]> = {}): Buffer {
  const { local, remote } = FAMILIES[family]
  const ports = { sourcePort: 0x8001, destinationPort: 0xfffe, seq: 0xfedcba98 }
  return packet({ source: local, destination: remote, ...ports, payload: Buffer.alloc(1432, 'x'), ...more })
}

function withIcmpChecksum(bytes: Buffer): Buffer {
  const out = Buffer.from(bytes)
  out.writeUInt16BE(0, 2)
  out.writeUInt16BE(~internetSum(out) & 0xffff, 2)
  return out
}

/** As an ICMP raw socket receives it. */
function message(family: Family, { type, code, mtu = 1280, quoted = sent(family), ipOptions = [] }: Message = {}): Buffer {
  const defaults = FAMILIES[family]
  const icmp = Buffer.alloc(8)
  icmp[0] = type ?? defaults.type
  icmp[1] = code ?? defaults.code
  icmp.writeUInt32BE(mtu >>> 0, 4)
  const body = withIcmpChecksum(Buffer.concat([icmp, quoted]))
  if (family === 6) return body
  const header = Buffer.alloc(20 + ipOptions.length)
  header[0] = 0x40 | (header.length / 4)
  header[9] = ICMP
  Buffer.from(ipOptions).copy(header, 20)
  return Buffer.concat([withHeaderChecksum(header), body])
}

function parseAll(family: Family, messages: readonly Uint8Array[]): (number[] | undefined)[] {
  const { status, stdout, stderr } = tool.run([], messages.map((bytes) => `${family} ${Buffer.from(bytes).toString('hex')}\n`).join(''))
  if (status !== 0) throw new Error(stderr)
  const lines = stdout.trim().split('\n')
  return lines.map((line) => (line === 'none' ? undefined : line.trim().split(' ').map(Number)))
}

const parse = (family: Family, bytes: Buffer) => parseAll(family, [bytes])[0]
const passes = (family: Family, data: Buffer) => runProgram(pathReportProgram(family), { data, network: data }) > 0

describe.each([4, 6] as const)('IPv%i', (family) => {
  const { local, remote, header, type, code } = FAMILIES[family]
  const outer = family === 4 ? 20 : 0
  const expected = (mtu: number, size = header + 1452) => [
    ...addressWords(remote),
    ...addressWords(local),
    0xfffe8001 | 0,
    0xfedcba98 | 0,
    mtu,
    size,
  ]

  it('becomes the key of the flow, its sequence number, the MTU and the size of what was sent', () => {
    expect(parse(family, message(family))).toEqual(expected(1280))
    expect(passes(family, message(family))).toBe(true)
  })

  it('needs no more of the packet than its IP header, its ports and its sequence number', () => {
    const least = sent(family).subarray(0, header + 8)
    expect(parse(family, message(family, { quoted: least }))).toEqual(expected(1280))
    expect(parse(family, message(family, { quoted: least.subarray(0, header + 7) }))).toBeUndefined()
  })

  it('is believed to be about TCP only where it is, and only if it is of the kind', () => {
    const others = [
      message(family, { quoted: sent(family, { protocol: UDP }) }),
      message(family, { type: type + 1 }),
      message(family, { code: code + 1 }),
      message(family, { quoted: sent(family === 4 ? 6 : 4) }),
    ]
    expect(others.map((other) => passes(family, other))).toEqual([false, false, false, expect.any(Boolean)])
    expect(parse(family, others[0])).toBeUndefined()
    expect(parse(family, others[1])).toBeUndefined()
    expect(parse(family, others[3])).toBeUndefined()
  })

  it('never reads beyond its end, whatever is in it, and never gives more than its words', () => {
    const whole = message(family)
    const cut = fc.nat(whole.length).map((length) => Uint8Array.from(whole.subarray(0, length)))
    const flips = fc.array(fc.tuple(fc.nat(outer + 8 + header + 20), fc.nat(255)), { maxLength: 6 })
    const changed = fc.tuple(cut, flips, fc.boolean()).map(([bytes, changes, fix]) => {
      const out = Buffer.from(bytes)
      for (const [at, value] of changes) if (at < out.length) out[at] = value
      return fix && out.length > outer + 8 ? Buffer.concat([out.subarray(0, outer), withIcmpChecksum(out.subarray(outer))]) : out
    })
    const inputs = fc.sample(fc.oneof(changed, fc.uint8Array({ maxLength: 200 })), 20_000)
    const reports = parseAll(family, inputs)
    const found = reports.filter((report) => report !== undefined)
    // Else the mutations have lost their bite.
    expect(found.length).toBeGreaterThan(100)
    expect(found.length).toBeLessThan(inputs.length - 100)
    for (const report of found) expect(report).toHaveLength(REPORT_WORDS)
  })
})

describe('IPv4 alone', () => {
  it('may come with IP options, outside and inside', () => {
    const options = [1, 1, 1, 1]
    const bytes = message(4, { ipOptions: options, quoted: sent(4, { ipOptions: options }) })
    expect(parse(4, bytes)?.slice(8)).toEqual([0xfffe8001 | 0, 0xfedcba98 | 0, 1280, 24 + 1452])
    expect(passes(4, bytes)).toBe(true)
  })

  it('must have a right checksum, which the kernel leaves to who receives it', () => {
    const bytes = message(4)
    bytes[bytes.length - 1] ^= 1
    expect(parse(4, bytes)).toBeUndefined()
  })

  it('has no ports in a later fragment', () => {
    expect(parse(4, message(4, { quoted: sent(4, { fragment: 0x2001 }) }))).toBeUndefined()
  })

  it('may leave the MTU out (RFC 792): 0', () => {
    expect(parse(4, message(4, { mtu: 0 }))?.[10]).toBe(0)
  })
})

describe('IPv6 alone', () => {
  it('cannot name a flow over IPv4', () => {
    const mapped = sent(6)
    Buffer.from('00000000000000000000ffff0a000001', 'hex').copy(mapped, 8)
    expect(parse(6, message(6, { quoted: mapped }))).toBeUndefined()
  })

  it('has an MTU of 32 bits, which never becomes negative', () => {
    expect(parse(6, message(6, { mtu: 0xffffffff }))?.[10]).toBe(0x7fffffff)
  })
})

describe('the socket', () => {
  const options = () => ({ program: pathReportProgram(4), reports: new Int32Array(16 * REPORT_WORDS), onReports: () => {} })

  it.each([4, 6] as const)('opens, and closes twice (IPv%i)', (family) => {
    const socket = new binding.PathReports({ ...options(), family, program: pathReportProgram(family) })
    socket.close()
    socket.close()
  })

  it('wants room for all that one read can bring', () => {
    expect(() => new binding.PathReports({ ...options(), family: 4, reports: new Int32Array(16 * REPORT_WORDS - 1) })).toThrow(/reports/)
  })
})
