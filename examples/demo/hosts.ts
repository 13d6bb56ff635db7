// Two hosts with one cable between them, as network namespaces joined by a veth pair. Used inside the demo's own mount namespace, where a tmpfs
// lies over /run: `ip netns` keeps its names there, so they are seen by nobody else and vanish with the demo.
import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'

const execute = promisify(execFile)

export const CLIENT = { name: 'client', address: '10.77.0.1' } as const
export const SERVER = { name: 'server', address: '10.77.0.2' } as const
/** The cable's end, on either host. */
export const INTERFACE = 'eth0'
/** For the demo's files; vanishes like the rest. */
export const SCRATCH = '/run'

export type Host = typeof CLIENT | typeof SERVER

export async function makeHosts(): Promise<void> {
  await execute('mount', ['-t', 'tmpfs', 'tmpfs', SCRATCH])
  for (const { name } of [CLIENT, SERVER]) await execute('ip', ['netns', 'add', name])
  const [end, otherEnd] = [CLIENT, SERVER].map(({ name }) => ['name', INTERFACE, 'netns', name])
  await execute('ip', ['link', 'add', ...end, 'type', 'veth', 'peer', ...otherEnd])
  for (const { name, address } of [CLIENT, SERVER]) {
    await execute('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
    await execute('ip', ['-n', name, 'link', 'set', INTERFACE, 'up'])
    await execute('ip', ['-n', name, 'address', 'add', `${address}/24`, 'dev', INTERFACE])
  }
  for (const { name } of [CLIENT, SERVER]) await linkIsUp(name)
}

/** A link carries packets some time after it was set up; the kernel tells only netlink subscribers when. */
async function linkIsUp(name: string): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    const { stdout } = await execute('ip', ['-n', name, '-o', 'link', 'show', INTERFACE])
    if (stdout.includes('state UP') && !stdout.includes('qdisc noop')) return
    await delay(10)
  }
  throw new Error(`The link of host ${name} did not come up`)
}

/** Starts a command on a host. Should the demo be killed, the kernel kills the command too (parent-death signal). */
export function spawnOn(host: Host, [command, ...args]: string[], options: SpawnOptions): ChildProcess {
  return spawn('ip', ['netns', 'exec', host.name, 'setpriv', '--pdeathsig', 'KILL', command, ...args], options)
}
