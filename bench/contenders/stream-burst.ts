// Writing to a Node stream as its documentation asks: until write() says false, then not before 'drain'.
import type { Writable } from 'node:stream'

export function streamBurst(stream: Writable, message: Buffer, count: number, done: (sent: number) => void): void {
  let sent = 0
  let more = true
  while (more && sent < count) {
    more = stream.write(message)
    sent++
  }
  if (more) setImmediate(done, sent)
  else stream.once('drain', () => done(sent))
}
