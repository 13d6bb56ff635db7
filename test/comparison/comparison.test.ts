// What tells a connection of ours from one of two kernels is what docs/wire.md says, no less and no more.
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { compare, differs, type Finding } from './compare.ts'
import { type Family, recordedConversation } from './traffic.ts'

/** The table of the section: field, kernel, ours, and why. */
function documented(): Finding[] {
  const text = readFileSync(new URL('../../docs/wire.md', import.meta.url), 'utf8')
  const [, section = ''] = text.split("## Compared with a kernel's TCP\n")
  const rows = section
    .split('\n## ')[0]
    .split('\n')
    .filter((line) => line.startsWith('| '))
  return rows.slice(2).map((row) => {
    const [field, kernel, ours] = row
      .split('|')
      .slice(1, 4)
      .map((cell) => cell.trim())
    return { field, kernel, ours }
  })
}

// A kernel's recording may have to be made several times.
it.each<Family>([4, 6])('differs in the documented fields only, and as documented (IPv%s)', { timeout: 120_000 }, async (family) => {
  const findings = compare(await recordedConversation(family, 'kernel'), await recordedConversation(family, 'ours'))
  expect(findings.length).toBeGreaterThan(40)
  const known = new Set(findings.map(({ field }) => field))
  const expected = documented().filter(({ field }) => known.has(field))
  expect(findings.filter(differs)).toEqual(expected)
  expect(expected.length).toBeGreaterThan(0)
})
