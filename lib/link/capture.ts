// How packets arrive: the part of a link that captures, by AF_PACKET or by IP raw sockets, with the memory that it reads into.
import type { Binding, NativeCapture } from '../native/binding.ts'
import { CAPTURE_COUNTERS, D_WORDS } from '../native/layout.ts'
import { type CaptureProgramOptions, captureProgram } from '../wire/programs.ts'

export type CaptureMode = 'packet' | 'raw'

/** Which packets are wanted; what else the program needs is known here. */
export type CaptureFilter = Pick<CaptureProgramOptions, 'ports' | 'addresses' | 'shard'>

/** Packets for one recvmmsg. */
const SLOTS = 64
/** The longest packet (65 535) with link and virtio headers; a multiple of 64, so that slots do not share a cache line. */
const SLOT_BYTES = 66048
/** A burst has to wait here while JavaScript is busy. The kernel grants less without CAP_NET_ADMIN (net.core.rmem_max). */
export const RECEIVE_BUFFER_BYTES = 32 << 20

/** One capture socket. The slab and the descriptors are overwritten by the next batch. */
export class Capture {
  readonly mode: CaptureMode
  readonly family: 4 | 6
  readonly slab = new Uint8Array(SLOTS * SLOT_BYTES)
  readonly descriptors = new Int32Array(SLOTS * D_WORDS)
  /** By REJECT_* and COUNT_* of layout.ts. */
  readonly counters = new Float64Array(CAPTURE_COUNTERS)
  readonly #native: NativeCapture
  /** What the kernel granted. */
  readonly receiveBufferBytes: number
  /** As last read by `sample`. */
  kernelDrops = 0

  constructor(
    binding: Binding,
    mode: CaptureMode,
    family: 4 | 6,
    filter: CaptureFilter,
    onBatch: (capture: Capture, count: number) => void,
  ) {
    this.mode = mode
    this.family = family
    this.#native = new binding.Capture({
      mode,
      family,
      program: captureProgram({ link: mode, family, ...filter }),
      receiveBufferBytes: RECEIVE_BUFFER_BYTES,
      slab: this.slab,
      slots: SLOTS,
      slotBytes: SLOT_BYTES,
      descriptors: this.descriptors,
      counters: this.counters,
      onBatch: (count) => onBatch(this, count),
    })
    this.receiveBufferBytes = this.#native.receiveBufferBytes
  }

  /** Whether GRO-merged packets arrive with their segment size, so that peers may send trains. */
  get splitsTrains(): boolean {
    return this.mode === 'packet'
  }

  setFilter(filter: CaptureFilter): void {
    this.#native.setFilter(captureProgram({ link: this.mode, family: this.family, ...filter }))
  }

  /** Handles at once what has been captured already. */
  drain(): void {
    this.#native.drain()
  }

  /** Asks the kernel for its drop counter: one system call. */
  sample(): void {
    this.kernelDrops = this.#native.kernelDrops()
  }

  ref(): void {
    this.#native.ref()
  }

  unref(): void {
    this.#native.unref()
  }

  close(): void {
    this.#native.close()
  }
}

/** Opens one: as asked, or with 'auto' by AF_PACKET where the kernel has it, else by raw socket. */
export function openCapture(
  binding: Binding,
  asked: CaptureMode | 'auto',
  family: 4 | 6,
  filter: CaptureFilter,
  onBatch: (capture: Capture, count: number) => void,
): Capture {
  if (asked !== 'auto') return new Capture(binding, asked, family, filter, onBatch)
  try {
    return new Capture(binding, 'packet', family, filter, onBatch)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'EAFNOSUPPORT' && code !== 'EPROTONOSUPPORT' && code !== 'EINVAL' && code !== 'ENOPROTOOPT') throw error
    return new Capture(binding, 'raw', family, filter, onBatch)
  }
}
