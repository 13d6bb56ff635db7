// Foreign tunnels: what a description says (README.md tells how to write one), and its two programs in two hosts. It measures nothing.
import { readdirSync, readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isCommand, searchPath } from '../scripts/preflight.mjs'
import { Program } from '../test/interop/programs.ts'
import type { Host } from '../test/support/hosts.ts'
import type { Endpoint } from './pair.ts'
import type { Tool, ToolEnd } from './specs.ts'

const SHIPPED = fileURLToPath(new URL('tools/', import.meta.url))
const PLACEHOLDERS = ['serverAddress', 'serverPort', 'targetAddress', 'targetPort', 'entranceAddress', 'entrancePort', 'interface'] as const
type Values = Record<(typeof PLACEHOLDERS)[number], string>

/** Where the server listens for its client, and where the client listens for the load. Nothing else runs in these hosts. */
const SERVER_PORT = 4500
const ENTRANCE: Endpoint = { address: '127.0.0.1', port: 5300 }

/**
 * @param name a file, or the name of a description that comes with the bench
 * @throws TypeError that names the file and what is wrong in it
 */
export function readTool(name: string): Tool {
  const file = name.includes('/') || name.endsWith('.json') ? name : `${SHIPPED}${name}.json`
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    const shipped = readdirSync(SHIPPED).map((one) => basename(one, '.json'))
    throw new TypeError(`--tool takes the name of a JSON file, or one of ${shipped.join(', ')}; cannot read '${name}'`, { cause })
  }
  try {
    return toolOf(JSON.parse(text))
  } catch (error) {
    throw new TypeError(`${file}: ${error instanceof Error ? error.message : error}`)
  }
}

/** Commands of the tool that are not on the PATH. */
export function missingCommands({ server, client }: Tool): string[] {
  const wanted = [server, client].flatMap(({ setup, command }) => [...setup, command].map(([first]) => first))
  return [...new Set(wanted)].filter((command) => !isCommand(command, searchPath()))
}

/** Both programs of a tunnel from `a` to `target` in `b`. */
export class Tunnel implements AsyncDisposable {
  /** Where the load goes in, in `a`. */
  readonly entrance = ENTRANCE
  readonly #programs: Program[] = []

  private constructor() {}

  static async open({ name, server, client }: Tool, a: Host, b: Host, target: Endpoint): Promise<Tunnel> {
    const tunnel = new Tunnel()
    try {
      for (const [role, end, host] of [['server', server, b] as const, ['client', client, a] as const]) {
        const filled = (words: readonly string[]) => words.map((word) => fill(word, valuesFor(host, b, target)))
        for (const words of end.setup) {
          const [command, ...args] = filled(words)
          await host.output(command, args)
        }
        const [command, ...args] = filled(end.command)
        // Without a pattern the first load has to find out; the empty one matches before anything is printed.
        tunnel.#programs.push(await Program.start(host, `${name} ${role}`, command, args, end.ready ?? /(?:)/))
      }
      return tunnel
    } catch (error) {
      await tunnel[Symbol.asyncDispose]()
      throw error
    }
  }

  /** What the programs have printed, shortened, and which of them has ended. */
  get outputs(): string {
    return this.#programs.map(({ name, output, ended }) => `${name}${ended ? ' (ended)' : ''}: ${output.trim().slice(-500)}`).join('\n')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.end()))
  }
}

function valuesFor(host: Host, b: Host, target: Endpoint): Values {
  return {
    serverAddress: b.address4,
    serverPort: String(SERVER_PORT),
    targetAddress: target.address,
    targetPort: String(target.port),
    entranceAddress: ENTRANCE.address,
    entrancePort: String(ENTRANCE.port),
    interface: host.iface,
  }
}

function fill(word: string, values: Partial<Values>): string {
  return word.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
    const value = (values as Record<string, string | undefined>)[name]
    if (value === undefined) throw new TypeError(`no placeholder {${name}}; there are ${PLACEHOLDERS.map((one) => `{${one}}`).join(' ')}`)
    return value
  })
}

// ---- from JSON

function toolOf(value: unknown): Tool {
  const tool = object('the description', value, ['name', 'carries', 'maxFlows', 'maxMessageSize', 'server', 'client'])
  const { name, carries, maxFlows = 100, maxMessageSize = 1400 } = tool
  if (typeof name !== 'string' || name === '') throw new TypeError(`'name' is the name in the tables; got ${JSON.stringify(name)}`)
  if (carries !== 'udp' && carries !== 'tcp') throw new TypeError(`'carries' is 'udp' or 'tcp'; got ${JSON.stringify(carries)}`)
  const made: Tool = {
    name,
    carries,
    maxFlows: positive('maxFlows', maxFlows),
    maxMessageSize: positive('maxMessageSize', maxMessageSize),
    server: endOf('server', tool.server),
    client: endOf('client', tool.client),
  }
  // Datagrams are repeated until one comes through; a TCP connection is made once.
  for (const role of ['server', 'client'] as const) {
    if (carries === 'tcp' && made[role].ready === undefined) throw new TypeError(`'${role}.ready' is needed of what carries TCP`)
  }
  return made
}

function endOf(role: string, value: unknown): ToolEnd {
  const { setup = [], command, ready } = object(`'${role}'`, value, ['setup', 'command', 'ready'])
  if (!Array.isArray(setup)) throw new TypeError(`'${role}.setup' is an array of commands; got ${JSON.stringify(setup)}`)
  if (ready !== undefined && typeof ready !== 'string')
    throw new TypeError(`'${role}.ready' is a regular expression; got ${JSON.stringify(ready)}`)
  return {
    setup: setup.map((one, i) => words(`${role}.setup[${i}]`, one)),
    command: words(`${role}.command`, command),
    ...(ready === undefined ? {} : { ready: new RegExp(ready) }),
  }
}

function words(name: string, value: unknown): string[] {
  if (!Array.isArray(value) || value.length === 0 || !value.every((word) => typeof word === 'string')) {
    throw new TypeError(`'${name}' is an array of words, the command first; got ${JSON.stringify(value)}`)
  }
  const known = Object.fromEntries(PLACEHOLDERS.map((placeholder) => [placeholder, placeholder]))
  for (const word of value) {
    try {
      fill(word, known)
    } catch (error) {
      throw new TypeError(`'${name}' has ${error instanceof Error ? error.message : error}`)
    }
  }
  return value
}

function object(name: string, value: unknown, keys: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new TypeError(`${name} is an object; got ${JSON.stringify(value)}`)
  const unknown = Object.keys(value).filter((key) => !keys.includes(key))
  if (unknown.length > 0) throw new TypeError(`${name} has ${keys.join(', ')}; got '${unknown.join("', '")}'`)
  return value as Record<string, unknown>
}

function positive(name: string, value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1) {
    throw new TypeError(`'${name}' is a positive integer; got ${JSON.stringify(value)}`)
  }
  return value
}
