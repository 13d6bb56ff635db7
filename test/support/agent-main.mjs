// The process behind an Agent (agent.ts): it receives functions as source, runs them with the built library, and sends back what came of it.
import process from 'node:process'
import vm from 'node:vm'

// Transpilers leave calls of these in a function's source: vitest for `import()`, esbuild (tsx) to keep names.
globalThis.__vite_ssr_dynamic_import__ = (specifier) => import(specifier)
globalThis.__name = (value) => value

/** The library, or why it did not load: runs that do not touch it need no build. With the argument 'udp' its three verbs are those over UDP. */
const load = (name) => import(new URL(`../../dist/${name}.js`, import.meta.url).href)
const library = await Promise.all(['index', ...process.argv.slice(2)].map(load)).then(
  (modules) => ({ module: Object.assign({}, ...modules) }),
  (error) => ({ error }),
)

const context = {
  get faketcp() {
    if ('error' in library) throw library.error
    return library.module
  },
  state: {},
  import: (specifier) => import(specifier),
  emit: (name, value) => process.send({ is: 'event', name, value }),
}

/** `import()` works in the functions, as in any script. */
const inMainContext = { filename: 'agent-run.js', importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER }

process.on('message', async ({ is, id, source, arg }) => {
  // Disconnecting sends first what is still to be sent; the exit follows from it.
  if (is === 'close') return setImmediate(() => process.disconnect())
  try {
    const value = await vm.runInThisContext(`(${source})`, inMainContext)(context, arg)
    process.send({ is: 'result', id, value })
  } catch (error) {
    process.send({ is: 'failure', id, error: plain(error) })
  }
})
process.on('uncaughtException', (error) => {
  if (process.connected) process.send({ is: 'stray', error: plain(error) })
})
process.on('disconnect', () => process.exit(0))
process.send({ is: 'ready' })

function plain(error) {
  if (!(error instanceof Error)) return { message: `Not an Error was thrown: ${String(error)}` }
  const { name, message, stack, code, errno, syscall, address, port } = error
  const cause = error.cause instanceof Error ? plain(error.cause) : error.cause === undefined ? undefined : String(error.cause)
  return Object.fromEntries(
    Object.entries({ name, message, stack, code, errno, syscall, address, port, cause }).filter(([, value]) => value !== undefined),
  )
}
