// A small assembler for classic BPF, the language of SO_ATTACH_FILTER. It knows instructions and labels, nothing of TCP or IP;
// the programs themselves are in programs.ts. Verified rules are those of bpf_check_classic() in the kernel's net/core/filter.c.

/** BPF_MAXINSNS: the kernel refuses longer programs with EINVAL. */
export const MAX_INSTRUCTIONS = 4096

/**
 * `k` of an absolute or indexed load (BPF_MSH, too) from here on is relative to the network header, wherever `skb->data` points:
 * bpf_skb_load_helper_convert_offset. Kernels before 6.16 that lack its stable backport (bpf_internal_load_pointer_neg_helper) see the linear
 * part of the packet only: there a driver that leaves the headers in page fragments, with GRO off, hides its packets from such a load.
 */
export const SKF_NET_OFF = -0x100000
/** Ancillary data: only absolute loads, the offsets are names rather than places. */
export const SKF_AD_OFF = -0x1000
/** How the packet reached the device: a PACKET_* constant of `<linux/if_packet.h>`. */
export const SKF_AD_PKTTYPE = 4

const SIZE = { word: 0x00, half: 0x08, byte: 0x10 } as const
const ALU = { add: 0x00, sub: 0x10, mul: 0x20, div: 0x30, or: 0x40, and: 0x50, lsh: 0x60, rsh: 0x70, mod: 0x90, xor: 0xa0 } as const
const TEST = { eq: 0x10, gt: 0x20, ge: 0x30, set: 0x40 } as const

const BPF_LD = 0x00
const BPF_LDX = 0x01
const BPF_ST = 0x02
const BPF_ALU = 0x04
const BPF_JMP = 0x05
const BPF_RET = 0x06
/** BPF_RET with BPF_A for its operand. */
const BPF_RET_A = 0x16
const BPF_MISC_TAX = 0x07
const BPF_ABS = 0x20
const BPF_IND = 0x40
const BPF_MEM = 0x60
const BPF_LEN = 0x80
const BPF_MSH = 0xa0
const BPF_X = 0x08

/** `jt` and `jf` are bytes; `k` of BPF_JA is a word. */
const MAX_CONDITIONAL_JUMP = 255
/** BPF_MEMWORDS. */
const SCRATCH_WORDS = 16

export type Size = keyof typeof SIZE
export type Alu = keyof typeof ALU
export type Test = keyof typeof TEST
/** A constant, or the index register. */
export type Operand = number | 'x'

type Item =
  | { is: 'plain'; code: number; k: number }
  | { is: 'goto'; to: string }
  /** `undefined` stands for the next instruction. A far arm goes through a BPF_JA directly behind the jump. */
  | { is: 'branch'; code: number; k: number; yes: string | undefined; no: string | undefined; yesIsFar: boolean; noIsFar: boolean }

const lengthOf = (item: Item): number => (item.is === 'branch' ? 1 + Number(item.yesIsFar) + Number(item.noIsFar) : 1)

/**
 * Collects instructions and turns them into an array of `struct sock_filter`. Jumps go forward only, to labels; a conditional jump further
 * than 255 instructions gets a BPF_JA of its own, so callers need not count.
 *
 * Throws `RangeError` for an operand out of range at once; `assemble()` throws `Error` for unknown labels, backward jumps, a program that
 * does not end in a return, and one too long.
 */
export class Assembler {
  readonly #items: Item[] = []
  /** Label to index into `#items`. */
  readonly #labels = new Map<string, number>()

  label(name: string): this {
    if (this.#labels.has(name)) throw new Error(`BPF label '${name}' is defined twice`)
    this.#labels.set(name, this.#items.length)
    return this
  }

  /** A = packet[offset], big endian. Out of the packet's bounds the program returns 0. */
  load(size: Size, offset: number): this {
    return this.#plain(BPF_LD | BPF_ABS | SIZE[size], offset)
  }

  /** A = packet[X + offset]. */
  loadIndexed(size: Size, offset: number): this {
    return this.#plain(BPF_LD | BPF_IND | SIZE[size], offset)
  }

  /** A = length of the packet, from `skb->data` on. */
  loadLength(): this {
    return this.#plain(BPF_LD | BPF_LEN | SIZE.word, 0)
  }

  /** A = scratch[index]. */
  loadScratch(index: number): this {
    return this.#plain(BPF_LD | BPF_MEM, scratchIndex(index))
  }

  /** scratch[index] = A. */
  store(index: number): this {
    return this.#plain(BPF_ST, scratchIndex(index))
  }

  /** X = value. */
  setIndex(value: number): this {
    return this.#plain(BPF_LDX, value)
  }

  /** X = 4 * (packet[offset] & 15): the length of an IPv4 header, read from its first byte. */
  setIndexHeaderLength(offset: number): this {
    return this.#plain(BPF_LDX | BPF_MSH | SIZE.byte, offset)
  }

  /** X = A. */
  copyToIndex(): this {
    return this.#plain(BPF_MISC_TAX, 0)
  }

  /** A = A op operand, modulo 2^32. */
  alu(op: Alu, operand: Operand): this {
    if ((op === 'div' || op === 'mod') && operand === 0) throw new RangeError(`BPF ${op} by the constant 0`)
    if ((op === 'lsh' || op === 'rsh') && typeof operand === 'number' && !(operand >= 0 && operand < 32)) {
      throw new RangeError(`BPF ${op} by ${operand}, expected 0 to 31`)
    }
    return operand === 'x' ? this.#plain(BPF_ALU | ALU[op] | BPF_X, 0) : this.#plain(BPF_ALU | ALU[op], operand)
  }

  /** Unsigned comparison of A (`set`: any common bit). An arm left out continues with the next instruction. */
  jump(test: Test, operand: Operand, arms: { yes?: string; no?: string }): this {
    const source = operand === 'x' ? BPF_X : 0
    const k = operand === 'x' ? 0 : word(operand)
    const code = BPF_JMP | TEST[test] | source
    this.#items.push({ is: 'branch', code, k, yes: arms.yes, no: arms.no, yesIsFar: false, noIsFar: false })
    return this
  }

  goto(to: string): this {
    this.#items.push({ is: 'goto', to })
    return this
  }

  /** Keeps up to `bytes` of the packet; 0 drops it. */
  ret(bytes: number): this {
    return this.#plain(BPF_RET, bytes)
  }

  /** Returns A. */
  retAccumulator(): this {
    return this.#plain(BPF_RET_A, 0)
  }

  /** The program as `struct sock_filter[]` in host byte order: u16 code, u8 jt, u8 jf, u32 k. */
  assemble(): Uint8Array {
    const last = this.#items.at(-1)
    if (last?.is !== 'plain' || (last.code !== BPF_RET && last.code !== BPF_RET_A)) throw new Error('a BPF program must end in a return')
    const positions = this.#layOut()
    const length = positions[this.#items.length]
    if (length > MAX_INSTRUCTIONS) throw new Error(`a BPF program has at most ${MAX_INSTRUCTIONS} instructions, this one ${length}`)

    const bytes = new Uint8Array(length * 8)
    const halves = new Uint16Array(bytes.buffer)
    const words = new Uint32Array(bytes.buffer)
    const write = (at: number, code: number, jt: number, jf: number, k: number): void => {
      halves[at * 4] = code
      bytes[at * 8 + 2] = jt
      bytes[at * 8 + 3] = jf
      words[at * 2 + 1] = k
    }
    for (const [index, item] of this.#items.entries()) {
      const at = positions[index]
      const target = (name: string): number => positions[this.#find(name, index)]
      if (item.is === 'plain') write(at, item.code, 0, 0, item.k)
      else if (item.is === 'goto') write(at, BPF_JMP, 0, 0, target(item.to) - at - 1)
      else {
        let trampoline = at + 1
        const arm = (to: string | undefined, far: boolean): number => {
          if (to === undefined) return lengthOf(item) - 1
          if (!far) return target(to) - at - 1
          write(trampoline, BPF_JMP, 0, 0, target(to) - trampoline - 1)
          return trampoline++ - at - 1
        }
        const jt = arm(item.yes, item.yesIsFar)
        const jf = arm(item.no, item.noIsFar)
        write(at, item.code, jt, jf, item.k)
      }
    }
    return bytes
  }

  /** Positions of all items and, last, of the end. Marks far arms until nothing changes: an arm never becomes near again, so this ends. */
  #layOut(): number[] {
    for (;;) {
      const positions: number[] = []
      let at = 0
      for (const item of this.#items) {
        positions.push(at)
        at += lengthOf(item)
      }
      positions.push(at)
      let changed = false
      for (const [index, item] of this.#items.entries()) {
        if (item.is !== 'branch') continue
        const isFar = (to: string | undefined): boolean =>
          to !== undefined && positions[this.#find(to, index)] - positions[index] - 1 > MAX_CONDITIONAL_JUMP
        const yesIsFar = item.yesIsFar || isFar(item.yes)
        const noIsFar = item.noIsFar || isFar(item.no)
        changed ||= yesIsFar !== item.yesIsFar || noIsFar !== item.noIsFar
        item.yesIsFar = yesIsFar
        item.noIsFar = noIsFar
      }
      if (!changed) return positions
    }
  }

  /** Index of the item that a jump at `from` reaches by `name`. */
  #find(name: string, from: number): number {
    const index = this.#labels.get(name)
    if (index === undefined) throw new Error(`BPF label '${name}' is not defined`)
    if (index <= from) throw new Error(`BPF label '${name}' lies behind a jump to it; classic BPF jumps forward only`)
    if (index === this.#items.length) throw new Error(`BPF label '${name}' marks no instruction`)
    return index
  }

  #plain(code: number, k: number): this {
    this.#items.push({ is: 'plain', code, k: word(k) })
    return this
  }
}

/** Both readings of a word are taken, signed (offsets like SKF_NET_OFF) and unsigned. */
function word(value: number): number {
  if (!Number.isInteger(value) || value < -0x80000000 || value > 0xffffffff) {
    throw new RangeError(`BPF operand ${value}, expected an integer of 32 bits`)
  }
  return value >>> 0
}

function scratchIndex(index: number): number {
  if (!Number.isInteger(index) || index < 0 || index >= SCRATCH_WORDS) {
    throw new RangeError(`BPF scratch word ${index}, expected 0 to ${SCRATCH_WORDS - 1}`)
  }
  return index
}
