// A host that is a whole machine to what runs on it: with an /etc and a /run of its own, so that commands out of the documentation run as they
// stand there, configuration files, names and all, and nothing of it stays on this machine.
import { once } from 'node:events'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import type { Host } from '../support/hosts.ts'
import { Program } from './programs.ts'

const COMMAND = fileURLToPath(new URL('../../dist/bin/faketcp.js', import.meta.url))
/** Where `faketcp` is found, as if it were installed. */
const BIN = '/run/bin'

/** Runs until its input ends. /etc is a copy in memory; wg keeps its sockets in /run. */
const OWN_DIRECTORIES = `set -e
mount -t tmpfs none /mnt
cp -a /etc /mnt/etc
mount --bind /mnt/etc /etc
mount -t tmpfs none /run
mkdir ${BIN}
printf '#!/bin/sh\\nexec "%s" "%s" "$@"\\n' "$1" "$2" > ${BIN}/faketcp
chmod +x ${BIN}/faketcp
echo ready
exec cat`

export class Machine {
  readonly host: Host
  /** Of the process that has the directories. */
  readonly #pid: number

  private constructor(host: Host, pid: number) {
    this.host = host
    this.#pid = pid
  }

  /** @param names what its /etc/hosts adds: addresses by name */
  static async on(host: Host, names: Readonly<Record<string, string>> = {}): Promise<Machine> {
    const args = ['--mount', '--propagation', 'private', 'sh', '-c', OWN_DIRECTORIES, 'sh', process.execPath, COMMAND]
    const keeper = host.spawn('unshare', args, { stdio: ['pipe', 'pipe', 'inherit'] })
    const [said] = await Promise.race([once(keeper.stdout!, 'data'), once(keeper, 'close').then(() => [''])])
    if (String(said) !== 'ready\n') throw new Error(`${host.netns} could not be given directories of its own`)
    const machine = new Machine(host, keeper.pid!)
    for (const [name, address] of Object.entries(names)) await machine.run(`echo '${address} ${name}' >> /etc/hosts`)
    return machine
  }

  /** Runs a script that must succeed, and returns what it printed. */
  run(script: string): Promise<string> {
    const [command, ...args] = this.#inside(script)
    return this.host.output(command, args)
  }

  /** The same without a complaint when it fails. */
  async succeeds(script: string): Promise<boolean> {
    const [command, ...args] = this.#inside(script)
    return (await this.host.exec(command, args)).code === 0
  }

  /** Starts one command; resolves once it has printed what `ready` matches. */
  start(line: string, ready: RegExp): Promise<Program> {
    const [command, ...args] = this.#inside(`exec ${line}`)
    return Program.start(this.host, line.split(' ').slice(0, 3).join(' '), command, args, ready)
  }

  async write(path: string, text: string): Promise<void> {
    const [command, ...args] = this.#inside(`umask 077; mkdir -p "$(dirname '${path}')"; cat > '${path}'`)
    await this.host.output(command, args, text)
  }

  #inside(script: string): [string, ...string[]] {
    return ['nsenter', '--mount', '--target', String(this.#pid), 'bash', '-e', '-c', `PATH=${BIN}:$PATH\n${script}`]
  }
}
