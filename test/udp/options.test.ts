// Options of the UDP transport: defaults, and what is refused with a name.
import { describe, expect, it } from 'vitest'
import { dial, listen, listeners } from '../../lib/udp/index.ts'
import { parseUdpDial, parseUdpListen } from '../../lib/udp/options.ts'

describe('defaults', () => {
  it('of a dial', () => {
    expect(parseUdpDial('example.net:9191')).toEqual({
      host: 'example.net',
      port: 9191,
      family: 0,
      localAddress: undefined,
      localPort: 0,
      connectTimeoutMs: 10_000,
      handshake: true,
      channel: { idleTimeoutMs: 0, keepAliveMs: 15_000, endsBoth: true },
      dscp: 0,
      receiveBufferBytes: 4 << 20,
      receiveBufferAsked: false,
      signal: undefined,
      conn: {
        writableHighWaterMark: 256 << 10,
        readableHighWaterMark: 64,
        receiveQueueBytes: 1 << 20,
        oversize: 'error',
        allowHalfOpen: false,
      },
    })
  })

  it('of a listener, which without a handshake takes no more than it can bear, and lets go of who is silent', () => {
    expect(parseUdpListen(9191)).toMatchObject({
      host: '',
      channel: { idleTimeoutMs: 0 },
      listener: { maxConnections: Number.POSITIVE_INFINITY, backlog: 128 },
    })
    expect(parseUdpListen(9191, { handshake: false })).toMatchObject({
      channel: { idleTimeoutMs: 180_000 },
      listener: { maxConnections: 1024 },
    })
    expect(parseUdpListen(9191, { handshake: false, idleTimeoutMs: 0, maxConnections: Number.POSITIVE_INFINITY })).toMatchObject({
      channel: { idleTimeoutMs: 0 },
      listener: { maxConnections: Number.POSITIVE_INFINITY },
    })
    expect(parseUdpDial('h:1', { handshake: false }).channel.idleTimeoutMs).toBe(0)
  })
})

it.each<[string, object, RegExp]>([
  ['a port of 0', { port: 0 }, /'port' must be an integer from 1/],
  ['a handshake that is no flag', { handshake: 'no' }, /'handshake' must be true or false/],
  ['a buffer of nothing', { receiveBufferBytes: 0 }, /'receiveBufferBytes' must be an integer of at least 1/],
  ['a buffer beyond all measure', { receiveBufferBytes: 2 ** 31 }, /'receiveBufferBytes' must be an integer from 1 to 1073741824/],
  ['a code point beyond 63', { dscp: 64 }, /'dscp'/],
  ['a negative time', { keepAliveMs: -1 }, /'keepAliveMs' must be an integer of at least 0/],
  ['a local name', { localAddress: 'localhost' }, /'localAddress' must be an IP address/],
  ['a signal that is none', { signal: {} }, /'signal' must be an AbortSignal/],
])('a dial refuses %s', async (_what, options, message) => {
  await expect(dial({ host: '127.0.0.1', port: 9191, ...options })).rejects.toThrow(message)
})

it('listeners refuses no address at all, and listen an abortion before it began', async () => {
  await expect(listeners([])).rejects.toMatchObject({ code: 'ERR_FAKETCP_INVALID_OPTION' })
  await expect(listen('127.0.0.1:0', { signal: AbortSignal.abort() })).rejects.toMatchObject({ name: 'AbortError' })
})

it('of several addresses all are opened, or none', async () => {
  const one = await listen('127.0.0.1:0')
  const taken = `127.0.0.1:${one.address()?.port}`
  await expect(listeners(['127.0.0.1:0', taken])).rejects.toMatchObject({ code: 'EADDRINUSE' })
  await one.close()
  const both = await listeners(['127.0.0.1:0', taken])
  expect(both.addresses().length).toBe(2)
  await both.close()
})

it('a dial that is aborted while it waits for the listener', async () => {
  const { createSocket } = await import('node:dgram')
  const mute = createSocket('udp4')
  await new Promise<void>((bound) => mute.bind(0, '127.0.0.1', () => bound()))
  const abort = new AbortController()
  mute.once('message', () => abort.abort(new Error('enough')))
  const dialling = dial({ host: '127.0.0.1', port: mute.address().port, signal: abort.signal })
  await expect(dialling).rejects.toMatchObject({ name: 'AbortError', cause: new Error('enough') })
  mute.close()
})
