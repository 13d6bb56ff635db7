// What `npm install` in a clone, `npm run build` (--force) and `npm test` run: the addon where there is one, then the TypeScript build.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { buildAddon } from './build-addon.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Returns true when everything is built. */
export function prepare({ force = false } = {}) {
  const tsup = join(root, 'node_modules/tsup/dist/cli-default.js')
  if (!existsSync(tsup)) {
    console.error('The development dependencies are not installed, so nothing can be built: run npm install.')
    return false
  }
  if (!buildAddon({ force })) return false
  const { status } = spawnSync(process.execPath, [tsup, '--silent'], { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] })
  return status === 0
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (!prepare({ force: process.argv.includes('--force') })) process.exitCode = 1
}
