// Examples as a user starts them: by tsx, on a host.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import type { Host, Interface, Output } from '../support/hosts.ts'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url))
export const TSX = `${ROOT}/node_modules/.bin/tsx`

/** Runs an example to its end. */
export function runExample(host: Host, name: string, ...args: string[]): Promise<Output> {
  return host.exec(TSX, [`${ROOT}/examples/${name}`, ...args])
}

/**
 * Starts an example that runs until it is stopped, and waits until it says that it listens. By Node with tsx's loader: the `tsx` command kills what has
 * not confirmed a signal within 30 ms, which a busy machine does not always manage.
 */
export async function startExample(host: Host, name: string, ...args: string[]): Promise<Running> {
  const running = new Running(
    host.spawn(process.execPath, ['--import', 'tsx', `examples/${name}`, ...args], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] }),
  )
  await running.says(/^Listening on /m)
  return running
}

export class Running {
  output = ''
  readonly #child: ChildProcess
  readonly #closed: Promise<unknown[]>

  constructor(child: ChildProcess) {
    this.#child = child
    this.#closed = once(child, 'close')
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text
        child.emit('output')
      })
    }
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** Resolves when the output matches. */
  async says(pattern: RegExp): Promise<void> {
    let ended = false
    void this.#closed.then(() => {
      ended = true
    })
    while (!pattern.test(this.output)) {
      if (ended) throw new Error(`Ended without saying ${pattern}: ${this.output}`)
      await Promise.race([once(this.#child, 'output'), this.#closed])
    }
  }

  /** Ctrl-C; resolves with the exit code. */
  async interrupt(): Promise<number | null> {
    return await this.stop('SIGINT')
  }

  /** Sends a signal; resolves with the exit code. */
  async stop(signal: NodeJS.Signals): Promise<number | null> {
    this.#child.kill(signal)
    return await this.ended()
  }

  async ended(): Promise<number | null> {
    const [code] = await this.#closed
    return code as number | null
  }
}

/**
 * Drops arriving packets that match an nftables expression, and counts them in `nft list ruleset`. At the ingress of the interface, as the network
 * would: what a host's INPUT chain drops has been captured before.
 */
export async function dropArriving({ host, name }: Interface, match: string): Promise<void> {
  const chain = `chain in { type filter hook ingress device ${name} priority 0; ${match} counter drop; }`
  await host.output('nft', ['-f', '-'], `table netdev lossy { ${chain}; }\n`)
}
