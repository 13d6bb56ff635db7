// The rules in .dependency-cruiser.cjs bite: a tree that breaks each of them once is reported for each, and an orderly one for none.
import { spawnSync } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, vi } from 'vitest'

// Each test runs a tool or two as a process of its own, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 120_000 })

const root = fileURLToPath(new URL('../..', import.meta.url))
const require = createRequire(import.meta.url)
const rules: { forbidden: { name: string }[] } = require('../../.dependency-cruiser.cjs')

/** One import that breaks the rule: importing file, imported file. */
const VIOLATIONS: Record<string, [string, string]> = {
  'command-imports-downwards': ['bin/faketcp.ts', 'lib/engine.ts'],
  'doctor-imports-downwards': ['bin/doctor/sockets.ts', 'bin/faketcp.ts'],
  'report-imports-downwards': ['bin/findings.ts', 'lib/native/binding.ts'],
  'index-imports-downwards': ['lib/index.ts', 'lib/wire/segment.ts'],
  'tunnel-imports-downwards': ['lib/tunnel/relay.ts', 'lib/engine.ts'],
  'udp-imports-downwards': ['lib/udp/transport.ts', 'lib/engine.ts'],
  'verbs-imports-downwards': ['lib/dial.ts', 'lib/index.ts'],
  'streams-imports-downwards': ['lib/conn.ts', 'lib/engine.ts'],
  'transport-imports-downwards': ['lib/transport.ts', 'lib/native/binding.ts'],
  'engine-imports-downwards': ['lib/engine/flows.ts', 'lib/conn.ts'],
  'carrier-imports-downwards': ['lib/carrier/guard.ts', 'lib/link/raw.ts'],
  'link-imports-downwards': ['lib/link/raw.ts', 'lib/engine.ts'],
  'flow-imports-downwards': ['lib/flow/table.ts', 'lib/native/binding.ts'],
  'slots-imports-downwards': ['lib/flow/layout.ts', 'lib/flow/table.ts'],
  'wire-imports-downwards': ['lib/wire/segment.ts', 'lib/flow/table.ts'],
  'leaves-imports-downwards': ['lib/stats.ts', 'lib/transport.ts'],
  'native-imports-downwards': ['lib/native/binding.ts', 'lib/stats.ts'],
  'errors-imports-downwards': ['lib/errors.ts', 'lib/address.ts'],
  'layout-imports-downwards': ['lib/native/layout.ts', 'lib/native/binding.ts'],
  'every-file-has-a-layer': ['lib/utils.ts', 'lib/errors.ts'],
  'lib-imports-lib-only': ['lib/listen.ts', 'test/support/hosts.ts'],
  'bin-imports-bin-and-lib-only': ['bin/log.ts', 'test/support/hosts.ts'],
  'no-dev-dependency-in-bin': ['bin/view.ts', 'some-package'],
}

const ORDERLY: [string, string][] = [
  ['bin/faketcp.ts', 'lib/index.ts'],
  ['bin/faketcp.ts', 'lib/tunnel/index.ts'],
  ['bin/faketcp.ts', 'bin/doctor/sockets.ts'],
  ['bin/doctor/sockets.ts', 'bin/findings.ts'],
  ['bin/doctor/sockets.ts', 'lib/native/binding.ts'],
  ['lib/index.ts', 'lib/dial.ts'],
  ['lib/dial.ts', 'lib/conn.ts'],
  ['lib/dial.ts', 'lib/engine.ts'],
  ['lib/conn.ts', 'lib/transport.ts'],
  ['lib/conn.ts', 'node:stream'],
  ['lib/engine.ts', 'lib/flow/table.ts'],
  ['lib/engine.ts', 'lib/link/raw.ts'],
  ['lib/link/raw.ts', 'lib/native/binding.ts'],
  ['lib/link/raw.ts', 'lib/wire/segment.ts'],
  ['lib/wire/segment.ts', 'lib/native/layout.ts'],
  ['lib/wire/segment.ts', 'lib/flow/layout.ts'],
  ['lib/native/binding.ts', 'lib/errors.ts'],
]

it('names each rule that is broken', async () => {
  const reported = await violations(Object.values(VIOLATIONS))
  for (const [rule, [from]] of Object.entries(VIOLATIONS)) expect(reported).toContainEqual({ rule, from })
})

it('finds import circles, of types too', async () => {
  const reported = await violations([
    ['lib/flow/table.ts', 'lib/flow/shard.ts'],
    ['lib/flow/shard.ts', 'lib/flow/table.ts'],
  ])
  expect(reported.map(({ rule }) => rule)).toEqual(['no-cycles'])
})

it('has no rule that is not tried here', () => {
  expect(rules.forbidden.map(({ name }) => name).sort()).toEqual([...Object.keys(VIOLATIONS), 'no-cycles'].sort())
})

it('lets imports run downwards', async () => {
  expect(await violations(ORDERLY)).toEqual([])
})

/** Writes a tree with these imports and nothing else, and returns what the rules say to it. */
async function violations(imports: readonly [string, string][]) {
  const directory = await mkdtemp(join(tmpdir(), 'faketcp-imports-'))
  try {
    await cp(join(root, 'tsconfig.json'), join(directory, 'tsconfig.json'))
    await writeFile(join(directory, 'package.json'), JSON.stringify({ type: 'module', devDependencies: { 'some-package': '*' } }))
    await mkdir(join(directory, 'node_modules/some-package'), { recursive: true })
    await writeFile(join(directory, 'node_modules/some-package/index.js'), '')
    await mkdir(join(directory, 'bin'))
    const files = new Map(imports.flat().map((name) => [name, '']))
    for (const [from, to] of imports) {
      const specifier = to.includes('/') ? `${'../'.repeat(from.split('/').length - 1)}${to}` : to
      files.set(from, `${files.get(from)}import type {} from '${specifier}'\n`)
    }
    for (const [name, text] of files) {
      if (!name.endsWith('.ts')) continue
      await mkdir(join(directory, dirname(name)), { recursive: true })
      await writeFile(join(directory, name), text)
    }
    const depcruise = join(root, 'node_modules/.bin/depcruise')
    const { stdout, stderr } = spawnSync(depcruise, ['--config', join(root, '.dependency-cruiser.cjs'), '-T', 'json', 'lib', 'bin'], {
      cwd: directory,
      encoding: 'utf8',
    })
    if (stdout === '') throw new Error(stderr)
    const report = JSON.parse(stdout) as { summary: { violations: { rule: { name: string }; from: string }[] } }
    return report.summary.violations.map(({ rule, from }) => ({ rule: rule.name, from }))
  } finally {
    await rm(directory, { recursive: true })
  }
}
