// Adds up test reports into the one line that `npm test` ends with. It knows vitest's JSON report and nothing of how the runs are started.

/**
 * What one run did, from its report.
 *
 * A file that failed without a failed test in it (it did not load, its hooks threw), a run that ended badly although its report shows no failure
 * (unhandled error, crashed worker), and a run without any test each count as one failure: such a run must not look green.
 *
 * @param {string} name of the run, for messages
 * @param {string | undefined} report vitest's JSON report, undefined when there is none
 * @param {number | null} status exit code, null when a signal ended it
 * @returns {{ passed: number, failed: number, skipped: string[], notes: string[] }}
 */
export function readRun(name, report, status) {
  const parsed = parse(report)
  if (parsed === undefined) return { passed: 0, failed: 1, skipped: [], notes: [`${name}: left no report (exit code ${status})`] }
  const skipped = []
  const notes = []
  let passed = 0
  let failed = 0
  for (const file of parsed.testResults) {
    let failedHere = 0
    for (const test of file.assertionResults) {
      if (test.status === 'passed') passed++
      else if (test.status === 'failed') failedHere++
      else skipped.push(`${file.name}: ${test.fullName}`)
    }
    if (file.status === 'failed' && failedHere === 0) {
      failedHere = 1
      notes.push(`${name}: ${file.name} failed outside its tests: ${file.message || 'no message'}`)
    }
    failed += failedHere
  }
  if (status !== 0 && failed === 0) {
    failed = 1
    notes.push(`${name}: ended with exit code ${status} although no test failed (unhandled error or crash)`)
  } else if (passed + failed === 0) {
    failed = 1
    notes.push(`${name}: ran no test`)
  }
  return { passed, failed, skipped, notes }
}

/**
 * All runs and checks together.
 *
 * @param {ReturnType<typeof readRun>[]} runs
 * @param {string[]} failedChecks names of the checks (build, lint, ...) that failed; each counts as one failure
 * @param {{ ci: boolean }} options with `ci` a skipped test is a failure
 */
export function summarize(runs, failedChecks, { ci }) {
  const skipped = runs.flatMap((run) => run.skipped)
  const passed = runs.reduce((sum, run) => sum + run.passed, 0)
  const failed = runs.reduce((sum, run) => sum + run.failed, 0) + failedChecks.length + (ci ? skipped.length : 0)
  const lines = [
    ...runs.flatMap((run) => run.notes),
    ...skipped.map((name) => `skipped${ci ? ' (a failure here, CI is set)' : ''}: ${name}`),
    ...failedChecks.map((name) => `failed check: ${name}`),
    `${passed} passed, ${failed} failed`,
  ]
  return { ok: failed === 0, lines }
}

function parse(report) {
  if (report === undefined) return undefined
  try {
    const parsed = JSON.parse(report)
    return Array.isArray(parsed.testResults) ? parsed : undefined
  } catch {
    return undefined
  }
}
