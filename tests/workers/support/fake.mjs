// A server that is a test: it starts a worker as QuickIO does, and speaks docs/workers.md with it, byte for byte.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after } from 'node:test'
import { fileURLToPath } from 'node:url'

/** Nothing takes so long that is not broken. */
const DEADLINE_MS = 30_000

const RUNNER = fileURLToPath(new URL('../../../src/app/worker/node/runner.mjs', import.meta.url))
/** The Node that runs the workers: a worker has to run with versions that have no `node:test`. */
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

/** A frame's bytes. What is not said is 0, or empty. */
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

/** Writes files into a folder of their own, and answers that. */
export function folder(files) {
  const path = mkdtempSync(join(tmpdir(), 'quickio-worker-'))
  folders.push(path)
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), text)
  }
  return path
}

/** Fails what takes too long, and says what it was. */
export function inTime(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${DEADLINE_MS} ms`)), DEADLINE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

/** Bytes or lines as they come, taken when the test wants them. */
class Inbox {
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

  /** `find(bytes)` answers how many bytes to take, or undefined. */
  async take(find, what) {
    for (;;) {
      const length = find(this.#bytes)
      if (length !== undefined && length <= this.#bytes.length) {
        const taken = this.#bytes.subarray(0, length)
        this.#bytes = this.#bytes.subarray(length)
        return taken
      }
      if (this.ended) throw new Error(`${what}: ended with ${JSON.stringify(this.#bytes.toString())}`)
      await inTime(new Promise((resolve) => (this.#wake = resolve)), what)
    }
  }
}

class Link {
  #inbox

  constructor(socket, number) {
    this.socket = socket
    this.number = number
    this.#inbox = new Inbox(socket)
    socket.on('error', () => {}) // of a worker that was killed
  }

  send(...frames) {
    this.socket.write(Buffer.concat(frames))
  }

  bytes(length) {
    return this.#inbox.take(() => length, `${length} bytes of link ${this.number}`)
  }

  frame() {
    const find = (bytes) => (bytes.length < 4 ? undefined : 4 + bytes.readUInt32BE(0))
    return this.#inbox.take(find, `a frame of link ${this.number}`)
  }

  /** Tells the worker that no more will come. */
  end() {
    this.socket.end()
  }

  /** All until the worker has ended its side. */
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

  /** Starts a command with a control socket and so many links, and says hello. */
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
    this.lines = new Inbox(control)
    this.links = rest.map((socket, number) => new Link(socket, number))
    this.closed = once(this.process, 'close').then(([code, signal]) => {
      running.delete(this)
      return code ?? signal
    })
    const settings = { version: 1, app: 'app', instance: 0, instances: 1, settings: {}, test: false, ...hello }
    this.say({ hello: { script, links: rest.map((_, number) => 4 + number), ...settings } })
  }

  say(object) {
    this.control.write(`${JSON.stringify(object)}\n`)
  }

  async line() {
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

  /** The exit code, when all output is there. */
  exit() {
    return inTime(this.closed, 'the end of the worker')
  }

  /** Ends all links, and answers the exit code. */
  stop() {
    for (const link of this.links) link.end()
    return this.exit()
  }

  kill() {
    try {
      process.kill(-this.process.pid, 'SIGKILL')
    } catch {
      // It has ended.
    }
  }
}

/** Starts a script of this text in Node, as the server does. */
export function start(source, { name = 'app.mjs', files = {}, ...options } = {}) {
  const script = join(folder({ ...files, [name]: source }), name)
  const worker = startFile(script, options)
  return worker
}

export function startFile(script, options) {
  const worker = new Worker(NODE, [RUNNER], script, options)
  worker.script = script
  return worker
}

/** The same, until it is ready. */
export async function started(source, options) {
  const worker = start(source, options)
  worker.manifest = await worker.ready()
  return worker
}
