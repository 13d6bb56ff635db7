// `npm run bench`: faketcp beside Node's own UDP and TCP, iperf3 and foreign tunnels, between two hosts on one machine. README.md says how to read the output.
import { mkdirSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { chart } from './chart.ts'
import { runMatrix } from './matrix.ts'
import { type BenchOptions, parseOptions, USAGE } from './options.ts'
import { ensureRoot } from './own-namespace.ts'
import { render } from './table.ts'

const LATEST = fileURLToPath(new URL('results/latest.json', import.meta.url))

/** One line that is overwritten; nothing where nobody looks on. */
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`)
}

function optionsOrExit(): BenchOptions {
  try {
    const options = parseOptions(process.argv.slice(2))
    if (options !== undefined) return options
    console.log(USAGE)
    process.exit(0)
  } catch (error) {
    console.error(error instanceof Error ? error.message : error)
    process.exit(2)
  }
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, text)
}

const options = optionsOrExit()
ensureRoot()
if (options.profiles !== undefined) mkdirSync(options.profiles, { recursive: true })
const report = await runMatrix(options, progress)
write(options.json ?? LATEST, `${JSON.stringify(report, undefined, 2)}\n`)
console.log(render(report))
if (options.svg !== undefined) write(options.svg, chart(report))
