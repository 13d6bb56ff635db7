// Options: defaults, and that each wrong one is named with what was expected and what came.
import { describe, expect, it } from 'vitest'
import { FlowTable } from '../../lib/flow/table.ts'
import { parseDial, parseListen } from '../../lib/options.ts'

const invalid = (code: string, ...parts: string[]) =>
  expect.objectContaining({
    name: 'FakeTcpError',
    code,
    message: expect.stringMatching(new RegExp(parts.join('.*'))) as string,
  }) as unknown as Error

describe('dial', () => {
  it('takes an address, an object, or an address with options', () => {
    expect(parseDial('192.0.2.1:9191')).toMatchObject({ host: '192.0.2.1', port: 9191 })
    expect(parseDial({ host: '::1', port: 9191 })).toMatchObject({ host: '::1', port: 9191 })
    expect(parseDial('192.0.2.1:9191', { connectTimeoutMs: 5 })).toMatchObject({ port: 9191, connectTimeoutMs: 5 })
    expect(parseDial({ port: 9191 })).toMatchObject({ host: 'localhost' })
  })

  it('has the documented defaults', () => {
    const { conn, capture, link, ttlGuard, flow, connectTimeoutMs, dialect, localPort } = parseDial(':9191')
    expect({ capture, link, ttlGuard, flow, connectTimeoutMs, dialect, localPort }).toEqual({
      capture: 'auto',
      link: 'auto',
      ttlGuard: undefined,
      flow: { idleTimeoutMs: 0, keepAliveMs: 45_000, strict: true, dscp: 0, framing: 'none', reorderWindowMs: 0 },
      connectTimeoutMs: 10_000,
      dialect: 'native',
      localPort: 0,
    })
    expect(conn).toEqual({
      writableHighWaterMark: 262_144,
      readableHighWaterMark: 64,
      receiveQueueBytes: 1_048_576,
      oversize: 'error',
      allowHalfOpen: false,
    })
  })

  it('keeps a copy of the key, which the caller may wipe', () => {
    const helloKey = new Uint8Array(16).fill(7)
    const { flow } = parseDial(':9191', { helloKey })
    helloKey.fill(0)
    expect(flow.helloKey).toEqual(new Uint8Array(16).fill(7))
  })

  it('makes the firewall rule of the ttl guard by what works, unless told', () => {
    expect(parseDial(':9191', { guard: 'ttl' }).ttlGuard).toBe('auto')
    expect(parseListen(':9191', { guard: 'ttl', firewall: 'iptables' }).ttlGuard).toBe('iptables')
  })

  it.each([
    [{ link: 'udp' }, 'link', '"auto", "packet", "raw"', '"udp"'],
    [{ capture: 'raw', link: 'packet' }, 'link', 'where packets are captured by raw socket', '"packet"'],
    [{ capture: 'bpf' }, 'capture', '"auto", "packet", "raw"', '"bpf"'],
    [{ guard: 'hopLimit' }, 'guard', '"filter", "ttl"', '"hopLimit"'],
    [{ guard: 'ttl', firewall: 'pf' }, 'firewall', '"auto", "nftables", "iptables"', '"pf"'],
    [{ firewall: 'nftables' }, 'guard', 'where a firewall is named', '"filter"'],
    [{ dialect: 'tls' }, 'dialect', '"native", "tcpraw", "tcp"', '"tls"'],
    [{ family: 5 }, 'family', '0, 4, 6', '5'],
    [{ idleTimeoutMs: -1 }, 'idleTimeoutMs', 'at least 0', '-1'],
    [{ keepAliveMs: 0.5 }, 'keepAliveMs', 'at least 0', '0.5'],
    [{ strict: 'yes' }, 'strict', 'true or false', '"yes"'],
    [{ framing: 'sealed' }, 'framing', '"none", "counted"', '"sealed"'],
    [{ framing: 'counted', dialect: 'tcpraw' }, 'framing', "'none' with dialect 'tcpraw'", '"counted"'],
    [{ framing: 'counted', dialect: 'tcp' }, 'framing', "'none' with dialect 'tcp'", '"counted"'],
    [{ framing: 'counted', reorderWindowMs: -1 }, 'reorderWindowMs', 'at least 0', '-1'],
    [{ reorderWindowMs: 5 }, 'reorderWindowMs', "unless framing is 'counted'", '5'],
    [{ helloKey: 'a secret of somebody' }, 'helloKey', 'a Uint8Array of 16 to 64 bytes; got "string"$'],
    [{ helloKey: new Uint8Array(15) }, 'helloKey', 'got "15 bytes"'],
    [{ helloKey: new Uint8Array(65) }, 'helloKey', 'got "65 bytes"'],
    [{ helloKey: new Uint8Array(16), dialect: 'tcpraw' }, 'helloKey', "left out with dialect 'tcpraw'"],
    [{ dscp: 64 }, 'dscp', 'from 0 to 63', '64'],
    [{ dscp: -1 }, 'dscp', 'from 0 to 63', '-1'],
    [{ dscp: 1.5 }, 'dscp', 'from 0 to 63', '1.5'],
    [{ connectTimeoutMs: 0 }, 'connectTimeoutMs', 'at least 1', '0'],
    [{ receiveQueueBytes: 1.5 }, 'receiveQueueBytes', 'integer', '1.5'],
    [{ writableHighWaterMark: '1' }, 'writableHighWaterMark', 'integer', '"1"'],
    [{ allowHalfOpen: 'yes' }, 'allowHalfOpen', 'true or false', '"yes"'],
    [{ oversize: 'merge' }, 'oversize', '"error", "split"', '"merge"'],
    [{ signal: {} }, 'signal', 'AbortSignal', 'object'],
    [{ table: {} }, 'table', 'FlowTable', 'object'],
    [{ host: 7 }, 'host', 'a string', '7'],
    [{ localAddress: 'eth0' }, 'localAddress', 'IP address', '"eth0"'],
  ] as Array<[object, ...string[]]>)('refuses %j', (options, ...parts) => {
    expect(() => parseDial({ host: '192.0.2.1', port: 9191, ...options })).toThrow(invalid('ERR_FAKETCP_INVALID_OPTION', ...parts))
  })

  it.each([[{}], [{ port: 65536 }], [{ port: '80' }], [{ port: 9191, localPort: -1 }]])('refuses the ports of %j', (options) => {
    expect(() => parseDial(options as object)).toThrow(invalid('ERR_FAKETCP_INVALID_ADDRESS', 'integer from 0 to 65535'))
  })

  it('refuses port 0: there is nobody to dial', () => {
    expect(() => parseDial('192.0.2.1:0')).toThrow(invalid('ERR_FAKETCP_INVALID_OPTION', 'port', '1 to 65535'))
  })

  it.each([[undefined], [null], [true]])('refuses %j in place of an address', (target) => {
    expect(() => parseDial(target as unknown as string)).toThrow(invalid('ERR_FAKETCP_INVALID_OPTION', 'address'))
  })
})

describe('listen', () => {
  it('takes a port alone, and means every address', () => {
    expect(parseListen(9191)).toMatchObject({ host: '', port: 9191, ipv6Only: false })
  })

  it('has the documented defaults', () => {
    expect(parseListen(0).listener).toMatchObject({ maxConnections: Number.POSITIVE_INFINITY, backlog: 128 })
  })

  it.each([
    [{ maxConnections: -1 }, 'maxConnections'],
    [{ backlog: 0.5 }, 'backlog'],
    [{ ipv6Only: 1 }, 'ipv6Only'],
  ])('refuses %j', (options, name) => {
    expect(() => parseListen({ port: 0, ...(options as object) })).toThrow(invalid('ERR_FAKETCP_INVALID_OPTION', name))
  })

  it('takes a shard, and has the port to itself without one', () => {
    expect(parseListen(9191).shard).toBeUndefined()
    expect(parseListen(9191, { shard: { index: 3, count: 4 } }).shard).toEqual({ index: 3, count: 4 })
    expect(parseListen(9191, { shard: { index: 63, count: 64 } }).shard).toEqual({ index: 63, count: 64 })
  })

  it.each([
    [{ shard: 3 }, "'shard'", '{ index, count }', '3'],
    [{ shard: null }, "'shard'", '{ index, count }', 'null'],
    [{ shard: { index: 0 } }, "'shard'", '{ index, count }', 'object'],
    [{ shard: { index: 0, count: 0 } }, "'shard.count'", 'from 1 to 64', '0'],
    [{ shard: { index: 0, count: 65 } }, "'shard.count'", 'from 1 to 64', '65'],
    [{ shard: { index: 0, count: 2.5 } }, "'shard.count'", 'integer', '2.5'],
    [{ shard: { index: 4, count: 4 } }, "'shard.index'", 'from 0 to 3', '4'],
    [{ shard: { index: -1, count: 4 } }, "'shard.index'", 'from 0 to 3', '-1'],
    [{ shard: { index: '1', count: 4 } }, "'shard.index'", 'integer', '"1"'],
    [{ port: 0, shard: { index: 0, count: 2 } }, "'port'", 'shards have to agree', '0'],
  ] as Array<[object, ...string[]]>)('refuses %j', (options, ...parts) => {
    expect(() => parseListen({ port: 9191, ...options })).toThrow(invalid('ERR_FAKETCP_INVALID_OPTION', ...parts))
  })
})

it('flows that were given no table share one of the thread', () => {
  expect(parseDial(':9191').table).toBe(parseListen(0).table)
  const table = FlowTable.create({ capacity: 2 })
  expect(parseDial(':9191', { table }).table).toBe(table)
})
