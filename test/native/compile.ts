// Builds C++ helpers, those of native/test and others, into a directory of this process, and runs them.
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const NATIVE = fileURLToPath(new URL('../../native', import.meta.url))
/** A helper that is built with sanitizers of its own must not load the addon's as well. */
const ENV = { ...process.env, LD_PRELOAD: '' }

export interface Helper extends Disposable {
  readonly path: string
  run(args: readonly string[], input?: string): { status: number | null; stdout: string; stderr: string }
}

/** Compiles sources, absolute or from native/, with the addon's warnings as errors. `sanitize` adds AddressSanitizer and UndefinedBehaviorSanitizer. */
export function compile(sources: readonly string[], { sanitize = false } = {}): Helper {
  const directory = mkdtempSync(join(tmpdir(), 'faketcp-native-'))
  const path = join(directory, 'helper')
  const sanitizers = ['-fsanitize=address,undefined', '-fno-sanitize-recover=undefined', '-fno-omit-frame-pointer']
  const flags = ['-std=c++17', '-Wall', '-Wextra', '-Werror', '-O1', '-g', ...(sanitize ? sanitizers : [])]
  try {
    execFileSync('g++', [...flags, ...sources.map((source) => resolve(NATIVE, source)), '-o', path], { env: ENV, stdio: 'pipe' })
  } catch (error) {
    rmSync(directory, { recursive: true })
    throw error
  }
  return {
    path,
    run: (args, input = '') => spawnSync(path, args, { input, encoding: 'utf8', env: ENV, maxBuffer: 1 << 26 }),
    [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }),
  }
}
