// Foreign programs in hosts: what they print is awaited, however they print it.
import { setImmediate } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { Program } from '../interop/programs.ts'
import { createNetwork } from '../support/hosts.ts'

it('waits for a line among many, on either stream, and leaves no listener behind', async () => {
  await using network = await createNetwork()
  const host = await network.addHost('a')
  const warnings: Error[] = []
  const onWarning = (warning: Error) => warnings.push(warning)
  process.on('warning', onWarning)
  const lines = 'for i in $(seq 30); do echo line $i; sleep 0.01; done; echo ready >&2; exec sleep 60'
  await using program = await Program.start(host, 'talker', 'sh', ['-c', lines], /^ready/m)
  await setImmediate()
  process.off('warning', onWarning)
  expect(program.output).toContain('line 30')
  expect(warnings).toEqual([])
})

it('says what a program printed that ended first', async () => {
  await using network = await createNetwork()
  const host = await network.addHost('a')
  const started = Program.start(host, 'quitter', 'sh', ['-c', 'echo some reason >&2; exit 3'], /^ready/m)
  await expect(started).rejects.toThrow(/^quitter ended without printing \/\^ready\/m:\nsome reason/)
})
