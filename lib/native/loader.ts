// Finds and loads the native addon. Importing this module never throws, on any platform; only `loadBinding` does. It knows where a built
// addon may lie, nothing of what it does.

import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Binding } from './binding.ts'

const PACKAGE = 'faketcp'

let loaded: Binding | undefined

/** The addon of this platform, loaded once for each thread. Throws one `Error` that says what was tried and what to do. */
export function loadBinding(): Binding {
  loaded ??= load()
  return loaded
}

function load(): Binding {
  if (process.platform !== 'linux') throw new Error(`faketcp works on Linux only, this is ${process.platform}-${process.arch}`)
  const require = createRequire(import.meta.url)
  const tried: string[] = []
  let cause: unknown
  for (const path of addonPaths()) {
    if (!existsSync(path)) {
      tried.push(`${path} (no such file)`)
      continue
    }
    try {
      return require(path) as Binding
    } catch (error) {
      cause ??= error
      tried.push(`${path} (${error instanceof Error ? error.message : String(error)})`)
    }
  }
  const target = `${process.platform}-${process.arch}${isMusl() ? ' (musl)' : ''}`
  const advice =
    'Build it with `npx node-gyp rebuild` in the package directory (needs a C++17 compiler), or set FAKETCP_ADDON to a built faketcp.node.'
  throw new Error(
    `No native addon for ${target} could be loaded. Tried: ${tried.join('; ') || 'nothing, the package root was not found'}. ${advice}`,
    {
      cause,
    },
  )
}

/** Where an addon for this platform is looked for, in order. FAKETCP_ADDON names the only place. */
export function addonPaths(): string[] {
  const override = process.env.FAKETCP_ADDON
  if (override !== undefined && override !== '') return [override]
  const root = packageRoot()
  if (root === undefined) return []
  const target = `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`
  return [join(root, 'prebuilds', target, 'faketcp.node'), join(root, 'build', 'Release', 'faketcp.node')]
}

/** The directory of this package: the code runs from lib/native in the sources and from dist once bundled. */
function packageRoot(): string | undefined {
  let directory = dirname(fileURLToPath(import.meta.url))
  for (;;) {
    if (packageName(join(directory, 'package.json')) === PACKAGE) return directory
    const parent = dirname(directory)
    if (parent === directory) return undefined
    directory = parent
  }
}

function packageName(path: string): unknown {
  try {
    const parsed: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return typeof parsed === 'object' && parsed !== null && 'name' in parsed ? parsed.name : undefined
  } catch {
    return undefined
  }
}

/** musl's loader is mapped into every process that runs on it. (`process.report` knows too, but may stop to look up host names.) */
function isMusl(): boolean {
  try {
    return process.platform === 'linux' && readFileSync('/proc/self/maps', 'utf8').includes('/ld-musl-')
  } catch {
    return false
  }
}
