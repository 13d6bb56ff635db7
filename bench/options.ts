// The command line of `npm run bench`.
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'

export interface BenchOptions {
  readonly sizes: readonly number[]
  readonly rounds: number
  readonly blastMs: number
  readonly pingPongMs: number
  readonly trials: number
  readonly trialMs: number
  readonly warmUpMs: number
  readonly iperf3Seconds: number
  /** Runs iperf3 too where it is installed. */
  readonly iperf3: boolean
  /** Where the figures go instead of bench/results/latest.json. */
  readonly json: string | undefined
  readonly profiles: string | undefined
}

export const USAGE = `npm run bench -- [--quick] [--rounds N] [--sizes 64,512,1400] [--json FILE] [--no-iperf3] [--cpu-prof DIR]

  --quick         shorter measurements and no iperf3: under a minute
  --rounds N      rounds over all contenders; medians are taken over them (default 3)
  --sizes LIST    payload bytes of a message (default 64,512,1400; at most 1400)
  --json FILE     writes the figures there instead of bench/results/latest.json
  --no-iperf3     leaves iperf3 out although it is installed
  --cpu-prof DIR  CPU profiles of each contender's last round, for Chrome's DevTools`

const FULL = { blastMs: 1000, pingPongMs: 500, trials: 5, trialMs: 400, warmUpMs: 500, iperf3Seconds: 1 }
const QUICK = { blastMs: 300, pingPongMs: 200, trials: 4, trialMs: 200, warmUpMs: 300, iperf3Seconds: 1 }

/**
 * @returns undefined when only help is asked for
 * @throws TypeError, with the usage in its message
 */
export function parseOptions(args: readonly string[]): BenchOptions | undefined {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        quick: { type: 'boolean', default: false },
        rounds: { type: 'string', default: '3' },
        sizes: { type: 'string', default: '64,512,1400' },
        json: { type: 'string' },
        'no-iperf3': { type: 'boolean', default: false },
        'cpu-prof': { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    })
    if (values.help) return undefined
    return {
      ...(values.quick ? QUICK : FULL),
      sizes: values.sizes.split(',').map((text) => integer('--sizes', text, 1400)),
      rounds: integer('--rounds', values.rounds, 100),
      iperf3: !values.quick && !values['no-iperf3'],
      json: values.json,
      profiles: values['cpu-prof'] === undefined ? undefined : resolve(values['cpu-prof']),
    }
  } catch (error) {
    throw new TypeError(`${error instanceof Error ? error.message : error}\n\n${USAGE}`)
  }
}

function integer(name: string, text: string, max: number): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > max) throw new TypeError(`${name} takes integers from 1 to ${max}; got '${text}'`)
  return value
}
