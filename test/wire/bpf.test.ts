// The assembler: encodings of single instructions, labels and far jumps, and what it refuses. Expected bytes are written by hand from
// `struct sock_filter` and the opcode table in the kernel's Documentation/networking/filter.rst.
import { describe, expect, it } from 'vitest'
import { Assembler, MAX_INSTRUCTIONS, SKF_NET_OFF } from '../../lib/wire/bpf.ts'
import { captureProgram, diallerProgram, listenerProgram, MAX_PORTS, muteProgram } from '../../lib/wire/programs.ts'
import { runProgram } from './fixtures/interpreter.ts'
import { words } from './fixtures/packets.ts'

type Instruction = [code: number, jt: number, jf: number, k: number]

function instructions(program: Uint8Array): Instruction[] {
  const halves = new Uint16Array(program.buffer)
  const longs = new Uint32Array(program.buffer)
  return Array.from({ length: program.length / 8 }, (_, i) => [halves[i * 4], program[i * 8 + 2], program[i * 8 + 3], longs[i * 2 + 1]])
}

const empty = new Uint8Array(0)

describe('the assembler', () => {
  it.each<[string, (program: Assembler) => Assembler, Instruction]>([
    ['ld [8]', (p) => p.load('word', 8), [0x20, 0, 0, 8]],
    ['ldh [12]', (p) => p.load('half', 12), [0x28, 0, 0, 12]],
    ['ldb [9]', (p) => p.load('byte', 9), [0x30, 0, 0, 9]],
    ['ldb [net+9]', (p) => p.load('byte', SKF_NET_OFF + 9), [0x30, 0, 0, 0xfff00009]],
    ['ldh [x+2]', (p) => p.loadIndexed('half', 2), [0x48, 0, 0, 2]],
    ['ldb [x+net]', (p) => p.loadIndexed('byte', SKF_NET_OFF), [0x50, 0, 0, 0xfff00000]],
    ['ld len', (p) => p.loadLength(), [0x80, 0, 0, 0]],
    ['ld M[3]', (p) => p.loadScratch(3), [0x60, 0, 0, 3]],
    ['st M[3]', (p) => p.store(3), [0x02, 0, 0, 3]],
    ['ldx #40', (p) => p.setIndex(40), [0x01, 0, 0, 40]],
    ['ldxb 4*([14]&0xf)', (p) => p.setIndexHeaderLength(14), [0xb1, 0, 0, 14]],
    ['tax', (p) => p.copyToIndex(), [0x07, 0, 0, 0]],
    ['add #1', (p) => p.alu('add', 1), [0x04, 0, 0, 1]],
    ['add x', (p) => p.alu('add', 'x'), [0x0c, 0, 0, 0]],
    ['and #0xf0', (p) => p.alu('and', 0xf0), [0x54, 0, 0, 0xf0]],
    ['lsh #3', (p) => p.alu('lsh', 3), [0x64, 0, 0, 3]],
    ['mod #5', (p) => p.alu('mod', 5), [0x94, 0, 0, 5]],
    ['xor #-1', (p) => p.alu('xor', -1), [0xa4, 0, 0, 0xffffffff]],
    ['mul #3', (p) => p.alu('mul', 3), [0x24, 0, 0, 3]],
    ['xor x', (p) => p.alu('xor', 'x'), [0xac, 0, 0, 0]],
    ['ret a', (p) => p.retAccumulator(), [0x16, 0, 0, 0]],
    ['ret #0xffffffff', (p) => p.ret(0xffffffff), [0x06, 0, 0, 0xffffffff]],
  ])('encodes %s', (_name, emit, expected) => {
    expect(instructions(emit(new Assembler()).ret(0).assemble())[0]).toEqual(expected)
  })

  it('counts jumps from the next instruction, and lets a missing arm fall through', () => {
    const program = new Assembler()
      .jump('eq', 6, { no: 'end' })
      .jump('gt', 'x', { yes: 'end' })
      .jump('ge', 3, { yes: 'keep', no: 'end' })
      .jump('set', 0x1fff, {})
      .goto('end')
      .label('keep')
      .ret(1)
      .label('end')
      .ret(0)
    expect(instructions(program.assemble())).toEqual([
      [0x15, 0, 5, 6],
      [0x2d, 4, 0, 0],
      [0x35, 2, 3, 3],
      [0x45, 0, 0, 0x1fff],
      [0x05, 0, 0, 1],
      [0x06, 0, 0, 1],
      [0x06, 0, 0, 0],
    ])
  })

  it('reaches 255 instructions by the jump itself, and further by a BPF_JA behind it', () => {
    const over = (count: number): Instruction[] => {
      const program = new Assembler().jump('eq', 1, { yes: 'far' })
      for (let i = 0; i < count; i++) program.alu('add', 1)
      return instructions(program.label('far').ret(0).assemble())
    }
    expect(over(255)[0]).toEqual([0x15, 255, 0, 1])
    expect(over(255)).toHaveLength(257)
    expect(over(256).slice(0, 2)).toEqual([
      [0x15, 0, 1, 1],
      [0x05, 0, 0, 256],
    ])
    expect(over(256)).toHaveLength(259)
  })

  it('takes a far way on both arms, and where one jump pushes another beyond reach', () => {
    const program = new Assembler().jump('eq', 1, { yes: 'one', no: 'two' })
    for (let i = 0; i < 253; i++) program.alu('add', 1)
    // Near as long as the next jump, whose own target is far, takes one instruction.
    program.jump('eq', 2, { yes: 'two' }).label('one').ret(1)
    for (let i = 0; i < 300; i++) program.alu('add', 1)
    program.label('two').ret(2)
    const bytes = program.assemble()
    expect(instructions(bytes)[0]).toEqual([0x15, 0, 1, 1])
    expect(instructions(bytes).slice(1, 3)).toEqual([
      [0x05, 0, 0, 256],
      [0x05, 0, 0, 556],
    ])
    // A is 0, so `no` is taken.
    expect(runProgram(bytes, { data: empty, network: empty })).toBe(2)
  })

  it('refuses unknown, double, backward and dangling labels', () => {
    expect(() => new Assembler().goto('nowhere').ret(0).assemble()).toThrow(/'nowhere' is not defined/)
    expect(() => new Assembler().label('a').ret(0).label('a')).toThrow(/'a' is defined twice/)
    expect(() => new Assembler().label('loop').alu('add', 1).goto('loop').ret(0).assemble()).toThrow(/'loop' lies behind/)
    expect(() => new Assembler().label('self').jump('eq', 0, { yes: 'self' }).ret(0).assemble()).toThrow(/'self' lies behind/)
    expect(() => new Assembler().goto('end').ret(0).label('end').assemble()).toThrow(/'end' marks no instruction/)
  })

  it('refuses programs that the kernel would: without a return at the end, or of more than 4096 instructions', () => {
    expect(() => new Assembler().assemble()).toThrow(/end in a return/)
    expect(() => new Assembler().ret(0).loadLength().assemble()).toThrow(/end in a return/)
    const program = new Assembler()
    for (let i = 1; i < MAX_INSTRUCTIONS; i++) program.alu('add', 1)
    expect(program.ret(0).assemble()).toHaveLength(MAX_INSTRUCTIONS * 8)
    expect(() => program.ret(0).assemble()).toThrow(/at most 4096 instructions, this one 4097/)
  })

  it('refuses operands out of range', () => {
    expect(() => new Assembler().ret(2 ** 32)).toThrow(RangeError)
    expect(() => new Assembler().alu('add', 1.5)).toThrow(RangeError)
    expect(() => new Assembler().jump('eq', Number.NaN, {})).toThrow(RangeError)
    expect(() => new Assembler().store(16)).toThrow(RangeError)
    expect(() => new Assembler().loadScratch(-1)).toThrow(RangeError)
    expect(() => new Assembler().alu('lsh', 32)).toThrow(RangeError)
    expect(() => new Assembler().alu('mod', 0)).toThrow(RangeError)
  })
})

describe('the programs', () => {
  const dropAll: Instruction[] = [[0x06, 0, 0, 0]]

  it('mute is one instruction', () => {
    expect(instructions(muteProgram())).toEqual(dropAll)
  })

  it('drop everything when nothing can match', () => {
    const base = { link: 'packet', family: 4, ports: [9191] } as const
    expect(instructions(captureProgram({ ...base, ports: [] }))).toEqual(dropAll)
    expect(instructions(captureProgram({ ...base, addresses: [] }))).toEqual(dropAll)
    expect(instructions(captureProgram({ ...base, addresses: [words('fd00::1')] }))).toEqual(dropAll)
    expect(instructions(captureProgram({ ...base, family: 6, remote: { address: words('10.0.0.1'), port: 1 } }))).toEqual(dropAll)
  })

  it('take words of either sign, as tuples or as Int32Array', () => {
    const [a, b, c, d] = words('200.1.2.3')
    const base = { link: 'raw', family: 4, ports: [1] } as const
    expect(d).toBeLessThan(0)
    const program = captureProgram({ ...base, addresses: [[a, b, c, d >>> 0]] })
    expect(captureProgram({ ...base, addresses: [Int32Array.of(a, b, c, d)] })).toEqual(program)
    expect(captureProgram({ ...base, addresses: [Int32Array.of(a, b, c, d), [a, b, c, d]] })).toEqual(program)
  })

  it('stay small enough to be replaced in place where net.core.optmem_max is 20 KiB', () => {
    // The worst set: no two ports are neighbours. The kernel charges 8 bytes for each converted instruction, old and new filter together.
    const program = captureProgram({ link: 'packet', family: 6, ports: Array.from({ length: MAX_PORTS }, (_, i) => i * 127) })
    expect(program.length).toBeLessThan(20_480 / 3)
    for (const small of [listenerProgram(), diallerProgram()]) expect(small.length).toBeLessThan(160)
  })

  it('refuse ports and addresses that are none', () => {
    const base = { link: 'raw', family: 4 } as const
    expect(() => captureProgram({ ...base, ports: [65_536] })).toThrow(RangeError)
    expect(() => captureProgram({ ...base, ports: [1.5] })).toThrow(RangeError)
    expect(() => captureProgram({ ...base, ports: { min: 2, max: 1 } })).toThrow(RangeError)
    expect(() => captureProgram({ ...base, ports: Array.from({ length: 513 }, (_, i) => i) })).toThrow(/513 ports, expected at most 512/)
    expect(() => captureProgram({ ...base, ports: [1], addresses: [new Int32Array(3)] })).toThrow(/four words/)
    expect(() => captureProgram({ ...base, ports: [1], remote: { address: new Int32Array(5), port: 1 } })).toThrow(/four words/)
  })

  it('refuse more addresses than a program can hold', () => {
    const addresses = Array.from({ length: 600 }, (_, i) => Int32Array.of(0x20010db8, 0, i, 1))
    expect(() => captureProgram({ link: 'packet', family: 6, ports: [1], addresses })).toThrow(/at most 4096 instructions/)
  })
})
