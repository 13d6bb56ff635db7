// What a listener sends before its accept: kept for the stream, in bounded memory.
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import { ACCEPT, CONTROL_BYTES, isHello, TOKEN_BYTES, tokenIn, writeControl } from '../../lib/udp/control.ts'
import { dial } from '../../lib/udp/index.ts'

const EMPTY = 4000

it('empty messages that come before the accept take up memory, too: what is too many is dropped and counted', async () => {
  const listener = createSocket('udp4')
  onTestFinished(() => void listener.close())
  listener.bind(0, '127.0.0.1')
  await once(listener, 'listening')
  const dialled = dial({ port: listener.address().port, host: '127.0.0.1' })
  const [hello, { port }] = await once(listener, 'message')
  expect(isHello(hello, 0, hello.length)).toBe(true)
  const send = (message: Uint8Array) => new Promise<void>((sent) => listener.send(message, port, '127.0.0.1', () => sent()))
  for (let i = 0; i < EMPTY; i++) {
    await send(Buffer.alloc(0))
    // The dialler runs in this thread, too.
    if (i % 100 === 99) await turn()
  }
  const accept = new Uint8Array(CONTROL_BYTES)
  writeControl(accept, 0, tokenIn(hello, 0), ACCEPT, { token: new Uint8Array(TOKEN_BYTES) })
  await send(accept)
  const conn = await dialled
  onTestFinished(() => void conn.destroy())
  const { messagesIn, droppedIn } = conn.stats
  expect(messagesIn).toBe(EMPTY)
  expect(droppedIn).toBe(EMPTY - 512)
})
