#!/usr/bin/env node
// The command `faketcp`. It reads the command line, runs what is asked for, and turns every end into an exit code (exit-codes.ts).
import process from 'node:process'
import { CommanderError } from 'commander'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { makeProgram } from './program.ts'

try {
  await makeProgram().parseAsync()
} catch (error) {
  // Commander has said what is wrong, or printed what was asked for.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? EXIT.ok : EXIT.usage
  else {
    console.error(`faketcp: ${error instanceof Error ? error.message : String(error)}`)
    process.exitCode = exitCodeOf(error)
  }
}
