// Keeps the status on the screen: a page that is redrawn each second, or a line each 10 s where stdout is no terminal.
import process from 'node:process'
import { createLogUpdate } from 'log-update'
import type { Tunnel } from '../../lib/tunnel/index.ts'
import { Meter } from './meter.ts'
import { renderLine, renderPage } from './view.ts'

const PAGE_MS = 1000
const LINE_MS = 10_000
const WARNINGS = 3

export interface StatusDisplay {
  /** A line of the log, which on a terminal would tear the page apart: true if it is shown there. */
  log(line: string): boolean
  /** Leaves the last page standing. */
  stop(): void
}

/** @param title what the tunnel does, in one line */
export function showStatus(tunnel: Tunnel, title: string): StatusDisplay {
  const { stdout } = process
  const meter = new Meter(tunnel.stats, performance.now())
  if (!stdout.isTTY) {
    const timer = setInterval(() => console.log(renderLine(meter.read(tunnel.stats, performance.now()))), LINE_MS)
    return { log: () => false, stop: () => clearInterval(timer) }
  }
  const update = createLogUpdate(stdout)
  const warnings: string[] = []
  const draw = () => {
    const reading = meter.read(tunnel.stats, performance.now())
    update(renderPage({ reading, title, nowMs: Date.now(), warnings }, stdout.columns, stdout.rows))
  }
  draw()
  const timer = setInterval(draw, PAGE_MS)
  return {
    log(line) {
      warnings.push(line)
      warnings.splice(0, warnings.length - WARNINGS)
      return process.stderr.isTTY
    },
    stop() {
      clearInterval(timer)
      draw()
      update.done()
    },
  }
}
