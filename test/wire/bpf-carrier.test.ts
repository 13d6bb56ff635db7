// The programs on carriers: every flag byte against the kernel, and real sockets that must complete their handshakes and then fall silent.
import { beforeAll, describe, expect, it } from 'vitest'
import { captureProgram, diallerProgram, listenerProgram, MAX_PORTS, muteProgram } from '../../lib/wire/programs.ts'
import { runProgram } from './fixtures/interpreter.ts'
import { injectInKernel, runInNamespace } from './fixtures/kernel.ts'
import { ipPacket, type PacketSpec } from './fixtures/packets.ts'

const [FIN, SYN, RST, PSH, ACK, URG] = [1, 2, 4, 8, 16, 32]

describe('which segments pass', () => {
  // Every flag byte, with and without payload and options. The sequence number tells them apart.
  const specs = Array.from({ length: 256 * 4 }, (_, i): PacketSpec & { flags: number; sequence: number } => ({
    family: 6,
    sequence: i,
    flags: i & 0xff,
    ...(i & 0x100 ? { payload: Uint8Array.of(1) } : {}),
    ...(i & 0x200 ? { tcpOptions: new Uint8Array(12).fill(1) } : {}),
  }))
  const programs = [listenerProgram(), diallerProgram(), muteProgram()]
  let passed: Set<number>[]

  beforeAll(() => {
    // An IPv6 raw socket runs its filter where a TCP socket does: with skb->data at the TCP header.
    passed = injectInKernel({
      device: 'tun',
      addresses: ['fd00::1/64 nodad'],
      packets: specs.map(ipPacket),
      sockets: [null, ...programs].map((program) => ({ kind: 'raw', family: 6, program })),
    })
  })

  function expectPassed(index: number, isPassed: (spec: (typeof specs)[number]) => boolean): void {
    const expected = specs.filter(isPassed).map(({ sequence }) => sequence)
    expect([...passed[index + 1]].sort((a, b) => a - b)).toEqual(expected)
    const interpreted = specs.filter((spec) => {
      const packet = ipPacket(spec)
      return runProgram(programs[index], { data: packet.subarray(40), network: packet }) > 0
    })
    expect(interpreted.map(({ sequence }) => sequence)).toEqual(expected)
  }

  it('all of them without a program', () => {
    expect(passed[0].size).toBe(specs.length)
  })

  it('through the listener program: SYN, or a bare ACK', () => {
    expectPassed(0, ({ flags, payload }) => {
      if ((flags & (SYN | ACK | FIN | RST)) === SYN) return true
      return !payload && (flags & (FIN | SYN | RST | PSH | ACK | URG)) === ACK
    })
  })

  it('through the dialler program: SYN+ACK, or RST+ACK', () => {
    expectPassed(1, ({ flags }) => (flags & ACK) !== 0 && (flags & FIN) === 0 && ((flags & SYN) !== 0) !== ((flags & RST) !== 0))
  })

  it('through the mute program: none', () => {
    expectPassed(2, () => false)
  })
})

interface Talk {
  unacknowledged: number
  received: number | null
  afterEnd: number | null
  flags: { server: number[]; client: number[] }
}
interface Scenes {
  plain: Talk
  listener: Talk
  dialler: Talk
  both: Talk
  muted: Talk
  refused: string
  mutedBefore: string
}

describe('real sockets', () => {
  let answer: Record<'IPv4' | 'IPv6', Scenes> & { replaced: string }

  beforeAll(() => {
    const large = captureProgram({ link: 'packet', family: 6, ports: Array.from({ length: MAX_PORTS }, (_, i) => i * 127) })
    const programs = { listener: listenerProgram(), dialler: diallerProgram(), mute: muteProgram(), large }
    const request = Object.fromEntries(Object.entries(programs).map(([name, program]) => [name, Buffer.from(program).toString('base64')]))
    answer = runInNamespace('carriers.py', request) as typeof answer
  })

  describe.each(['IPv4', 'IPv6'] as const)('over %s', (family) => {
    it('talk when nothing is attached', () => {
      expect(answer[family].plain).toMatchObject({ unacknowledged: 0, received: 100, afterEnd: 0 })
      expect(answer[family].plain.flags.server.length).toBeGreaterThan(1)
    })

    it('behind a listener program complete the handshake, and then neither acknowledge, deliver nor end', () => {
      const { flags, ...rest } = answer[family].listener
      expect(rest).toEqual({ unacknowledged: 100, received: null, afterEnd: null })
      expect(flags.server).toEqual([SYN | ACK])
      // The client repeated itself, and still was not answered.
      expect(flags.client.length).toBeGreaterThan(3)
    })

    it('behind a dialler program complete the handshake, and then neither acknowledge, deliver nor end', () => {
      const { flags, ...rest } = answer[family].dialler
      expect(rest).toEqual({ unacknowledged: 100, received: null, afterEnd: null })
      expect(flags.client).toEqual([SYN, ACK])
    })

    it('connect where both ends have their program', () => {
      expect(answer[family].both).toMatchObject({ unacknowledged: 100, received: null, afterEnd: null })
      expect(answer[family].both.flags.server).toEqual([SYN | ACK])
    })

    it('muted after the handshake are silent from then on', () => {
      expect(answer[family].muted).toMatchObject({ unacknowledged: 100, received: null, afterEnd: null })
      expect(answer[family].muted.flags.server).toEqual([SYN | ACK])
    })

    it('see a refused connection through the dialler program', () => {
      expect(answer[family].refused).toBe('ECONNREFUSED')
    })

    it('muted before the handshake never connect', () => {
      expect(answer[family].mutedBefore).toBe('ENOTCONN')
    })
  })

  it('take the largest set of ports twice within 20 KiB of option memory', () => {
    expect(answer.replaced).toBe('replaced')
  })
})
