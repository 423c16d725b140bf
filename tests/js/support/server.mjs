// The library as Node loads it, and servers for the tests.
//
// Needs `npm ci` in tests/clients/node, and a server: QUICKIO_BINARY, or target/debug/quickio of `cargo build`.

import { execFileSync, spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'

/** Returns the path of a file in the repository. */
export const file = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url))

export const LIBRARY = file('src/web/quickio.js')
export const HISTORY = file('tests/js/support/history.toml') // settings of a server that keeps events
export const QuickIO = createRequire(import.meta.url)(LIBRARY)
export const { WebSocket } = createRequire(file('tests/clients/node/'))('ws')

const BINARY = process.env.QUICKIO_BINARY ?? file('target/debug/quickio')
// The server must not read the variables of the tests as its settings.
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('QUICKIO_')))

/** A server process. It keeps its port when it is restarted. */
export class Server {
  /** Starts a server. If `mangled`, runs `quickio clienttest` and stores the address of its proxy in `proxy`. */
  static async start({ mangled = false, settings } = {}) {
    const server = new Server()
    const applications = ['--app', 'relay', '--app', 'clienttest', ...(settings ? ['--config', settings] : [])]
    server.command = mangled ? ['clienttest', '--proxy', '127.0.0.1:0'] : applications
    await server.run(0)
    return server
  }

  async run(port) {
    const flags = [...this.command, '--listen', `127.0.0.1:${port}`, '--admin', 'off', '--shards', '2']
    this.process = spawn(BINARY, flags, { stdio: ['ignore', 'pipe', 'pipe'], env: ENVIRONMENT })
    this.ended = new Promise((resolve) => this.process.once('close', (code, signal) => resolve({ code, signal })))
    let errors = ''
    this.process.stderr.setEncoding('utf8').on('data', (text) => { errors += text })
    const ready = new Promise((resolve) => {
      let lines = ''
      this.process.stdout.setEncoding('utf8').on('data', (text) => {
        lines += text
        if (/^ready$/m.test(lines)) resolve(lines)
      })
    })
    const failed = this.ended.then(() => { throw new Error(`the server did not start: ${errors}`) })
    const lines = await Promise.race([ready, failed])
    failed.catch(() => {})
    this.address = lines.match(/^listening on (.*)$/m)[1]
    this.proxy = lines.match(/^proxy on (.*)$/m)?.[1]
  }

  get port() {
    return Number(this.address.split(':').at(-1))
  }

  async stop() {
    this.process.kill('SIGTERM')
    return this.ended
  }

  async restart() {
    await this.stop()
    await this.run(this.port)
  }
}

/** Returns the modes in which the proxy mangles upgrades. */
export function modes() {
  const help = execFileSync(BINARY, ['clienttest', '--help'], { encoding: 'utf8', env: ENVIRONMENT })
  return [...help.split(/^Modes:$/m)[1].matchAll(/^  (\S+)$/gm)].map(([, name]) => name)
}
