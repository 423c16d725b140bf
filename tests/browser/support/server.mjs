// Servers for the tests.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** Returns the path of a file in the repository. */
export const file = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url))

const BINARY = process.env.QUICKIO_BINARY ?? file('target/debug/quickio')
export const APPS = '--app relay --app clienttest'
// The server must not read the variables of the tests as its settings.
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('QUICKIO_')))

/** A server process. It keeps its port when it is restarted. */
export class Server {
  static #all = new Set()

  /** The kind of the address: `tls://`, or nothing if it is plain. */
  kind = ''

  /** Starts a server with `flags`, in addition to the flags that every test needs. */
  static async start(flags = APPS) {
    const server = new Server()
    server.flags = flags
    await server.run(0)
    return server
  }

  /** Starts a server whose address takes only TLS, with the certificate of the tests. */
  static async secured(flags = APPS) {
    const server = new Server()
    server.kind = 'tls://'
    const [certificate, key] = ['pem', 'key'].map((ending) => file(`tests/certificates/server.${ending}`))
    server.flags = `${flags} --tls-cert ${certificate} --tls-key ${key}`
    await server.run(0)
    return server
  }

  /** Starts `quickio clienttest`, and stores the address of its proxy in `proxy`. */
  static async mangling(mode) {
    const server = new Server()
    server.command = ['clienttest']
    server.flags = `--proxy 127.0.0.1:0 --mangle ${mode}`
    await server.run(0)
    return server
  }

  static killAll() {
    for (const { process } of Server.#all) process.kill('SIGKILL')
  }

  async run(port) {
    const flags = `--listen ${this.kind}127.0.0.1:${port} --admin off --shards 2 ${this.flags}`.trim().split(/ +/)
    const args = [...(this.command ?? []), ...flags]
    this.process = spawn(BINARY, args, { stdio: ['ignore', 'pipe', 'pipe'], env: ENVIRONMENT })
    Server.#all.add(this)
    this.process.once('error', (error) => { errors += error.message })
    this.ended = new Promise((resolve) => this.process.once('close', (code, signal) => resolve({ code, signal })))
    this.ended.then(() => Server.#all.delete(this))
    let errors = ''
    this.process.stderr.setEncoding('utf8').on('data', (text) => { errors += text })
    let lines = ''
    const ready = new Promise((resolve) => {
      this.process.stdout.setEncoding('utf8').on('data', (text) => {
        lines += text
        if (/^ready$/m.test(lines)) resolve()
      })
    })
    const failed = this.ended.then(() => { throw new Error(`the server did not start: ${errors}`) })
    failed.catch(() => {})
    await Promise.race([ready, failed])
    this.address = lines.match(/^listening on (.*)$/m)[1].replace(this.kind, '')
    this.proxy = lines.match(/^proxy on (.*)$/m)?.[1]
    this.admin = lines.match(/^admin on (.*)$/m)?.[1]
  }

  get port() {
    return Number(this.address.split(':').at(-1))
  }

  get url() {
    return `${this.kind ? 'https' : 'http'}://${this.address}`
  }

  /** Stops the server. Throws if its exit code is not 0. */
  async stop() {
    this.process.kill('SIGTERM')
    const { code, signal } = await this.ended
    if (code !== 0) throw new Error(`the server exited with ${code ?? signal}`)
  }

  /** Starts the server again on the same port. */
  start() {
    return this.run(this.port)
  }

  async restart() {
    await this.stop()
    await this.start()
  }
}
