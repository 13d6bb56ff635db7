// Whether both ends of a flow have the same key and frame their messages in the same way, as their hellos tell. Where they are to, nothing else can begin before.
import { formatAddress, formatHostPort } from '../address.ts'
import { FakeTcpError } from '../errors.ts'
import { S_KEY } from '../flow/layout.ts'
import { KEY_PORTS, KEY_REMOTE } from '../native/layout.ts'
import { COUNTED_FRAMES, type Role } from '../wire/hello.ts'
import type { FlowOptions, FramingMode } from './flow-options.ts'
import type { Slot } from './slot.ts'

/** How long a listener waits for a hello, whose repeats come up to 6.2 s after the first. */
const PATIENCE_MS = 10_000

const NEVER = Number.POSITIVE_INFINITY

export class Agreement {
  readonly #slot: Slot
  readonly #framing: FramingMode
  readonly #keyed: boolean
  #onSettled: ((error: Error | undefined) => void) | undefined
  /** When a listener gives up; Infinity where it does not wait. */
  dueMs = NEVER
  /** There is none: the flow is to end, once our own hello has told the peer why. */
  refusal: FakeTcpError | undefined

  /** @param onSettled told once whether a flow that waits for the peer's hello may begin; undefined where it does not wait */
  constructor(slot: Slot, options: Pick<FlowOptions, 'framing' | 'helloKey'>, onSettled: ((error: Error | undefined) => void) | undefined) {
    this.#slot = slot
    this.#framing = options.framing
    this.#keyed = options.helloKey !== undefined
    this.#onSettled = onSettled
  }

  /** Our part of the hello's capabilities. */
  get capability(): number {
    return this.#framing === 'counted' ? COUNTED_FRAMES : 0
  }

  /** True while the flow waits for the peer's hello. */
  get pending(): boolean {
    return this.#onSettled !== undefined
  }

  /** The flow is open. A dialler's patience is that of its hello; of a stranger to the key others take care. */
  open(role: Role, now: number): void {
    if (this.pending && role === 'listener' && !this.#keyed) this.dueMs = now + PATIENCE_MS
  }

  /** The peer's hello has come. @returns false when it wants something else; `refusal` says it */
  met(capabilities: number): boolean {
    const theirs = (capabilities & COUNTED_FRAMES) !== 0 ? 'counted' : 'none'
    if (theirs === this.#framing) return true
    this.refusal = this.#framingError(`its hello says '${theirs}'`)
    return false
  }

  /** Why the flow is over when no hello has come. */
  missing(): FakeTcpError {
    if (!this.#keyed) return this.#framingError('no hello came')
    const why = 'it has another helloKey or none, or knows no hello'
    return new FakeTcpError('ERR_FAKETCP_HELLO', `No hello of this helloKey came from ${this.#peer}: ${why}`)
  }

  /** Messages may flow, or with an error the flow has ended before they could. Does nothing where that is clear already. */
  settle(error?: Error): void {
    const onSettled = this.#onSettled
    this.forget()
    onSettled?.(error)
  }

  /** Nobody wants to know any more. */
  forget(): void {
    this.#onSettled = undefined
    this.dueMs = NEVER
  }

  #framingError(came: string): FakeTcpError {
    return new FakeTcpError('ERR_FAKETCP_FRAMING', `Framing '${this.#framing}' was expected of ${this.#peer}, but ${came}`)
  }

  get #peer(): string {
    const { words, base } = this.#slot
    return formatHostPort(formatAddress(words, base + S_KEY + KEY_REMOTE), words[base + S_KEY + KEY_PORTS] >>> 16)
  }
}
