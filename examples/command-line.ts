// What the examples share about being commands: a usage text for wrong arguments, one clear line for errors, Ctrl-C.
import process from 'node:process'

/** Wrong arguments: thrown by an example, shown with its usage. */
export class UsageError extends Error {}

/**
 * Runs an example. Its signal is aborted by Ctrl-C (SIGINT) or SIGTERM; a second Ctrl-C ends the process at once.
 *
 * Exit codes: 0 done, 1 failed, 2 wrong arguments.
 */
export async function run(usage: string, main: (args: string[], signal: AbortSignal) => Promise<void>): Promise<void> {
  const interrupted = new AbortController()
  let interruptedAt = 0
  const interrupt = (): void => {
    // One Ctrl-C can arrive twice: from the terminal, and passed on by the parent (npm, tsx).
    if (interrupted.signal.aborted && performance.now() - interruptedAt > 300) process.exit(130)
    interruptedAt = performance.now()
    interrupted.abort()
  }
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt)
  try {
    await main(process.argv.slice(2), interrupted.signal)
  } catch (error) {
    if (interrupted.signal.aborted) process.exitCode = 130
    else if (isUsageError(error)) {
      console.error(`${error.message}\n\n${usage}`)
      process.exitCode = 2
    } else {
      // Failed system calls and the library's errors say in their message what happened and, where it helps, what to do about it.
      console.error(error instanceof Error ? error.message : error)
      process.exitCode = 1
    }
  } finally {
    process.off('SIGINT', interrupt).off('SIGTERM', interrupt)
  }
}

/** Our own, those of `parseArgs`, and addresses that the library could not read. */
function isUsageError(error: unknown): error is Error {
  if (error instanceof UsageError) return true
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return code.startsWith('ERR_PARSE_ARGS_') || code === 'ERR_FAKETCP_INVALID_ADDRESS'
}

/** An integer in a range, or a UsageError that says which option is wrong. */
export function integer(option: string, text: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text)
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= min && value <= max) return value
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`
  throw new UsageError(`${option} must be an integer ${range}; got '${text}'`)
}

/** `host:port`, with brackets around an IPv6 address. */
export function formatAddress(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
