// docs/tunnel.md as a script: its code blocks, which the tests run as they stand, so that they cannot rot. The first line of a block in the source
// says where it belongs:
//
//   ```sh server            commands on the server that come to an end
//   ```sh server running    one command that runs until it is ended
//   ```ini server /etc/x    content of a file on the server
import { readFileSync } from 'node:fs'

export interface Block {
  readonly machine: string
  /** Of a file; undefined: these are commands. */
  readonly path: string | undefined
  /** It runs until it is ended. */
  readonly running: boolean
  readonly text: string
}

export const PAGE = new URL('../../docs/tunnel.md', import.meta.url)

/** What stands under a heading, down to the next one of its level or above. */
export function section(title: string): string {
  const page = readFileSync(PAGE, 'utf8')
  // A comment in a block of commands is no heading.
  const headings = [...page.replace(/^```.*?^```$/gms, (block) => ' '.repeat(block.length)).matchAll(/^(#+) (.*)$/gm)]
  const found = headings.findIndex(([, , text]) => text === title)
  if (found < 0) throw new Error(`docs/tunnel.md has no heading '${title}'`)
  const next = headings.slice(found + 1).find(([, level]) => level.length <= headings[found][1].length)
  return page.slice(headings[found].index, next?.index)
}

/** Blocks of a section that say where they belong. */
export function blocks(title: string): Block[] {
  return [...section(title).matchAll(/^```(sh|ini|toml) (\S+)(?: (\S+))?\n(.*?)^```$/gms)].map(([, language, machine, rest, text]) => ({
    machine,
    path: language === 'sh' ? undefined : rest,
    running: rest === 'running',
    text,
  }))
}

/** The table of a section that is marked for the tests: its rows, each by the words of the table's head. */
export function table(title: string): Record<string, string>[] {
  const marked = /^<!-- The tests read this table. -->\n((?:\|.*\|\n)+)/m.exec(section(title))?.[1]
  if (marked === undefined) throw new Error(`docs/tunnel.md has no table for the tests under '${title}'`)
  const cells = (line: string) =>
    line
      .slice(1, -1)
      .split('|')
      .map((cell) => cell.trim())
  const [head, , ...rows] = marked.trim().split('\n').map(cells)
  return rows.map((row) => Object.fromEntries(head.map((word, i) => [word, row[i]])))
}
