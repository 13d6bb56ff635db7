// Makes one file of a TypeScript module and all that it imports, for agents: Node 20 cannot run the sources.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'esbuild'

export interface Bundle extends Disposable {
  readonly url: string
}

export async function bundle(source: URL): Promise<Bundle> {
  const directory = mkdtempSync(join(tmpdir(), 'faketcp-bundle-'))
  const outfile = join(directory, 'bundle.mjs')
  const remove = () => rmSync(directory, { recursive: true, force: true })
  try {
    await build({ entryPoints: [fileURLToPath(source)], bundle: true, platform: 'node', target: 'node20', format: 'esm', outfile })
  } catch (error) {
    remove()
    throw error
  }
  return { url: pathToFileURL(outfile).href, [Symbol.dispose]: remove }
}
