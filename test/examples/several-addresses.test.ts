// The example of several addresses: each connection's local address is the one that was dialled.
import { expect, it } from 'vitest'
import { twoHosts } from '../support/hosts.ts'
import { runExample, startExample } from './commands.ts'

it('tells on which address each connection came in', async () => {
  await using hosts = await twoHosts()
  const { a, b } = hosts
  await b.addAddress('10.77.0.3/24')
  const addresses = [`${b.address4}:9191`, '10.77.0.3:9292', `[${b.address6}]:9191`]
  const server = await startExample(b, 'several-addresses.ts', ...addresses)
  await server.says(/(Listening on .*\n){3}/)
  const greetings = await a.agent()
  for (const address of addresses) {
    const greeting = await greetings.run(async ({ faketcp }, address) => {
      const conn = await faketcp.dial(address)
      const greeting = await new Promise<string>((resolve) => conn.once('data', (message) => resolve(String(message))))
      await conn.close()
      return greeting
    }, address)
    const [, remote] = /^you are (.+), you dialled/.exec(greeting) ?? []
    expect(greeting).toBe(`you are ${remote}, you dialled ${address}`)
    expect(server.output).toContain(`${address} <- ${remote} (${address.startsWith('[') ? 'IPv6' : 'IPv4'})\n`)
  }
  expect(await server.interrupt()).toBe(0)
})

it('opens all addresses or none', async () => {
  await using hosts = await twoHosts()
  const { b } = hosts
  const { code, stdout, stderr } = await runExample(b, 'several-addresses.ts', `${b.address4}:9191`, '10.77.0.99:9191')
  expect({ code, stdout, stderr }).toEqual({ code: 1, stdout: '', stderr: 'bind EADDRNOTAVAIL 10.77.0.99:9191\n' })
})
