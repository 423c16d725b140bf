// The client library in Node, by `node --test tests/js/node.test.mjs`, after `cargo build` and `npm ci` in
// tests/clients/node: each of its rules against fakes, then the whole suite and the examples of docs/client.md against
// a server that is started here. QUICKIO_BINARY is that server's program; target/debug/quickio without it.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import net from 'node:net'
import { after, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import vm from 'node:vm'
import { FakeClock, settled, suite } from './suite.mjs'

const file = (path) => fileURLToPath(new URL(`../../${path}`, import.meta.url))
const LIBRARY = file('src/web/quickio.js')
const BINARY = process.env.QUICKIO_BINARY ?? file('target/debug/quickio')
const QuickIO = createRequire(import.meta.url)(LIBRARY)
const { WebSocket } = createRequire(file('tests/clients/node/'))('ws')

// ---- The server, and a wire to it that can be cut ------------------------------------------------------------------

/** A server of its own, on a port that it keeps when it is started again. */
class Server {
  static async start(port = 0) {
    const server = new Server()
    await server.run(port)
    return server
  }

  async run(port) {
    const flags = `--listen 127.0.0.1:${port} --admin off --shards 2 --app relay --app clienttest`.split(' ')
    this.process = spawn(BINARY, flags, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.ended = new Promise((resolve) => this.process.once('close', (code, signal) => resolve({ code, signal })))
    let errors = ''
    this.process.stderr.setEncoding('utf8').on('data', (text) => { errors += text })
    const ready = new Promise((resolve) => {
      let lines = ''
      this.process.stdout.setEncoding('utf8').on('data', (text) => {
        lines += text
        if (/^ready$/m.test(lines)) resolve(lines.match(/^listening on (.*)$/m)[1])
      })
    })
    const failed = this.ended.then(() => { throw new Error(`the server did not start: ${errors}`) })
    this.address = await Promise.race([ready, failed])
    failed.catch(() => {})
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

/** Passes connections on to a server, and can cut them, or let them fall asleep. */
class Wire {
  #pairs = new Set()

  static async to(server) {
    const wire = new Wire()
    wire.listener = net.createServer((near) => wire.#connect(near, server.port))
    await new Promise((resolve) => wire.listener.listen(0, '127.0.0.1', resolve))
    wire.address = `127.0.0.1:${wire.listener.address().port}`
    return wire
  }

  #connect(near, port) {
    const far = net.connect(port, '127.0.0.1')
    const pair = [near, far]
    this.#pairs.add(pair)
    near.pipe(far)
    far.pipe(near)
    for (const socket of pair) {
      socket.setNoDelay(true)
      socket.on('error', () => {})
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

  async end() {
    this.cut()
    await new Promise((resolve) => this.listener.close(resolve))
  }
}

// ---- The suite -----------------------------------------------------------------------------------------------------

for (const transport of ['websocket', 'stream', 'poll']) {
  describe(`the suite over ${transport}`, async () => {
    const server = await Server.start()
    const wire = await Wire.to(server)
    const others = []
    const page = new EventTarget()
    let slept = 0
    after(async () => {
      await wire.end()
      for (const { process } of [server, ...others]) process.kill('SIGTERM')
      for (const { ended } of [server, ...others]) assert.deepEqual(await ended, { code: 0, signal: null })
    })
    const env = {
      QuickIO,
      assert,
      url: `http://${wire.address}`,
      expectTransport: transport,
      options: {
        WebSocket,
        transports: transport === 'websocket' ? ['websocket', 'stream', 'poll'] : [transport],
        pollDelay: 20,
        page,
        clock: {
          now: () => Date.now() + slept,
          setTimeout: (fn, ms) => setTimeout(fn, ms),
          clearTimeout: (timer) => clearTimeout(timer)
        }
      },
      control: {
        restart: () => server.restart(),
        cut: () => wire.cut(),
        sleep: () => wire.freeze(),
        wake() {
          slept += 600_000
          page.dispatchEvent(new Event('visibilitychange'))
        },
        async secondServer() {
          others.push(await Server.start())
          return others.at(-1).address
        }
      }
    }
    for (const { name, skip, run } of suite(env)) test(name, { skip: skip ?? false, timeout: 120_000 }, run)
  })
}
