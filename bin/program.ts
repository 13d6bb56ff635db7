// What can be written behind `faketcp`: the commands and their options, for commander. What a command does is imported when it runs, so that none
// pays for another.
import { createRequire } from 'node:module'
import process from 'node:process'
import { Command } from 'commander'
import { EXIT } from './exit-codes.ts'

const { version } = createRequire(import.meta.url)('faketcp/package.json') as { version: string }

export function makeProgram(): Command {
  const program = new Command('faketcp')
    .description('Carries UDP in packets that look like one healthy TCP connection.')
    .version(version)
    .exitOverride()
    .configureHelp({ showGlobalOptions: false })
    .showHelpAfterError('(faketcp --help, or faketcp COMMAND --help, lists what can be written)')
  addDoctor(program)
  addKey(program)
  return program
}

function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('check what this machine can do, and say what to do about what it cannot')
    .option('--json', 'as JSON')
    .action(async ({ json = false }: { json?: boolean }) => {
      const { diagnose, diagnosisJson, formatDiagnosis } = await import('./doctor/doctor.ts')
      const { hasProblem } = await import('./findings.ts')
      const sections = await diagnose()
      console.log(json ? diagnosisJson(sections) : formatDiagnosis(sections, { colour: process.stdout.hasColors?.() ?? false }))
      process.exitCode = hasProblem(sections.flatMap(({ findings }) => findings)) ? EXIT.failed : EXIT.ok
    })
}

function addKey(program: Command): void {
  program
    .command('key')
    .description('make a pre-shared key for both ends of a tunnel')
    .option('--out <file>', 'write it into a new file that only its owner can read, instead of printing it')
    .action(async ({ out }: { out?: string }) => {
      const { makeKey, writeKeyFile } = await import('./key.ts')
      if (out === undefined) console.log(makeKey())
      else writeKeyFile(out)
    })
}
