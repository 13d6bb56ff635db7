// Ten thousand flows: whatever each of them left behind in the connection tracking would show.
import { it } from 'vitest'
import { expectNoEntriesLeft } from './conntrack-job.ts'

it('after 10 000 flows by packet no entry is left on either host', () => expectNoEntriesLeft(10_000))
