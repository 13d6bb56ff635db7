// A tun or tap device in a host: puts packets in front of it and reads what it sends (native/test/inject.cc). It knows nothing of the addon.
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Host } from '../support/hosts.ts'
import type { Helper } from './compile.ts'

export interface Device extends AsyncDisposable {
  readonly name: string
  readonly ifindex: number
  /** Empty without a link header (tun). */
  readonly mac: string
  /** Puts one packet (tun) or frame (tap) in front of the host. */
  write(bytes: Buffer, virtio?: { readonly gso?: number; readonly flags?: number }): Promise<void>
  /** The next packet or frame that the host sends, cut up and checksummed by the kernel; undefined after 5 s of silence. */
  read(): Promise<Buffer | undefined>
}

/** @param inject the compiled helper test/inject.cc */
export async function openDevice(host: Host, inject: Helper, kind: 'tun' | 'tap'): Promise<Device> {
  const name = `${kind}0`
  const child = host.spawn(inject.path, [kind, name], { stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout! })
  const answers = lines[Symbol.asyncIterator]()
  const ask = async (line: string) => {
    child.stdin?.write(`${line}\n`)
    return (await answers.next()).value as string
  }
  const ready = (await answers.next()).value
  if (ready !== 'ready') throw new Error(`inject said ${ready}`)
  const attribute = (which: string) => host.output('cat', [`/sys/class/net/${name}/${which}`])
  return {
    name,
    ifindex: Number(await attribute('ifindex')),
    mac: (await attribute('address').catch(() => '')).trim(),
    async write(bytes, { gso = 0, flags = 0 } = {}) {
      const answer = await ask(`${gso} ${flags} ${bytes.toString('hex')}`)
      if (answer !== 'ok') throw new Error(`The device refused a packet: ${answer}`)
    },
    async read() {
      const answer = await ask('read')
      return answer === 'none' ? undefined : Buffer.from(answer, 'hex')
    },
    async [Symbol.asyncDispose]() {
      child.kill()
      if (child.exitCode === null && child.signalCode === null) await once(child, 'close')
    },
  }
}
