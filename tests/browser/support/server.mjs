// Servers of the tests' own, and a wire before one, which can be cut, frozen and taken away.

import { spawn } from 'node:child_process'
import net from 'node:net'
import { fileURLToPath } from 'node:url'

/** A file of the repository. */
export const file = (path) => fileURLToPath(new URL(`../../../${path}`, import.meta.url))

const BINARY = process.env.QUICKIO_BINARY ?? file('target/debug/quickio')
export const APPS = '--app relay --app clienttest'
// The variables of the tests are none of the server's.
const ENVIRONMENT = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('QUICKIO_')))

/** A server of its own, on a port that it keeps when it is started again. */
export class Server {
  static #all = new Set()

  /** `flags` come on top of what every test needs. */
  static async start(flags = APPS) {
    const server = new Server()
    server.flags = flags
    await server.run(0)
    return server
  }

  /** A server that mangles, with the proxy's address in `proxy`. */
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
    const flags = `--listen 127.0.0.1:${port} --admin off --shards 2 ${this.flags}`.trim().split(/ +/)
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
    this.address = lines.match(/^listening on (.*)$/m)[1]
    this.proxy = lines.match(/^proxy on (.*)$/m)?.[1]
  }

  get port() {
    return Number(this.address.split(':').at(-1))
  }

  get url() {
    return `http://${this.address}`
  }

  /** Ends it; it has to end well. */
  async stop() {
    this.process.kill('SIGTERM')
    const { code, signal } = await this.ended
    if (code !== 0) throw new Error(`the server exited with ${code ?? signal}`)
  }

  /** Starts it again, where it was. */
  start() {
    return this.run(this.port)
  }

  async restart() {
    await this.stop()
    await this.start()
  }
}

/** Passes connections on to a server, for as long and as far as it shall. */
export class Wire {
  #pairs = new Set()
  #refuses = false
  taken = 0 // connections, refused ones too

  static async to(server) {
    const wire = new Wire()
    wire.listener = net.createServer((near) => wire.#connect(near, server.port))
    await new Promise((resolve) => wire.listener.listen(0, '127.0.0.1', resolve))
    wire.address = `127.0.0.1:${wire.listener.address().port}`
    wire.url = `http://${wire.address}`
    return wire
  }

  #connect(near, port) {
    this.taken++
    near.on('error', () => {})
    if (this.#refuses) return near.resetAndDestroy()
    const far = net.connect(port, '127.0.0.1')
    const pair = [near, far]
    this.#pairs.add(pair)
    near.pipe(far)
    far.pipe(near)
    far.on('error', () => {})
    for (const socket of pair) {
      socket.setNoDelay(true)
      socket.on('close', () => {
        pair.forEach((other) => other.destroy())
        this.#pairs.delete(pair)
      })
    }
  }

  cut() {
    for (const pair of this.#pairs) pair.forEach((socket) => socket.resetAndDestroy())
  }

  /** What is connected now says nothing any more, and does not end either. */
  freeze() {
    for (const [near, far] of this.#pairs) {
      near.unpipe(far)
      far.unpipe(near)
    }
  }

  /** Nothing gets through, until `allow`. */
  refuse() {
    this.#refuses = true
    this.cut()
  }

  allow() {
    this.#refuses = false
  }

  async end() {
    this.cut()
    await new Promise((resolve) => this.listener.close(resolve))
  }
}
