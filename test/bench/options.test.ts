// The bench's command line and the descriptions of foreign tunnels: what they select, and what they say about mistakes.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseOptions } from '../../bench/options.ts'
import { nameOf } from '../../bench/specs.ts'
import { readTool } from '../../bench/tools.ts'

const names = (...args: string[]) => parseOptions(args)?.specs.map(nameOf)

describe('selection', () => {
  it('is the default wire, one flow and all contenders unless told', () => {
    expect(parseOptions([])).toMatchObject({ wires: ['default'], flows: [1], sizes: [64, 512, 1400], rounds: 3 })
    expect(names()).toEqual([
      'faketcp packet',
      'faketcp packet batch',
      'faketcp raw',
      'faketcp raw batch',
      'faketcp/udp',
      'faketcp/udp batch',
      'dgram',
      'net',
      'iperf3 udp',
      'iperf3 tcp',
    ])
  })

  it.each(['--full', '--matrix'])('is everything with %s', (preset) => {
    expect(parseOptions([preset])).toMatchObject({ wires: ['default', 'tso-off', 'gro'], flows: [1, 100], sizes: [64, 512, 1400] })
  })

  it('sends the load of choice through tools for UDP', () => {
    const only = ['--contenders', 'net', '--tool', 'socat', '--tool', 'kcptun']
    expect(names(...only)).toEqual(['net', 'socat', 'kcptun'])
    expect(names(...only, '--loads', 'iperf3,dgram,udp')).toEqual(['net', 'socat iperf3', 'socat', 'socat udp', 'kcptun'])
  })

  it('may narrow a preset', () => {
    expect(parseOptions(['--full', '--wires', 'gro', '--flows', '7', '--rounds', '1'])).toMatchObject({
      wires: ['gro'],
      flows: [7],
      rounds: 1,
    })
    expect(parseOptions(['--quick', '--sizes', '99'])).toMatchObject({ sizes: [99], rounds: 1 })
    expect(names('--contenders', 'net,faketcp', '--links', 'auto', '--interfaces', 'batch')).toEqual(['net', 'faketcp auto batch'])
  })

  it('is nothing but the usage with --help', () => {
    expect(parseOptions(['--help'])).toBeUndefined()
  })

  it.each([
    [['--quik'], '--quik'],
    [['--quick', '--full'], '--quick and --full'],
    [['--sizes', '0'], "--sizes takes integers from 16 to 1400; got '0'"],
    [['--sizes', '64,2000'], "got '2000'"],
    [['--flows', '101'], '--flows takes integers from 1 to 100'],
    [['--flows', '1,1'], '--flows names something twice'],
    [['--rounds', 'many'], '--rounds'],
    [['--wires', 'default,copper'], "--wires takes default, tso-off, gro, nat; got 'copper'"],
    [['--loads', 'iperf'], "--loads takes dgram, iperf3, udp; got 'iperf'"],
    [['--links', 'udp'], '--links takes raw, packet, auto'],
    [['--interfaces', ''], '--interfaces takes stream, batch'],
    [['--contenders', 'iperf3'], '--contenders takes faketcp, udp, dgram'],
    [['--contenders', 'net', '--svg', 'chart.svg'], '--svg needs iperf3-udp or dgram'],
    [['--tool', 'sokat'], '--tool takes the name of a JSON file, or one of faketcp-tunnel-aes'],
    [['--tool', 'socat', '--tool', 'socat'], "'socat' is the name of two contenders"],
  ])('refuses %j with a reason and the usage', (args, reason) => {
    expect(() => parseOptions(args)).toThrow(TypeError)
    expect(() => parseOptions(args)).toThrow(reason)
    expect(() => parseOptions(args)).toThrow('--quick')
  })
})

describe('descriptions of tools', () => {
  let directory: string
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'faketcp-tools-'))
  })
  afterAll(() => rm(directory, { recursive: true, force: true }))

  it('that come with the bench can be read', async () => {
    const shipped = await readdir(new URL('../../bench/tools/', import.meta.url))
    expect(shipped.length).toBeGreaterThan(0)
    for (const file of shipped) expect(readTool(file.replace(/\.json$/, '')).name).not.toBe('')
  })

  const end = { command: ['true'] }
  const tool = { name: 'mine', carries: 'udp', server: end, client: end }

  it('have defaults', async () => {
    const file = join(directory, 'defaults.json')
    await writeFile(file, JSON.stringify(tool))
    expect(readTool(file)).toEqual({
      ...tool,
      maxFlows: 100,
      maxMessageSize: 1400,
      server: { setup: [], command: ['true'] },
      client: { setup: [], command: ['true'] },
    })
  })

  it.each([
    ['[]', 'the description is an object'],
    ['{', 'JSON'],
    [JSON.stringify({ ...tool, name: '' }), "'name'"],
    [JSON.stringify({ ...tool, carries: 'icmp' }), "'carries' is 'udp' or 'tcp'; got \"icmp\""],
    [JSON.stringify({ ...tool, carries: 'tcp' }), "'server.ready' is needed"],
    [JSON.stringify({ ...tool, maxFlows: 0 }), "'maxFlows' is a positive integer; got 0"],
    [JSON.stringify({ ...tool, port: 1 }), "got 'port'"],
    [JSON.stringify({ ...tool, client: undefined }), "'client' is an object"],
    [JSON.stringify({ ...tool, server: { command: 'socat -u' } }), "'server.command' is an array of words"],
    [
      JSON.stringify({ ...tool, server: { command: ['x', '{port}'] } }),
      "'server.command' has no placeholder {port}; there are {serverAddress}",
    ],
    [JSON.stringify({ ...tool, server: { ...end, setup: [[]] } }), "'server.setup[0]'"],
    [JSON.stringify({ ...tool, server: { ...end, ready: '(' } }), 'regular expression'],
  ])('such as %s are refused by the name of the file and what is wrong', async (text, reason) => {
    const file = join(directory, 'wrong.json')
    await writeFile(file, text)
    expect(() => readTool(file)).toThrow(file)
    expect(() => readTool(file)).toThrow(reason)
  })
})
