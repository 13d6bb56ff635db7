// The walk-through of docs/tunnel.md for systemd. systemd itself does not run here; what its unit has it execute does, with what it is given: copies of the two
// files, and no capability but CAP_NET_RAW.
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { UdpPeer } from '../e2e/tunnel-ends.ts'
import { createRouted } from '../support/router.ts'
import { blocks } from './guide.ts'
import { Machine } from './machine.ts'

const UNIT = new URL('../../contrib/faketcp-tunnel@.service', import.meta.url)
const DIRECTORY = '/run/credentials'
const KEY = '/etc/faketcp/wireguard.key'

it('the tunnel runs from its two files as the unit starts it', { timeout: 60_000 }, async () => {
  await using routed = await createRouted()
  const { client, server } = routed
  const names = { 'vpn.example.net': server.address4 }
  const machines = { server: await Machine.on(server), client: await Machine.on(client, names) }
  for (const { machine, path, text } of blocks('systemd')) {
    for (const role of machine === 'both' ? (['server', 'client'] as const) : [machine as 'server' | 'client']) {
      if (path !== undefined) await machines[role].write(path, text)
      else await machines[role].run(text)
      if (text.includes('faketcp key')) await machines.client.write(KEY, await machines[role].run(`cat ${KEY}`))
    }
  }

  const setting = (name: string) => new RegExp(`^${name}=(.*)$`, 'm').exec(readFileSync(UNIT, 'utf8'))![1]
  expect(setting('CapabilityBoundingSet')).toBe('CAP_NET_RAW')
  const command = setting('ExecStart').replaceAll(`\${CREDENTIALS_DIRECTORY}`, DIRECTORY)
  const rights = 'setpriv --no-new-privs --inh-caps=-all,+net_raw --ambient-caps=-all,+net_raw --bounding-set=-all,+net_raw'
  for (const machine of [machines.server, machines.client]) {
    await machine.run(`mkdir ${DIRECTORY}; cp /etc/faketcp/wireguard.toml ${DIRECTORY}/config; cp ${KEY} ${DIRECTORY}/key`)
    await machine.start(`${rights} ${command.replace('/usr/bin/env ', '')}`, /listening/)
  }

  const [user, service] = [await UdpPeer.on(client), await UdpPeer.on(server)]
  await service.echo(51820)
  const { id } = await user.open()
  await user.send(id, 51820, 'through the unit')
  expect(await user.next()).toMatchObject({ text: 'through the unit' })
})
