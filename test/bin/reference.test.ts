// docs/command-line.md names what there is, and only that; and what is heavy is loaded only by those who ask for it.
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { EXIT } from '../../bin/exit-codes.ts'
import { tunnelRegistry } from '../../bin/metrics.ts'
import { makeProgram } from '../../bin/program.ts'
import { SETTINGS, type Setting, settingNames } from '../../bin/settings/schema.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const page = readFileSync(join(ROOT, 'docs/command-line.md'), 'utf8')
const cells = [...page.matchAll(/^\| `(--[a-z-]+)[^|]*\|([^|]*)\|([^|]*)\|/gm)].map(([, flag, end, standard]) => ({
  flag,
  end: end.trim(),
  standard: standard.trim(),
}))

describe('the reference', () => {
  it('has every option of the tunnel, in the order of --help, and no other', () => {
    const tunnel = makeProgram().commands.find((command) => command.name() === 'tunnel')
    expect(cells.map(({ flag }) => flag)).toEqual(tunnel?.options.map(({ long }) => long))
  })

  it('has their ends and defaults', () => {
    const settings = settingNames.map((name): Setting => SETTINGS[name])
    for (const [i, { role = '', standard }] of settings.entries()) {
      expect({ flag: cells[i].flag, end: cells[i].end }).toEqual({ flag: cells[i].flag, end: role })
      if (standard !== undefined && !standard.includes(' ')) expect(cells[i].standard).toBe(`\`${standard}\``)
    }
  })

  it('has the options of the other commands', () => {
    for (const command of makeProgram().commands) {
      expect(page).toContain(`## faketcp ${command.name()}`)
      for (const { long } of command.options) expect(page).toContain(`\`${long}`)
    }
  })

  it('has every exit code', () => {
    const listed = [...page.matchAll(/^\| ([\d, ]+?) +\|/gm)].map(([, code]) => code)
    expect(listed).toEqual([...Object.values(EXIT).map(String), '130, 143'])
  })

  it('has every metric with its labels and its type', async () => {
    const registry = tunnelRegistry(() => {
      throw new Error('Nobody scrapes')
    }, '')
    const own = registry.getMetricsAsArray().filter(({ name }) => name.startsWith('faketcp_'))
    const listed = [...page.matchAll(/^\| `(faketcp_\w+)(?:\{[a-z,]+\})?` *\| (\w+) /gm)].map(([, name, type]) => [name, type])
    expect(listed).toEqual(own.map(({ name, type }) => [name, String(type)]))
  })
})

/** Modules that a file loads when it is imported itself: not those of types, not those that are imported later. */
function loads(path: string, seen = new Set<string>()): Set<string> {
  if (seen.has(path)) return seen
  seen.add(path)
  for (const [, specifier] of readFileSync(join(ROOT, path), 'utf8').matchAll(/^(?:import|export) (?!type )[^;]*?from '([^']+)'/gm)) {
    if (specifier.startsWith('.')) loads(join(dirname(path), specifier), seen)
    else seen.add(specifier)
  }
  return seen
}

it('who runs a tunnel without --config, --status or --metrics loads none of their packages', () => {
  const loaded = new Set(['bin/faketcp.ts', 'bin/settings/settings.ts', 'bin/tunnel/run.ts'].flatMap((path) => [...loads(path)]))
  expect(loaded).toContain('commander')
  expect(loaded).toContain('lib/tunnel/index.ts')
  expect([...loads('bin/status/show.ts'), ...loads('bin/metrics.ts'), ...loads('bin/settings/config-file.ts')]).toEqual(
    expect.arrayContaining(['log-update', 'cli-table3', 'prom-client', 'smol-toml']),
  )
  for (const heavy of ['log-update', 'cli-table3', 'prom-client', 'smol-toml']) expect(loaded).not.toContain(heavy)
})
