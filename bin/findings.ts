// What a check has found, in the form that `doctor` and `tunnel --check` share: as text for people and as plain objects for programs.
import { styleText } from 'node:util'

/** `problem`: it will not work, or not safely. `warning`: it works, less well than it could. */
export type Verdict = 'ok' | 'warning' | 'problem'

export interface Finding {
  /** What was looked at, in a few words. */
  readonly subject: string
  readonly verdict: Verdict
  /** What was found and what it means. */
  readonly found: string
  /** What to do about it; with a warning or a problem. */
  readonly advice?: string
}

export const ok = (subject: string, found: string): Finding => ({ subject, verdict: 'ok', found })

export const warning = (subject: string, found: string, advice: string): Finding => ({ subject, verdict: 'warning', found, advice })

export const problem = (subject: string, found: string, advice: string): Finding => ({ subject, verdict: 'problem', found, advice })

export function hasProblem(findings: readonly Finding[]): boolean {
  return findings.some(({ verdict }) => verdict === 'problem')
}

const COLOURS = { ok: 'green', warning: 'yellow', problem: 'red' } as const

/** One line for each finding, the advice below it. */
export function formatFindings(findings: readonly Finding[], { colour = false } = {}): string {
  const wide = Math.max(0, ...findings.map(({ subject }) => subject.length))
  return findings
    .flatMap(({ subject, verdict, found, advice }) => {
      const word = verdict.padEnd('problem'.length)
      const line = `${colour ? styleText(COLOURS[verdict], word) : word}  ${subject.padEnd(wide)}  ${found}`
      return advice === undefined ? [line] : [line, `${' '.repeat(word.length + wide + 4)}-> ${advice}`]
    })
    .join('\n')
}

/** '1 problem, 2 warnings', or that there is none. */
export function summarizeFindings(findings: readonly Finding[]): string {
  const count = (verdict: Verdict) => findings.filter((finding) => finding.verdict === verdict).length
  const counted = (number: number, word: string) => `${number} ${word}${number === 1 ? '' : 's'}`
  const [problems, warnings] = [count('problem'), count('warning')]
  if (problems + warnings === 0) return 'Everything is in order.'
  return [problems > 0 && counted(problems, 'problem'), warnings > 0 && counted(warnings, 'warning')].filter(Boolean).join(', ')
}
