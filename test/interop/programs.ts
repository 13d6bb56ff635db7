// Foreign programs in hosts: started, awaited by what they print, ended by their pid; what they printed explains a failure.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import type { Host } from '../support/hosts.ts'

const READY_MS = 10_000
const END_MS = 15_000
const RELAY = fileURLToPath(new URL('../support/udp-relay-main.ts', import.meta.url))

export class Program implements AsyncDisposable {
  readonly name: string
  /** stdout and stderr. */
  output = ''
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown>

  private constructor(name: string, child: ChildProcess) {
    this.name = name
    this.#child = child
    this.#closed = once(child, 'close')
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text
      })
    }
  }

  /** Resolves once it has printed what `ready` matches. */
  static async start(host: Host, name: string, command: string, args: readonly string[], ready: RegExp): Promise<Program> {
    const program = new Program(name, host.spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }))
    try {
      await program.prints(ready)
      return program
    } catch (error) {
      await program.end('SIGKILL')
      throw error
    }
  }

  get ended(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null
  }

  async prints(pattern: RegExp): Promise<RegExpExecArray> {
    const late = Date.now() + READY_MS
    for (;;) {
      const found = pattern.exec(this.output)
      if (found) return found
      if (this.ended) throw new Error(`${this.name} ended without printing ${pattern}:\n${this.output}`)
      await this.#more(late - Date.now())
      if (Date.now() >= late) throw new Error(`${this.name} has not printed ${pattern} for ${READY_MS} ms:\n${this.output}`)
    }
  }

  /** Until it has printed something, has ended, or time is up; nothing is left listening. */
  async #more(timeoutMs: number): Promise<void> {
    const over = new AbortController()
    const late = AbortSignal.any([over.signal, AbortSignal.timeout(Math.max(0, timeoutMs))])
    const { stdout, stderr } = this.#child
    const heard = [stdout, stderr].map((stream) => once(stream!, 'data', { signal: late }).catch(() => {}))
    await Promise.race([...heard, this.#closed])
    over.abort()
  }

  /** Ends it and tells its exit code; a program that does not heed the signal is killed (null). Idempotent. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (!this.ended) this.#child.kill(signal)
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), END_MS)
    await this.#closed
    clearTimeout(timer)
    return this.#child.exitCode
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end()
  }
}

/** The relay of test/support/udp-relay.ts in a process of its own. */
export function startRelay(host: Host, direction: 'to-udp' | 'from-udp', from: string, to: string): Promise<Program> {
  return Program.start(host, 'relay', process.execPath, ['--import', 'tsx', RELAY, direction, from, to], /^relaying /m)
}
