// Packets of unknown peers, without a socket.
import { expect, it } from 'vitest'
import { ORPHAN_MS, Orphans } from '../../lib/engine/orphans.ts'
import { ACK, D_FLAGS, D_KEY, D_LENGTH, D_WORDS, KEY_PORTS, PSH } from '../../lib/native/layout.ts'

const MEMORY = new Uint8Array(16)

/** Data of a peer that the table knows nothing of. */
function note(orphans: Orphans, port: number, nowMs: number): void {
  const d = new Int32Array(D_WORDS)
  d[D_KEY + KEY_PORTS] = port << 16
  d[D_FLAGS] = ACK | PSH
  d[D_LENGTH] = MEMORY.length
  orphans.note(d, 0, MEMORY, nowMs)
}

it('those whose turn has not come are kept a second longer, and go in the order in which they came', () => {
  let lost = 0
  const orphans = new Orphans((trains) => {
    lost += trains
  })
  for (const port of [1, 2, 3, 4, 5]) note(orphans, port, 0)
  const gone: number[] = []
  /** As an engine that may send two resets. */
  const expire = (nowMs: number) => {
    let turns = 2
    orphans.expire(nowMs, ({ key }) => turns-- > 0 && gone.push(key[KEY_PORTS] >>> 16) > 0)
  }
  expire(ORPHAN_MS - 1)
  expect({ gone, lost }).toEqual({ gone: [], lost: 0 })
  expire(ORPHAN_MS)
  expect({ gone, lost, size: orphans.size, nextMs: orphans.nextMs }).toEqual({ gone: [1, 2], lost: 2, size: 3, nextMs: ORPHAN_MS + 1000 })
  expire(ORPHAN_MS + 1000)
  expect({ gone, lost }).toEqual({ gone: [1, 2, 3, 4], lost: 4 })
  expire(ORPHAN_MS + 2000)
  expect({ gone, lost, size: orphans.size }).toEqual({ gone: [1, 2, 3, 4, 5], lost: 5, size: 0 })
})
