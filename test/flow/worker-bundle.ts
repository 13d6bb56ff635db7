// Starts a worker thread from a TypeScript file: vitest does not transform worker scripts, and Node 20 cannot run them.
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { build } from 'esbuild'

const bundles = new Map<string, Promise<string>>()

/** The bundled source is CommonJS, because that is what `eval: true` takes in Node 20; each file is bundled once. */
export async function startWorker(file: URL, workerData: unknown): Promise<Worker> {
  const path = fileURLToPath(file)
  let bundle = bundles.get(path)
  if (bundle === undefined) {
    bundle = bundleOf(path)
    bundles.set(path, bundle)
  }
  return new Worker(await bundle, { eval: true, workerData })
}

async function bundleOf(path: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [path],
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    write: false,
  })
  return outputFiles[0].text
}
