// The addon in processes and threads of its own: how environments end with everything open, what callbacks throw, garbage collection.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { addonPaths } from '../../lib/native/loader.ts'

const addon = addonPaths().find((path) => existsSync(path))

async function run(script: string, { args = [], nodeArgs = [], limit }: { args?: string[]; nodeArgs?: string[]; limit?: number } = {}) {
  const file = fileURLToPath(new URL(`fixtures/${script}.mjs`, import.meta.url))
  const command = [process.execPath, ...nodeArgs, file, ...args]
  const [program, ...rest] = limit === undefined ? command : ['sh', '-c', `ulimit -n ${limit}; exec "$@"`, 'sh', ...command]
  const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, FAKETCP_ADDON: addon } })
  const [[code, signal], stdout, stderr] = await Promise.all([once(child, 'close'), text(child.stdout), text(child.stderr)])
  return { code, signal, stdout, stderr }
}

const clean = (stdout: string) => ({ code: 0, signal: null, stdout, stderr: '' })

describe('a process with everything open', () => {
  it('ends by process.exit', async () => {
    expect(await run('exit', { args: ['exit'] })).toEqual(clean('open\n'))
  })

  it('ends on its own when all is unreferenced', async () => {
    expect(await run('exit', { args: ['unref'] })).toEqual(clean('open\n'))
  })

  it('stays when it is referenced again', async () => {
    expect(await run('exit', { args: ['ref'] })).toEqual(clean('open\nstill alive\n'))
  })

  it('ends on its own when captures and listener are closed; carriers do not keep it', async () => {
    expect(await run('exit', { args: ['close'] })).toEqual(clean('open\n'))
  })
})

describe.each(['process', 'worker'])('carriers that nobody ended when their %s ends', (environment) => {
  const FIN_WAIT_1 = '04'
  it.each([
    ['fin', [FIN_WAIT_1, FIN_WAIT_1]],
    ['silent', []],
  ])("by exit mode '%s'", async (how, states) => {
    const { stdout, ...end } = await run('carrier-exit', { args: [environment, how] })
    expect(end).toEqual({ code: 0, signal: null, stderr: '' })
    const ports = stdout
      .trim()
      .split(' ')
      .map((port) => `:${Number(port).toString(16).toUpperCase().padStart(4, '0')}`)
    const lines = readFileSync('/proc/net/tcp', 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
    expect(
      lines
        .filter(
          ([, local, remote]) =>
            (local?.endsWith(ports[0]) && remote?.endsWith(ports[1])) || (local?.endsWith(ports[1]) && remote?.endsWith(ports[0])),
        )
        .map(([, , , state]) => state),
    ).toEqual(states)
  })
})

it('works in several threads at once, loaded twice in each, and leaves with each however it ends', async () => {
  expect(await run('threads')).toEqual(clean('done\n'))
})

it('hands what callbacks throw to uncaughtException, in the async context of the object, ticks and microtasks run', async () => {
  const { stdout, ...end } = await run('throwing')
  expect(end).toEqual({ code: 0, signal: null, stderr: '' })
  expect(JSON.parse(stdout)).toEqual({ order: ['callback of capture', 'tick', 'microtask'], swallowed: 0, settled: 1, accepted: 2 })
})

it('closes what was garbage collected, and never what is open and watched or connected', async () => {
  const { stdout, ...end } = await run('collect', { nodeArgs: ['--expose-gc'] })
  expect(end).toEqual({ code: 0, signal: null, stderr: '' })
  expect(JSON.parse(stdout)).toEqual({ opened: 20, senders: 0, kept: 0, batches: true, left: 0 })
})

it('writes no link header beyond its room when another thread changes the table of hops during send', async () => {
  const { stdout, ...end } = await run('shared-hops')
  expect(end).toEqual({ code: 0, signal: null, stderr: '' })
  expect(JSON.parse(stdout)).toEqual({ sent: 0, refused: true, all: false })
})

it('stops accepting when descriptors run out, says so once, and goes on after resume', async () => {
  const { stdout, ...end } = await run('exhausted', { limit: 60 })
  expect(end).toEqual({ code: 0, signal: null, stderr: '' })
  // The second time it took the one descriptor that was free, and found none for another.
  expect(JSON.parse(stdout)).toEqual({ events: ['EMFILE', [0, -24], [1, -24]], accepted: 1 })
})

it('stops receiving carriers when descriptors run out, and gets them after resume', async () => {
  const { stdout, ...end } = await run('exhausted-inbox', { limit: 60 })
  expect(end).toEqual({ code: 0, signal: null, stderr: '' })
  expect(JSON.parse(stdout)).toEqual(['EMFILE', -24, 0, 'EMFILE', [0, -24], [1, 0]])
})
