// In every test file: the hosts that its tests left behind go when it is done.
import { afterAll } from 'vitest'
import { removeAllNetworks } from './hosts.ts'

afterAll(removeAllNetworks)
