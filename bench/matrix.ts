// Runs what was selected. Rounds take turns, A B C A B C, so that whatever else the machine does meets all alike; ratios are taken within a round.
import { spawnSync } from 'node:child_process'
import { type Column, openColumn, type Scene } from './columns.ts'
import { type LeftOut, machine, type Report, ratiosOf, resultsOf, type Sample, scalingOf } from './figures.ts'
import type { BenchOptions } from './options.ts'
import { Unavailable } from './pair.ts'
import { isOurs, keepsBoundaries, nameOf, type Spec } from './specs.ts'
import { missingCommands } from './tools.ts'
import { openWire } from './wires.ts'

type Progress = (text: string) => void

export async function runMatrix(options: BenchOptions, progress: Progress): Promise<Report> {
  const startedAt = new Date().toISOString()
  const run = new Run(options, progress)
  for (let round = 1; round <= options.rounds; round++) {
    for (const wire of options.wires) {
      await using hosts = await openWire(wire)
      run.wires[wire] = hosts.offloads
      for (const flows of options.flows) await run.scene(round, { wire, flows, a: hosts.a, b: hosts.b })
    }
  }
  progress('')
  const { json: _, svg: __, profiles: ___, specs, ...settings } = options
  const { wires, samples, facts, leftOut } = run
  return {
    schema: 2,
    startedAt,
    machine: machine(),
    settings,
    contenders: specs.map((spec) => ({ name: nameOf(spec), boundaries: keepsBoundaries(spec) })),
    wires,
    facts: [...facts.values()],
    leftOut: [...leftOut.values()],
    ratios: ratiosOf(samples, isOurs),
    scaling: scalingOf(samples),
    results: resultsOf(samples),
    samples,
  }
}

class Run {
  readonly wires: Report['wires'] = {}
  readonly samples: Sample[] = []
  readonly facts = new Map<string, Report['facts'][number]>()
  readonly leftOut = new Map<string, LeftOut>()
  readonly #options: BenchOptions
  readonly #progress: Progress
  readonly #specs: readonly Spec[]
  /** What cannot be measured is tried once: a scene with all sizes, or one size of it. */
  readonly #hopeless = new Set<string>()

  constructor(options: BenchOptions, progress: Progress) {
    this.#options = options
    this.#progress = progress
    this.#specs = options.specs.filter((spec) => this.#isInstalled(spec))
  }

  #isInstalled(spec: Spec): boolean {
    const missing = spec.is === 'tool' ? missingCommands(spec.tool) : spec.is === 'iperf3' && !hasIperf3() ? ['iperf3'] : []
    if (missing.length > 0) this.#leaveOut(nameOf(spec), `not on the PATH: ${missing.join(', ')}`)
    return missing.length === 0
  }

  /** All contenders on one wire with one number of flows. */
  async scene(round: number, scene: Scene): Promise<void> {
    const { wire, flows } = scene
    const where = `${wire}, ${flows} flow${flows === 1 ? '' : 's'}`
    const columns = new Map<string, Column>()
    for (const spec of this.#specs) {
      const name = nameOf(spec)
      this.#progress(`round ${round} of ${this.#options.rounds}: ${where}, opening ${name}`)
      const column = await this.#attempt(name, where, () => openColumn(spec, scene, this.#options))
      if (column !== undefined) columns.set(name, column)
    }
    for (const size of this.#options.sizes) {
      for (const [contender, column] of columns) {
        this.#progress(`round ${round} of ${this.#options.rounds}: ${where}, ${size} bytes, ${contender}`)
        const measured = await this.#attempt(contender, `${where}, ${size} bytes`, async () => column.measure(size))
        if (measured !== undefined) this.samples.push({ wire, flows, size, contender, round, ...measured })
      }
    }
    for (const [contender, column] of columns) {
      this.facts.set(`${contender} ${where}`, { wire, flows, contender, says: await column.facts() })
      await column.close()
    }
  }

  async #attempt<T>(contender: string, where: string, work: () => Promise<T>): Promise<T | undefined> {
    const what = `${contender} ${where}`
    if (this.#hopeless.has(what)) return undefined
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error
      this.#hopeless.add(what)
      this.#leaveOut(contender, error.message, where)
      return undefined
    }
  }

  /** The same reason in many places is one line. */
  #leaveOut(contender: string, reason: string, where?: string): void {
    const key = `${contender} ${reason}`
    const places = this.leftOut.get(key)?.where ?? []
    this.leftOut.set(key, { contender, reason, where: where === undefined ? places : [...places, where] })
  }
}

function hasIperf3(): boolean {
  return spawnSync('iperf3', ['--version'], { stdio: 'ignore' }).status === 0
}
