// Compiles the addon and puts it into prebuilds/<platform>-<arch>[-musl]/faketcp.node, where the loader looks for it and npm packs it from.
// Does nothing while the addon is newer than its sources; --force compiles anyway.
import { spawnSync } from 'node:child_process'
import { copyFileSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { headersPrefix, preflight, searchPath } from './preflight.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const built = join(root, 'build/Release/faketcp.node')

/** Returns true when an addon for this platform is in place, or none is needed (only Linux has one). */
export function buildAddon({ force = false } = {}) {
  if (process.platform !== 'linux') return true
  const target = join(root, 'prebuilds', platformName(), 'faketcp.node')
  if (!force && modified(target) > newestSource()) return true
  if (!preflight(['build'])) return false

  const headers = headersPrefix()
  if (headers === undefined) console.error('No Node headers beside the Node binary; node-gyp will download them.')
  const { status } = spawnSync(
    process.execPath,
    [
      join(root, 'node_modules/node-gyp/bin/node-gyp.js'),
      '--loglevel=warn',
      '--jobs=max',
      ...(headers === undefined ? [] : [`--nodedir=${headers}`]),
      'configure',
      'build',
    ],
    { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], env: { ...process.env, PATH: searchPath() } },
  )
  if (status !== 0) return false
  mkdirSync(dirname(target), { recursive: true })
  // Renamed into place: a running process may have the old file mapped.
  const fresh = `${target}.${process.pid}`
  copyFileSync(built, fresh)
  renameSync(fresh, target)
  return true
}

/** An addon linked against glibc does not load on musl, and the other way round. */
function platformName() {
  const libc = process.report.getReport().header.glibcVersionRuntime === undefined ? '-musl' : ''
  return `${process.platform}-${process.arch}${libc}`
}

function newestSource() {
  const sources = ['binding.gyp', ...readdirSync(join(root, 'native'), { recursive: true }).map((name) => join('native', name))]
  return Math.max(...sources.map((name) => modified(join(root, name))))
}

function modified(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (!buildAddon({ force: process.argv.includes('--force') })) process.exitCode = 1
}
