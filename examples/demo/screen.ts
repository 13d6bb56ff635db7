// How the demo looks: headings, aligned rows, and one live line where there is a terminal. Colours only there, and not with NO_COLOR.
import process from 'node:process'
import { styleText } from 'node:util'
import logUpdate from 'log-update'

const isTerminal = process.stdout.isTTY === true && process.env.TERM !== 'dumb'
/** https://no-color.org: set, to whatever but the empty string. */
const hasColour = isTerminal && !process.env.NO_COLOR

type Style = Parameters<typeof styleText>[0]

const styled = (style: Style, text: string): string => (hasColour ? styleText(style, text) : text)

const LABEL_WIDTH = 15
const COUNT_WIDTH = 9

export function heading(text: string): void {
  console.log(`\n${styled('bold', text)}`)
}

export function row(label: string, text: string): void {
  console.log(`  ${label.padEnd(LABEL_WIDTH)}${text}`)
}

export function note(text: string): void {
  console.log(`\n  ${text}`)
}

/** A count with what it proves, marked where it is not as it should be. Returns `ok`. */
export function finding(label: string, count: string, ok: boolean, [first, ...more]: readonly string[]): boolean {
  const mark = ok ? ' ' : '!'
  const shown = styled(ok ? 'green' : 'red', count.padStart(COUNT_WIDTH))
  console.log(`${mark} ${label.padEnd(LABEL_WIDTH)}${shown}   ${styled('dim', first)}`)
  for (const line of more) console.log(`${' '.repeat(2 + LABEL_WIDTH + COUNT_WIDTH + 3)}${styled('dim', line)}`)
  return ok
}

export function number(value: number): string {
  return value.toLocaleString('en')
}

/** The live line. Without a terminal there is none. */
export const progressBar = {
  /** @param part 0..1 */
  show(label: string, text: string, part: number): void {
    if (!isTerminal) return
    const width = 24
    const full = Math.round(Math.min(1, part) * width)
    const bar = `${'#'.repeat(full)}${'.'.repeat(width - full)}`
    logUpdate(
      `  ${label.padEnd(LABEL_WIDTH)}[${styled('cyan', bar)}] ${String(Math.floor(part * 100)).padStart(3)} %  ${styled('dim', text)}`,
    )
  },
  done(): void {
    if (!isTerminal) return
    logUpdate.clear()
    logUpdate.done()
  },
}
