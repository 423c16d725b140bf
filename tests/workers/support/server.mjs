// A fake server: it starts a worker as QuickIO does, and speaks the protocol of docs/workers.md with it, byte for byte.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'

/** The longest time that a test waits for anything. */
const DEADLINE_MS = 30_000

const RUNNER = fileURLToPath(new URL('../../../src/app/worker/node/runner.mjs', import.meta.url))
/** The Node that runs the workers. It may be an older version than the one that runs the tests. */
const NODE = process.env.QUICKIO_TEST_NODE ?? process.execPath

export const HEAD_BYTES = 40
export const TO_WORKER = { EVENT: 1, ON: 2, OFF: 3, REPLY: 4, DROPPED: 5, TIMER: 6, GONE: 7 }
export const FROM_WORKER = { ANSWER: 1, BROADCAST: 2, SEND: 3, CLOSE: 4, MOVE: 5, TIMER: 6, WATCH: 7, CANCEL: 8 }

const running = new Set()
const folders = []

after(() => {
  for (const worker of running) worker.kill()
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

/** Returns a frame. Fields that are left out are 0 or empty. */
export function frame(type, { flags = 0, code = 0, request = 0, number = 0, client = [0, 0, 0], ...rest } = {}) {
  const { text = '', data = '', time = 0 } = rest
  const body = Buffer.concat([Buffer.from(text), Buffer.from(data)])
  const head = Buffer.alloc(HEAD_BYTES)
  head.writeUInt32BE(HEAD_BYTES - 4 + body.length, 0)
  head.writeUInt8(type, 4)
  head.writeUInt8(flags, 5)
  head.writeUInt16BE(code, 6)
  for (const [nth, word] of [request, number, ...client, Buffer.byteLength(text)].entries()) {
    head.writeUInt32BE(word, 8 + 4 * nth)
  }
  head.writeBigUInt64BE(BigInt(time), 32)
  return Buffer.concat([head, body])
}

export const event = (rest) => frame(TO_WORKER.EVENT, { flags: 1, ...rest })
export const answer = (request, data, rest) => frame(FROM_WORKER.ANSWER, { request, code: 200, data, ...rest })
export const refusal = (request, code, text, data) =>
  frame(FROM_WORKER.ANSWER, { request, code, text, data, flags: text === undefined ? 0 : 2 })

/** Writes files into a new folder, and returns its path. */
export function makeFolder(files) {
  const path = mkdtempSync(join(tmpdir(), 'quickio-worker-'))
  folders.push(path)
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), text)
  }
  return path
}

/** Rejects if a promise takes too long. `what` describes it in the error. */
function withDeadline(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${DEADLINE_MS} ms`)), DEADLINE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** A buffer of the bytes that a stream has received. */
class Received {
  #bytes = Buffer.alloc(0)
  #wake = () => {}
  ended = false

  constructor(stream) {
    stream.on('data', (bytes) => {
      this.#bytes = Buffer.concat([this.#bytes, bytes])
      this.#wake()
    })
    const end = () => {
      this.ended = true
      this.#wake()
    }
    stream.on('end', end).on('error', end).on('close', end)
  }

  /** Waits for bytes, and removes them. `find(bytes)` returns how many to take, or undefined if it needs more. */
  async take(find, what) {
    for (;;) {
      const length = find(this.#bytes)
      if (length !== undefined && length <= this.#bytes.length) {
        const taken = this.#bytes.subarray(0, length)
        this.#bytes = this.#bytes.subarray(length)
        return taken
      }
      if (this.ended) throw new Error(`${what}: ended with ${JSON.stringify(this.#bytes.toString())}`)
      await withDeadline(new Promise((resolve) => (this.#wake = resolve)), what)
    }
  }
}

class Link {
  #received

  constructor(socket, number) {
    this.socket = socket
    this.number = number
    this.#received = new Received(socket)
    socket.on('error', () => {}) // the worker may have been killed
  }

  send(...frames) {
    this.socket.write(Buffer.concat(frames))
  }

  bytes(length) {
    return this.#received.take(() => length, `${length} bytes of link ${this.number}`)
  }

  frame() {
    const find = (bytes) => (bytes.length < 4 ? undefined : 4 + bytes.readUInt32BE(0))
    return this.#received.take(find, `a frame of link ${this.number}`)
  }

  /** Ends this side: no more frames follow. */
  end() {
    this.socket.end()
  }

  /** Returns all frames until the worker ends its side. */
  async rest() {
    const frames = []
    for (;;) {
      try {
        frames.push(await this.frame())
      } catch (error) {
        if (/: ended with ""$/.test(error.message)) return frames
        throw error
      }
    }
  }
}

export class Worker {
  stderr = ''
  stdout = ''

  /** Starts a command with a control socket and a number of links, and sends the hello. */
  constructor(command, args, script, { links = 2, hello = {}, env = {}, cwd } = {}) {
    const sockets = Array(1 + links).fill('pipe')
    this.process = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe', ...sockets],
      env: { PATH: process.env.PATH, QUICKIO_WORKER: '3', ...env },
      cwd,
      detached: true // a process group of its own
    })
    running.add(this)
    const [, stdout, stderr, control, ...rest] = this.process.stdio
    stdout.on('data', (text) => (this.stdout += text))
    stderr.on('data', (text) => (this.stderr += text))
    this.control = control
    control.on('error', () => {})
    this.lines = new Received(control)
    this.#collectErrors(control)
    this.links = rest.map((socket, number) => new Link(socket, number))
    this.closed = once(this.process, 'close').then(([code, signal]) => {
      running.delete(this)
      return code ?? signal
    })
    const settings = { version: 1, app: 'app', instance: 0, instances: 1, settings: {}, test: false, ...hello }
    this.sendLine({ hello: { script, links: rest.map((_, number) => 4 + number), ...settings } })
  }

  sendLine(object) {
    this.control.write(`${JSON.stringify(object)}\n`)
  }

  /** Returns the next line of the control socket, except for errors that the worker logs. */
  async line() {
    for (;;) {
      const line = await this.#anyLine()
      if (line.log !== 'error') return line
    }
  }

  /** Adds the errors that the worker logs to `stderr`. */
  #collectErrors(control) {
    let text = ''
    control.on('data', (bytes) => {
      const lines = (text + bytes).split('\n')
      text = lines.pop()
      for (const line of lines) {
        if (line.includes('"log":"error"')) this.stderr += `${JSON.parse(line).text}\n`
      }
    })
  }

  async #anyLine() {
    const find = (bytes) => {
      const end = bytes.indexOf(10)
      return end < 0 ? undefined : end + 1
    }
    try {
      return JSON.parse(await this.lines.take(find, 'a line of the control socket'))
    } catch (error) {
      throw new Error(`${error.message}\n${this.stderr}`)
    }
  }

  async ready() {
    const line = await this.line()
    if (!line.ready) throw new Error(`${JSON.stringify(line)}\n${this.stderr}`)
    return line.ready
  }

  /** Waits for the end of the process and its output. Returns the exit code or the signal. */
  exit() {
    return withDeadline(this.closed, 'the end of the worker')
  }

  /** Ends all links, and returns the exit code. */
  stop() {
    for (const link of this.links) link.end()
    return this.exit()
  }

  kill() {
    try {
      process.kill(-this.process.pid, 'SIGKILL')
    } catch {
      // The process has already exited.
    }
  }
}

/** Writes a script to a file, and starts it in Node as the server does. */
export function start(source, { name = 'app.mjs', files = {}, ...options } = {}) {
  const script = join(makeFolder({ ...files, [name]: source }), name)
  return startFile(script, options)
}

/** Starts a script that exists. */
export function startFile(script, options) {
  const worker = new Worker(NODE, [RUNNER], script, options)
  worker.script = script
  return worker
}

/** Starts a script, and waits until it is ready. */
export async function startReady(source, options) {
  const worker = start(source, options)
  worker.manifest = await worker.ready()
  return worker
}
