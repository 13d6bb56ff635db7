// What can be written behind `faketcp`: the commands and their options, for commander. What a command does is imported when it runs, so that none
// pays for another.
import { createRequire } from 'node:module'
import process from 'node:process'
import { Argument, Command } from 'commander'
import { EXIT } from './exit-codes.ts'
import { addSettings, writtenSettings } from './settings/options.ts'
import { ROLES, type Role } from './settings/schema.ts'

const { version } = createRequire(import.meta.url)('faketcp/package.json') as { version: string }

export function makeProgram(): Command {
  const program = new Command('faketcp')
    .description('Carries UDP in packets that look like one healthy TCP connection.')
    .version(version)
    .exitOverride()
    .configureHelp({ showGlobalOptions: false })
    .showHelpAfterError('(faketcp --help, or faketcp COMMAND --help, lists what can be written)')
  addTunnel(program)
  addDoctor(program)
  addKey(program)
  return program
}

function addTunnel(program: Command): void {
  const command = program
    .command('tunnel')
    .description('carry UDP datagrams over fake TCP: a server in front of a UDP service, a client in front of its users')
    .addArgument(new Argument('[role]', 'which end this is; may stand in the configuration file instead').choices(ROLES))
  addSettings(command)
  command
    .option('--config <file>', 'TOML file with any of the options above, without their dashes; options written here come first')
    .option('--check', 'say what would be done and whether it can be, and do not do it')
    .action(async (role: Role | undefined, { config, check = false }: { config?: string; check?: boolean }) => {
      const { resolveSettings } = await import('./settings/settings.ts')
      const settings = await resolveSettings(role, writtenSettings(command), config)
      if (!check) return (await import('./tunnel/run.ts')).runTunnel(settings, version)
      const { checkTunnel } = await import('./tunnel/check.ts')
      const { formatFindings, hasProblem, summarizeFindings } = await import('./findings.ts')
      const { explanation, findings } = await checkTunnel(settings)
      console.log([...explanation, '', formatFindings(findings, colours()), '', summarizeFindings(findings)].join('\n'))
      process.exitCode = hasProblem(findings) ? EXIT.failed : EXIT.ok
    })
}

const colours = () => ({ colour: process.stdout.hasColors?.() ?? false })

function addDoctor(program: Command): void {
  program
    .command('doctor')
    .description('check what this machine can do, and say what to do about what it cannot')
    .option('--json', 'as JSON')
    .action(async ({ json = false }: { json?: boolean }) => {
      const { diagnose, diagnosisJson, formatDiagnosis } = await import('./doctor/doctor.ts')
      const { hasProblem } = await import('./findings.ts')
      const sections = await diagnose()
      console.log(json ? diagnosisJson(sections) : formatDiagnosis(sections, colours()))
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
