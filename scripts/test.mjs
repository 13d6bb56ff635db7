// `npm test` (and, with --long, `npm run test:long`): installs what the machine lacks, builds, checks, runs the tests, and ends with one line
// that counts them: `N passed, N failed`.
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { preflight, searchPath } from './preflight.mjs'
import { prepare } from './prepare.mjs'
import { readRun, summarize } from './summary.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const reports = join(root, '.test-results')
const long = process.argv.includes('--long')
const ci = process.env.CI === 'true' || process.env.CI === '1'
/** A run that hangs must end as a failure. `npm test` is meant to stay under 15 minutes. */
const limitMs = (long ? 240 : 20) * 60_000

process.exitCode = (await main()) ? 0 : 1

async function main() {
  if (process.platform === 'linux' && process.getuid() !== 0) {
    console.error('Not root: tests that build hosts (network namespaces) or open raw sockets need root and will fail. Run: sudo npm test')
  }
  if (!preflight(['build', 'test'])) return finish([], ['preflight'])
  if (!prepare()) return finish([], ['build'])

  const failedChecks = []
  const check = async (name, command, ...args) => {
    if ((await run(command, args)) !== 0) failedChecks.push(name)
  }
  await check('biome', bin('biome'), 'check', '--error-on-warnings', '.')
  await check('types', bin('tsc'), '--noEmit')
  await check('import directions and cycles', bin('depcruise'), '--config', '.dependency-cruiser.cjs', 'lib', 'bin')

  rmSync(reports, { recursive: true, force: true })
  mkdirSync(reports, { recursive: true })
  const runs = [await vitest(long ? 'long tests' : 'tests', bin('vitest'), 'run')]
  if (!long) runs.push(await vitest('native tests under sanitizers', 'bash', 'test/native/sanitized.sh'))
  return finish(runs, failedChecks)
}

/** `command` ends in a run of vitest and hands it what is appended here. */
async function vitest(name, command, ...args) {
  const report = join(reports, `${name.replaceAll(' ', '-')}.json`)
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  const status = await run(command, [...args, ...reporters], { FAKETCP_TEST_LONG: long ? '1' : '0' })
  return readRun(name, readIfThere(report), status)
}

function finish(runs, failedChecks) {
  const { ok, lines } = summarize(runs, failedChecks, { ci })
  for (const line of lines) console.log(line)
  return ok
}

/** Resolves with the exit code, null when a signal ended it. The children make a process group of their own, so that a hung run ends as a whole. */
function run(command, args, env = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      detached: true,
      env: { ...process.env, PATH: searchPath(), ...env },
    })
    const timer = setTimeout(() => {
      console.error(`${command} ${args[0]} did not end within ${limitMs / 60_000} minutes; killed`)
      killGroup('SIGKILL')
    }, limitMs)
    const killGroup = (signal) => {
      try {
        process.kill(-child.pid, signal)
      } catch {
        // It has ended already.
      }
    }
    let interrupted = false
    const onSignal = (signal) => {
      interrupted = true
      killGroup(signal)
    }
    process.on('SIGINT', onSignal).on('SIGTERM', onSignal)
    const settle = (status) => {
      clearTimeout(timer)
      process.off('SIGINT', onSignal).off('SIGTERM', onSignal)
      if (interrupted) process.exit(130)
      resolve(status)
    }
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`)
      settle(127)
    })
    child.on('exit', settle)
  })
}

function bin(name) {
  return join(root, 'node_modules/.bin', name)
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
