// How tests run: one process for each test file (network namespaces and native state are per process), at most two at a time.
// FAKETCP_TEST_LONG=1 (npm run test:long) selects the long tests, and only those.
import { configDefaults, defineConfig } from 'vitest/config'

const long = process.env.FAKETCP_TEST_LONG === '1'

export default defineConfig({
  test: {
    include: [long ? 'test/**/*.long.test.ts' : 'test/**/*.test.ts'],
    exclude: long ? configDefaults.exclude : [...configDefaults.exclude, 'test/**/*.long.test.ts'],
    globalSetup: 'test/support/global-setup.ts',
    setupFiles: 'test/support/setup.ts',
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: long ? 1_200_000 : 30_000,
    hookTimeout: 60_000,
    teardownTimeout: 15_000,
    // A run that found no test is a failure (this is the default; scripts/test.mjs relies on it).
    passWithNoTests: false,
  },
})
