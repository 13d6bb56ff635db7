// An agent: a Node process in a host's network namespace that runs functions of the test with the BUILT library (dist), so that tests prove what
// ships. The other half is agent-main.mjs.
import { type ChildProcess, spawn } from 'node:child_process'
import { delimiter } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import type * as faketcp from '../../lib/index.ts'

/** What a function that runs in an agent gets as its first argument. */
export interface AgentContext {
  /** The library, from dist. */
  readonly faketcp: typeof faketcp
  /** Lives as long as the agent: what one run leaves here, the next finds. */
  // biome-ignore lint/suspicious/noExplicitAny: it holds whatever a test puts there, and tests would cast each access
  readonly state: Record<string, any>
  /** `import()` of a Node module or a package. */
  import<T = unknown>(specifier: string): Promise<T>
  /** Sends a value to the test, which takes it by `agent.next(name)`. */
  emit(name: string, value?: unknown): void
}

export interface AgentOptions {
  /** `none`: the process keeps its user but holds no capability, as an ordinary user's would. `net_raw`: that one only. */
  readonly capabilities?: 'all' | 'none' | 'net_raw'
  /** Further arguments for Node, such as `--expose-gc`. */
  readonly nodeArgs?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** Which `dial`, `listen` and `listeners` the library in the context has. Default 'faketcp'. */
  readonly transport?: Transport | undefined
}

export type Transport = 'faketcp' | 'udp'

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** An error of the agent's process: name, message, code, errno, syscall, address, port, cause and stack are those it had there. */
export interface RemoteError extends Error {
  code?: string
  errno?: number
  syscall?: string
  address?: string
  port?: number
}

/** The messages between the halves; agent-main.mjs speaks the same. */
type FromAgent =
  | { is: 'ready' }
  | { is: 'result'; id: number; value: unknown }
  | { is: 'failure'; id: number; error: RemoteError }
  | { is: 'stray'; error: RemoteError }
  | { is: 'event'; name: string; value: unknown }

interface Settle<T> {
  resolve(value: T): void
  reject(error: unknown): void
}

const MAIN = fileURLToPath(new URL('agent-main.mjs', import.meta.url))
const CLOSE_MS = 5000

export class Agent implements AsyncDisposable {
  readonly pid: number
  /** Resolves when the process has ended. */
  readonly exit: Promise<Exit>
  /** Errors that nobody caught in the agent while no run was pending. `close()` throws them unless the test has taken them out (`splice`). */
  readonly errors: Error[] = []
  /** What the agent wrote to stdout and stderr. */
  output = ''

  readonly #child: ChildProcess
  readonly #runs = new Map<number, Settle<unknown>>()
  readonly #events = new Map<string, unknown[]>()
  readonly #waiting = new Map<string, Settle<unknown>[]>()
  #lastId = 0
  #ended: Error | undefined

  private constructor(child: ChildProcess, ready: Settle<void>) {
    this.#child = child
    this.pid = child.pid ?? 0
    this.exit = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })))
    child.on('message', (message: FromAgent) => {
      if (message.is === 'ready') ready.resolve()
      else this.#receive(message)
    })
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        this.output += text
      })
    }
    // 'close' comes after the last output, which says why it ended.
    child.once('close', (code, signal) => {
      this.#ended = new Error(
        `The agent ended (${signal ?? `exit code ${code}`})${this.output === '' ? '' : `; its output:\n${this.output}`}`,
      )
      ready.reject(this.#ended)
      this.#failRuns(this.#ended)
      for (const waiters of this.#waiting.values()) for (const waiter of waiters) waiter.reject(this.#ended)
      this.#waiting.clear()
    })
    child.once('error', (error) => ready.reject(error))
  }

  /** Use `host.agent()`, which also ends the agent with its host. */
  static async start(
    host: { readonly netns: string },
    { capabilities = 'all', nodeArgs = [], env = {}, transport = 'faketcp' }: AgentOptions,
  ): Promise<Agent> {
    const keep = capabilities === 'net_raw' ? ',+net_raw' : ''
    const drop = capabilities === 'all' ? [] : ['setpriv', '--inh-caps=-all', `--bounding-set=-all${keep}`]
    const command = ['netns', 'exec', host.netns, ...drop, process.execPath, '--enable-source-maps', ...nodeArgs, MAIN]
    if (transport === 'udp') command.push('udp')
    const path = [process.env.PATH, '/usr/sbin', '/sbin'].join(delimiter)
    return new Promise((resolve, reject) => {
      const child = spawn('ip', command, {
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
        serialization: 'advanced',
        env: { ...process.env, PATH: path, ...env },
      })
      const agent = new Agent(child, { resolve: () => resolve(agent), reject })
    })
  }

  /**
   * Runs a function in the agent and resolves with what it returns (structured clone).
   *
   * The function travels as source text, so it sees nothing but its arguments and Node's globals: no variable of the test, no import of its file
   * (use `ctx.import`), no `using` (the transpiler turns it into an import).
   */
  run<A, R>(fn: (ctx: AgentContext, arg: A) => R, arg: A): Promise<Awaited<R>>
  run<R>(fn: (ctx: AgentContext) => R): Promise<Awaited<R>>
  run(fn: (ctx: AgentContext, arg: unknown) => unknown, arg?: unknown): Promise<unknown> {
    const source = fn.toString()
    if (/__vite_ssr_import_\d+__/.test(source)) {
      return Promise.reject(new TypeError(`A function for an agent must not use its file's imports, nor \`using\`; got:\n${source}`))
    }
    if (this.#ended) return Promise.reject(this.#ended)
    const id = ++this.#lastId
    return new Promise((resolve, reject) => {
      this.#runs.set(id, { resolve, reject })
      this.#child.send({ is: 'run', id, source, arg }, (error) => {
        if (error && this.#runs.delete(id)) reject(error)
      })
    })
  }

  /** The next value the agent has emitted under this name; values wait in order until they are taken. */
  async next<T = unknown>(name: string, { timeoutMs = 10_000 } = {}): Promise<T> {
    const queued = this.#events.get(name)
    if (queued && queued.length > 0) return queued.shift() as T
    if (this.#ended) throw this.#ended
    return new Promise<T>((resolve, reject) => {
      const waiters = this.#waiting.get(name) ?? []
      this.#waiting.set(name, waiters)
      const timer = setTimeout(() => {
        waiters.splice(waiters.indexOf(waiter), 1)
        reject(new Error(`The agent emitted no '${name}' within ${timeoutMs} ms`))
      }, timeoutMs)
      const waiter: Settle<unknown> = {
        resolve(value) {
          clearTimeout(timer)
          resolve(value as T)
        },
        reject(error) {
          clearTimeout(timer)
          reject(error)
        },
      }
      waiters.push(waiter)
    })
  }

  /** Sends a signal; `exit` tells when it has ended. */
  kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<Exit> {
    this.#child.kill(signal)
    return this.exit
  }

  /** Ends the process (`process.exit` in the agent; SIGKILL if that takes too long). Throws errors that no test took. Idempotent. */
  async close(): Promise<void> {
    if (this.#child.connected) this.#child.send({ is: 'close' }, () => {})
    const timer = setTimeout(() => {
      this.errors.push(new Error(`The agent did not end within ${CLOSE_MS} ms of being asked to`))
      this.#child.kill('SIGKILL')
    }, CLOSE_MS)
    await this.exit
    clearTimeout(timer)
    const errors = this.errors.splice(0)
    if (errors.length === 1) throw errors[0]
    if (errors.length > 1) throw new AggregateError(errors, 'The agent had errors that nobody caught')
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #receive(message: Exclude<FromAgent, { is: 'ready' }>): void {
    switch (message.is) {
      case 'result':
        this.#runs.get(message.id)?.resolve(message.value)
        this.#runs.delete(message.id)
        break
      case 'failure':
        this.#runs.get(message.id)?.reject(revive(message.error))
        this.#runs.delete(message.id)
        break
      case 'stray':
        if (this.#runs.size > 0) this.#failRuns(revive(message.error))
        else this.errors.push(revive(message.error))
        break
      case 'event': {
        const waiter = this.#waiting.get(message.name)?.shift()
        if (waiter) waiter.resolve(message.value)
        else this.#events.set(message.name, [...(this.#events.get(message.name) ?? []), message.value])
        break
      }
    }
  }

  #failRuns(error: Error): void {
    for (const run of this.#runs.values()) run.reject(error)
    this.#runs.clear()
  }
}

/** A structured clone of an Error loses its name and codes, so errors travel as plain objects. */
function revive(plain: RemoteError): Error {
  const { message, cause, ...rest } = plain
  const options = cause === undefined ? undefined : { cause: isErrorLike(cause) ? revive(cause) : cause }
  return Object.assign(new Error(message, options), rest)
}

function isErrorLike(value: unknown): value is RemoteError {
  return typeof value === 'object' && value !== null && 'message' in value && 'stack' in value
}
