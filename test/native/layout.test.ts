import { expect, it } from 'vitest'
import * as layout from '../../lib/native/layout.ts'
import { binding } from './rig.ts'

it('is the same in the addon and in TypeScript, name by name', () => {
  expect(binding.layout).toEqual({ ...layout })
})
