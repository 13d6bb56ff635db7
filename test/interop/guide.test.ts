// docs/tunnel.md names files, headings and options that exist, and its numbers agree with each other.
import { existsSync, readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { kebab, SETTINGS, settingNames } from '../../bin/settings/schema.ts'
import { headings } from '../support/markdown.ts'
import { PAGE, table } from './guide.ts'

const page = readFileSync(PAGE, 'utf8')

it('its links lead somewhere', () => {
  const links = [...page.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)]
  expect(links.length).toBeGreaterThan(10)
  for (const [, path, heading] of links) {
    const target = path === '' ? PAGE : new URL(path, PAGE)
    expect(existsSync(target), path).toBe(true)
    if (heading !== undefined) expect(headings(readFileSync(target, 'utf8')), path).toContain(heading)
  }
})

it('the options of faketcp that it names are options of the command', () => {
  const known = settingNames.map(
    (name) => `--${SETTINGS[name].is === 'flag' && 'usually' in SETTINGS[name] && SETTINGS[name].usually ? 'no-' : ''}${kebab(name)}`,
  )
  const named = [...page.matchAll(/`(?:faketcp tunnel [^`]*)?(--[a-z-]+)[^`]*`/g)].map(([, option]) => option)
  const kcptun = ['--tcp', '--mtu', '--crypt', '--conn']
  expect(named.length).toBeGreaterThan(5)
  for (const option of named) expect([...known, ...kcptun, '--config', '--check']).toContain(option)
})

it('its table adds up', () => {
  for (const row of table('MTU')) {
    const headers = (row.outside === 'IPv4' ? 20 : 40) + 20 + (row.timestamps === 'yes' ? 12 : 0) + (row.key === 'yes' ? 25 : 3)
    expect([row['longest datagram'], row["WireGuard's MTU"]].map(Number)).toEqual([1500 - headers, 1500 - headers - 32])
  }
})
