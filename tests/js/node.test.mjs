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

// ---- Fakes: a network of which every byte is seen -----------------------------------------------------------------

class FakeSocket {
  sent = []
  closed = false

  constructor(url, protocols) {
    this.url = url
    this.protocols = protocols
  }

  send(text) { this.sent.push(text) }
  close() { this.closed = true }
  /** The server's side. */
  accept() { this.onopen() }
  ohai() {
    this.accept()
    this.say('/qio/ohai')
  }
  say(...texts) { for (const data of texts) this.onmessage({ data }) }
  lose(code = 1006) { this.onclose({ code, reason: '' }) }
  /** What was sent since this was asked last. */
  news() { return this.sent.splice(0) }
}

/** One request, which the test answers. */
class FakeRequest {
  constructor(url, { method = 'GET', body, headers = {}, signal, keepalive = false }) {
    this.url = new URL(url)
    this.query = Object.fromEntries(this.url.searchParams)
    Object.assign(this, { method, body, headers, keepalive })
    this.response = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }))
    signal?.addEventListener('abort', () => {
      this.aborted = true
      this.reject(new Error('aborted'))
    })
  }

  async answer(...lines) {
    this.resolve({ status: 200, text: async () => lines.join('\n') })
    await settled()
  }

  async refuse(status) {
    this.resolve({ status, text: async () => '' })
    await settled()
  }

  async fail() {
    this.reject(new TypeError('fetch failed'))
    await settled()
  }

  /** Begins a response that does not end. */
  async stream(text = '') {
    const body = new ReadableStream({ start: (controller) => { this.controller = controller } })
    this.resolve({ status: 200, body })
    await this.push(text)
  }

  async push(data) {
    this.controller.enqueue(typeof data === 'string' ? new TextEncoder().encode(data) : data)
    await settled()
  }

  async end() {
    this.controller.close()
    await settled()
  }
}

const SID = /^[0-9a-f]{32}$/
const HELLO = '/qio/hostname:1=null'
const HELLO_ANSWER = '/qio/callback/1:0={"code":200,"data":"example.com"}'

/** A client in a world of fakes. */
async function world(options = {}, urls = 'ws://example.com') {
  const clock = new FakeClock()
  const page = Object.assign(new EventTarget(), { document: { visibilityState: 'visible' } })
  const sockets = []
  const requests = []
  const told = []
  class Socket extends FakeSocket {
    constructor(...args) {
      super(...args)
      sockets.push(this)
    }
  }
  const fetch = (url, init) => {
    requests.push(new FakeRequest(url, init))
    return requests.at(-1).response
  }
  const qio = new QuickIO(urls, { WebSocket: Socket, fetch, clock, page, random: () => 1, ...options })
  for (const path of ['/open', '/close', '/error', '/transport']) qio.on(path, (data) => told.push([path, data]))
  await settled()
  return {
    qio, clock, page, sockets, requests, told,
    get socket() { return sockets.at(-1) },
    get request() { return requests.at(-1) },
    events: () => told.splice(0).map(([path, data]) => (data instanceof Error ? path : `${path} ${data}`)),
    show(name) { page.dispatchEvent(new Event(name)) }
  }
}

/** One that is open over WebSocket. */
async function opened(options, urls) {
  const it = await world(options, urls)
  it.socket.ohai()
  it.socket.news()
  it.told.splice(0)
  return it
}

/** One that is open over polls: the first of them, number 2, is on its way. */
async function polling(options = {}, urls) {
  const it = await world({ transports: ['poll'], ...options }, urls)
  await it.request.answer(HELLO_ANSWER)
  it.told.splice(0)
  return it
}

async function streaming(options = {}, urls) {
  const it = await world({ transports: ['stream'], ...options }, urls)
  it.stream = it.request
  await it.stream.stream(': quickio\n\n')
  it.told.splice(0)
  return it
}

const ok = (id, data = null) => `/qio/callback/${id}:0=${JSON.stringify({ code: 200, data })}`
const refused = (id, code) => `/qio/callback/${id}:0=${JSON.stringify({ code, data: null, err_msg: null })}`

// ---- The rules -----------------------------------------------------------------------------------------------------

describe('WebSocket', () => {
  test('the handshake', async () => {
    const it = await world()
    assert.equal(it.sockets.length, 1)
    assert.equal(it.socket.url, 'ws://example.com/')
    assert.deepEqual(it.socket.protocols, ['quickio'])
    it.qio.send('/a', 1, null)
    it.socket.accept()
    assert.deepEqual(it.socket.news(), ['/qio/ohai'])
    assert.equal(it.qio.state, 'connecting')
    it.socket.say('/qio/ohai')
    assert.deepEqual(it.socket.news(), ['/a:0=1'])
    assert.deepEqual(it.events(), ['/transport websocket', '/open websocket'])
  })

  test('the bytes of events', async () => {
    const it = await opened()
    it.qio.send('/a', { b: 'é' }, () => {})
    it.qio.send('/a', undefined, null)
    it.qio.send('/a')
    it.qio.on('/b', () => {})
    it.qio.on('/b', () => {})
    it.qio.on('/c', () => {}, { extra: null })
    it.qio.off('/b')
    it.qio.off('/b')
    assert.deepEqual(it.socket.news(), [
      '/a:2={"b":"é"}', '/a:0=null', '/a:3=null', '/qio/on:4="/b"', '/qio/on:5=["/c",null]', '/qio/off:0="/b"'
    ])
  })

  test('addresses', async () => {
    const cases = {
      'ws://a.example': 'ws://a.example/',
      'http://a.example:8080': 'ws://a.example:8080/',
      'https://a.example': 'wss://a.example/',
      'wss://a.example/behind/it?x=1#y': 'wss://a.example/behind/it?x=1',
      'a.example:8080': 'ws://a.example:8080/',
      'localhost': 'ws://localhost/',
      '[::1]:80': 'ws://[::1]/'
    }
    for (const [address, url] of Object.entries(cases)) assert.equal((await world({}, address)).socket.url, url)
    for (const address of ['ftp://a.example', 'ws://', 'file:///a', ' ', 'ws://a b']) {
      assert.throws(() => new QuickIO(address), TypeError, address)
    }
    assert.throws(() => new QuickIO(), /address of the server/)
    assert.throws(() => new QuickIO([]), TypeError)
  })

  test('options that cannot work are refused', () => {
    assert.throws(() => new QuickIO('ws://a', { transports: ['telegraph'] }), /no such transport: telegraph/)
    assert.throws(() => new QuickIO('ws://a', { WebSocket: null, fetch: null }), /nothing to connect with/)
    assert.throws(() => new QuickIO('ws://a', { WebSocket: null, transports: ['websocket'] }), TypeError)
  })

  test('a handshake that hangs, at each of its steps', async () => {
    const silent = await world()
    await silent.clock.advance(5000)
    assert.equal(silent.requests.length, 1)
    const swallowed = await world()
    swallowed.socket.accept()
    await swallowed.clock.advance(4999)
    assert.equal(swallowed.requests.length, 0)
    await swallowed.clock.advance(1)
    assert.equal(swallowed.requests.length, 1)
    assert.ok(swallowed.socket.closed)
  })

  test('something else than ohai', async () => {
    for (const text of ['/qio/ping:1=null', '', new ArrayBuffer(9)]) {
      const it = await world()
      it.socket.accept()
      it.socket.say(text)
      await settled()
      assert.equal(it.requests.length, 1)
    }
  })

  test('a constructor that throws', async () => {
    class Forbidden { constructor() { throw new Error('mixed content') } }
    const it = await world({ WebSocket: Forbidden })
    assert.equal(it.told[0][1].message, 'websocket: mixed content')
    assert.equal(it.requests.length, 1)
  })

  test('heartbeats, with and without a callback', async () => {
    const it = await opened()
    it.socket.say('/qio/heartbeat:0=null', '/qio/heartbeat:18446744073709551615=null', '/qio/heartbeat:7=')
    assert.deepEqual(it.socket.news(), ['/qio/callback/18446744073709551615:0=null', '/qio/callback/7:0=null'])
  })

  test('nothing heard for 65 s', async () => {
    const it = await opened()
    await it.clock.advance(64_000)
    it.socket.say('/qio/heartbeat:0=null')
    await it.clock.advance(64_999)
    assert.deepEqual(it.events(), [])
    await it.clock.advance(1)
    assert.deepEqual(it.events(), ['/close'])
    assert.ok(it.sockets[0].closed)
    await it.clock.advance(100)
    assert.equal(it.sockets.length, 2)
  })

  test('malformed events end the connection', async () => {
    const texts = [
      'this is no event', '', ':', '/a', '/a:', '/a:=1', '/a:x=1', '/a:1', '/a:-1=1', '/a:1 =1', '/a:0={',
      '/a:0=undefined', `/a:${'1'.repeat(21)}=1`, new ArrayBuffer(3), null, '/qio/callback/2:0=1',
      '/qio/callback/2:0=null',
      '/qio/callback/2:0={}', '/qio/callback/2:0={"code":"200"}', '/qio/move:0=1', '/qio/move:0="ftp://a"',
      '/qio/move:0=""'
    ]
    for (const text of texts) {
      const it = await opened()
      it.socket.say(text)
      assert.deepEqual(it.events(), ['/close', '/error'], String(text))
      assert.ok(it.socket.closed)
      it.socket.say('/b:0=1') // what was on its way
      await it.clock.advance(100)
      it.socket.ohai()
      assert.equal(it.qio.state, 'open')
    }
  })

  test('odd events that are none of these', async () => {
    const it = await opened()
    const events = []
    it.qio.on('/a', (...args) => events.push(args))
    it.socket.say('/a:0=', '/a:00= 1', '/nobody:0=1', '/open:0=1', '/close:0=1', '/error:9=1', '/qio/nothing:3=1')
    it.socket.say(':0=1', ok(77), '/qio/callback/:0={"code":200}', '/qio/callback/x/y:0={"code":200}', '/__proto__:0=1')
    assert.deepEqual(events, [[null, undefined, 200, null], [1, undefined, 200, null]])
    assert.deepEqual(it.events(), [])
  })

  test('an event with a callback is answered by its reply', async () => {
    const it = await opened()
    it.qio.on('/a', (data, reply) => reply(data + 1, null))
    it.qio.on('/a', (data, reply) => reply(data + 2, () => {}))
    it.socket.news()
    it.socket.say('/a:9=1')
    assert.deepEqual(it.socket.news(), ['/qio/callback/9:0=2', '/qio/callback/9:3=3'])
  })

  test('handlers that throw are not in the way', async (t) => {
    const thrown = []
    const it = await opened()
    t.mock.method(globalThis, 'queueMicrotask', (fn) => assert.throws(fn, ({ message }) => thrown.push(message) > 0))
    it.qio.on('/a', () => { throw new Error('one') })
    it.qio.on('/a', () => { throw new Error('two') })
    it.qio.send('/b', 1, () => { throw new Error('three') })
    it.socket.say('/a:0=1', ok(3))
    assert.deepEqual(thrown, ['one', 'two', 'three'])
    assert.equal(it.qio.state, 'open')
  })
})

describe('subscriptions', () => {
  const setup = async () => {
    const it = await opened()
    const state = []
    const subscribe = (name) => {
      it.qio.on('/a', () => {}).then(() => state.push(name), ({ code }) => state.push([name, code]))
    }
    const found = async () => {
      await settled()
      return state.splice(0)
    }
    return { ...it, socket: it.socket, subscribe, found }
  }

  test('the answer decides for all handlers', async () => {
    const it = await setup()
    it.subscribe('x')
    it.subscribe('y')
    assert.deepEqual(await it.found(), [])
    it.socket.say(ok(2))
    assert.deepEqual(await it.found(), ['x', 'y'])
    it.subscribe('z')
    assert.deepEqual(await it.found(), ['z'])
    assert.deepEqual(it.socket.news(), ['/qio/on:2="/a"'])
  })

  test('a refused one may be tried again', async () => {
    const it = await setup()
    it.subscribe('x')
    it.socket.say(refused(2, 420))
    assert.deepEqual(await it.found(), [['x', 420]])
    it.subscribe('y')
    it.socket.say(ok(3))
    assert.deepEqual(await it.found(), ['y'])
    assert.deepEqual(it.socket.news(), ['/qio/on:2="/a"', '/qio/on:3="/a"'])
  })

  test('202: the answer to the earlier request decides', async () => {
    for (const [answer, wanted] of [[ok(2), ['y']], [refused(2, 401), [['y', 401]]]]) {
      const it = await setup()
      it.subscribe('x')
      it.qio.off('/a')
      it.subscribe('y')
      assert.deepEqual(await it.found(), [['x', -3]])
      it.socket.say(refused(3, 202))
      assert.deepEqual(await it.found(), [])
      it.socket.say(answer)
      assert.deepEqual(await it.found(), wanted)
      assert.deepEqual(it.socket.news(), ['/qio/on:2="/a"', '/qio/off:0="/a"', '/qio/on:3="/a"'])
    }
  })

  test('an answer that was on its way when the path was given up says nothing about the next', async () => {
    const it = await setup()
    it.subscribe('x')
    it.qio.off('/a')
    it.subscribe('y')
    it.socket.say(ok(2))
    assert.deepEqual(await it.found(), [['x', -3]])
    it.socket.say(refused(3, 401))
    assert.deepEqual(await it.found(), [['y', 401]])
  })

  test('pending ones are asked for again on the next connection', async () => {
    const it = await opened()
    const pending = it.qio.on('/a', () => {}, { extra: 7 })
    it.socket.lose()
    await it.clock.advance(100)
    it.socket.ohai()
    assert.deepEqual(it.socket.news(), ['/qio/ohai', '/qio/on:3=["/a",7]'])
    it.socket.say(ok(3))
    await pending
  })

  test('one that is refused after a reconnect is told to the handler', async () => {
    const it = await opened()
    const errors = []
    await Promise.all([it.qio.on('/a', () => {}, (error) => errors.push(error.code)), it.socket.say(ok(2))])
    it.socket.lose()
    await it.clock.advance(100)
    it.socket.ohai()
    it.socket.say(refused(3, 401))
    assert.deepEqual(errors, [401])
  })

  test('handlers are functions', async () => {
    const it = await opened()
    for (const fn of [undefined, null, {}]) assert.throws(() => it.qio.on('/a', fn), TypeError)
    for (const path of ['', '/', '???']) assert.throws(() => it.qio.on(path, () => {}), TypeError)
  })
})

describe('connections', () => {
  test('a mangled WebSocket: the stream at once, then the poll, then none', async () => {
    const it = await world()
    it.socket.lose()
    await settled()
    assert.equal(it.request.headers.Accept, 'text/event-stream')
    await it.request.refuse(404)
    assert.equal(it.requests.length, 2)
    assert.deepEqual([it.request.method, it.request.body], ['POST', HELLO])
    await it.request.refuse(503)
    assert.equal(it.qio.state, 'waiting')
    assert.deepEqual(it.events(), ['/error', '/error', '/error'])
    assert.equal(it.clock.time, 1_000_000)
    await it.clock.advance(100)
    assert.equal(it.sockets.length, 2)
  })

  test('after a disconnect WebSocket is tried first', async () => {
    const it = await world()
    it.socket.lose()
    await settled()
    await it.request.stream(': quickio\n\n')
    assert.deepEqual(it.events(), ['/error', '/transport stream', '/open stream'])
    await it.request.end()
    await it.clock.advance(100)
    it.socket.ohai()
    assert.deepEqual(it.events(), ['/close', '/transport websocket', '/open websocket'])
    assert.equal(it.requests.length, 1)
  })

  test('a network that comes back between two attempts does not keep anybody from WebSocket', async () => {
    const it = await opened()
    it.socket.lose()
    await it.clock.advance(100)
    it.socket.lose() // the server is still away,
    await settled()
    await it.request.stream(': quickio\n\n') // and back
    assert.equal(it.requests[0].aborted, true)
    it.socket.ohai()
    assert.equal(it.qio.transport, 'websocket')
    assert.deepEqual(it.events(), ['/close', '/error', '/open websocket'])
  })

  test('where WebSocket fails again the stream is taken', async () => {
    const it = await opened()
    it.socket.lose()
    await it.clock.advance(100)
    for (const turn of [1, 2]) {
      it.socket.lose()
      await settled()
      await it.request.stream(': quickio\n\n')
      assert.equal(it.sockets.length, turn === 1 ? 3 : 3)
    }
    assert.equal(it.qio.transport, 'stream')
  })

  test('where a handshake was swallowed there is no doubt', async () => {
    const it = await opened()
    it.socket.lose()
    await it.clock.advance(100)
    it.socket.accept()
    it.socket.lose()
    await settled()
    await it.request.stream(': quickio\n\n')
    assert.equal(it.qio.transport, 'stream')
    assert.equal(it.sockets.length, 2)
  })

  test('pauses grow while connections do not last', async () => {
    const it = await world({ transports: ['websocket'] })
    const pauses = []
    for (let turn = 0; turn < 4; turn++) {
      it.socket.ohai()
      if (turn === 3) await it.clock.advance(10_000)
      it.socket.lose()
      pauses.push(it.clock.next)
      await it.clock.advance(it.clock.next)
    }
    assert.deepEqual(pauses, [100, 200, 400, 100])
  })

  test('the jitter takes away half a pause at most', async () => {
    for (const [random, pause] of [[0, 50], [0.5, 75], [0.999, 99.95]]) {
      const it = await world({ transports: ['websocket'], random: () => random })
      it.socket.lose()
      assert.ok(Math.abs(it.clock.next - pause) < 1e-6)
    }
  })

  test('several addresses take turns when they fail', async () => {
    const it = await world({ transports: ['websocket'] }, ['ws://a', 'ws://b', 'c'])
    for (let turn = 0; turn < 3; turn++) {
      it.socket.lose()
      await it.clock.advance(it.clock.next)
    }
    it.socket.ohai()
    it.socket.lose()
    await it.clock.advance(it.clock.next)
    assert.deepEqual(it.sockets.map(({ url }) => url), ['a', 'b', 'c', 'a', 'a'].map((host) => `ws://${host}/`))
  })

  test('callbacks fail, subscriptions, the queue, /open: in this order', async () => {
    const it = await opened()
    const order = []
    const names = ['/x', '/y']
    for (const path of names) it.qio.on(path, () => {})
    it.qio.send('/a', 1, (_data, _reply, code, message) => {
      order.push([code, message])
      it.qio.send('/b', 2, null)
    })
    it.qio.on('/close', () => order.push('/close'))
    it.qio.on('/open', () => order.push(it.socket.news()))
    it.socket.lose()
    it.qio.send('/c', 3, null)
    await it.clock.advance(100)
    it.socket.ohai()
    assert.deepEqual(order, [
      [-1, 'disconnected'], '/close',
      ['/qio/ohai', '/qio/on:5="/x"', '/qio/on:6="/y"', '/b:0=2', '/c:0=3']
    ])
  })

  test('what is queued does not fail at a disconnect', async () => {
    const it = await world({ transports: ['websocket'] })
    const answers = []
    it.qio.send('/a', 1, (data, _reply, code) => answers.push([data, code]))
    it.socket.lose()
    await it.clock.advance(100)
    it.socket.ohai()
    assert.deepEqual(it.socket.news(), ['/qio/ohai', '/a:2=1'])
    it.socket.say(ok(2, 'x'))
    assert.deepEqual(answers, [['x', 200]])
  })

  test('a timeout takes an event out of the queue; a late answer is dropped', async () => {
    const it = await world()
    const codes = []
    it.qio.send('/a', 1, (_data, _reply, code) => codes.push(code), { timeout: 10 })
    it.qio.send('/b', 2, (_data, _reply, code) => codes.push(code), { timeout: 30 })
    await it.clock.advance(10)
    it.socket.ohai()
    assert.deepEqual(it.socket.news(), ['/qio/ohai', '/b:3=2'])
    await it.clock.advance(20)
    it.socket.say(ok(3))
    assert.deepEqual(codes, [-2, -2])
  })

  test('a full queue says so, to whoever asked or to /error', async () => {
    const it = await world({ queueMax: 1 })
    const codes = []
    it.qio.send('/a', 1, null)
    it.qio.send('/b', 2, (_data, _reply, code) => codes.push(code))
    assert.deepEqual(codes, []) // not before `send` has returned
    it.qio.send('/c', 3, null)
    await settled()
    assert.deepEqual(codes, [-4])
    assert.equal(it.told[0][1].code, -4)
    it.socket.ohai()
    assert.deepEqual(it.socket.news(), ['/qio/ohai', '/a:0=1'])
  })

  test('close: polite, for good, and without a trace', async () => {
    const it = await opened()
    it.qio.close()
    assert.ok(it.socket.closed)
    assert.equal(it.clock.count, 0)
    it.show('pageshow')
    await it.clock.advance(100_000)
    assert.equal(it.sockets.length, 1)
    assert.deepEqual(it.events(), ['/close'])
    const early = new QuickIO('ws://a', { WebSocket: class { constructor() { assert.fail() } } })
    early.close()
    await settled()
    assert.equal(early.state, 'closed')
  })

  test('handlers may close and reconnect whenever they are called', async () => {
    for (const path of ['/open', '/close', '/error', '/transport']) {
      for (const act of ['close', 'reconnect']) {
        const it = await world({ transports: ['websocket'] })
        it.qio.one(path, () => it.qio[act]())
        it.socket.lose()
        await it.clock.advance(100)
        if (!it.socket.closed) it.socket.ohai()
        if (!it.socket.closed) it.socket.lose()
        await it.clock.advance(200)
        if (act === 'close') assert.deepEqual([it.qio.state, it.clock.count], ['closed', 0], path)
        else assert.equal(it.qio.state, 'connecting', path)
        assert.ok(it.sockets.slice(0, -1).every((socket) => socket.closed), path)
      }
    }
  })
})

describe('moves', () => {
  test('at once, with the scheme of now, never to an insecure one', async () => {
    const cases = [
      ['ws://a', 'b:81', 'ws://b:81/'],
      ['ws://a', 'wss://b', 'wss://b/'],
      ['wss://a', 'b', 'wss://b/'],
      ['wss://a', 'ws://b/c', 'wss://b/c']
    ]
    for (const [from, address, to] of cases) {
      const it = await opened({}, from)
      it.socket.say(`/qio/move:0=${JSON.stringify(address)}`)
      assert.deepEqual(it.sockets.map(({ url }) => url).at(-1), to)
      assert.equal(it.clock.time, 1_000_000)
      assert.ok(it.sockets[0].closed)
      assert.deepEqual(it.events(), ['/close'])
    }
  })

  test('where that fails it goes home', async () => {
    const it = await opened({ transports: ['websocket'] })
    it.socket.say('/qio/move:0="b"')
    it.socket.lose()
    await it.clock.advance(200)
    assert.equal(it.socket.url, 'ws://example.com/')
  })

  test('servers that send their clients to each other have to wait', async () => {
    const it = await opened({ transports: ['websocket'] })
    const pauses = []
    for (const host of ['b', 'c', 'd', 'e']) {
      it.socket.say(`/qio/move:0="${host}"`)
      pauses.push(it.qio.state === 'waiting' ? it.clock.next : 0)
      if (pauses.at(-1)) await it.clock.advance(pauses.at(-1))
      it.socket.ohai()
      assert.equal(it.socket.url, `ws://${host}/`)
    }
    assert.deepEqual(pauses, [0, 200, 400, 800])
  })
})

describe('pages', () => {
  test('one that slept too long connects anew at once', async () => {
    for (const name of ['visibilitychange', 'pageshow', 'online']) {
      const it = await opened()
      it.clock.time += 65_000 // no timer ran meanwhile
      it.page.document.visibilityState = 'hidden'
      it.show(name)
      assert.equal(it.sockets.length, 1)
      it.page.document.visibilityState = 'visible'
      it.show(name)
      assert.equal(it.sockets.length, 2)
      assert.equal(it.qio.state, 'connecting')
    }
  })

  test('one that slept less asks whether the connection is alive', async () => {
    const it = await opened()
    it.clock.time += 4999
    it.show('visibilitychange')
    assert.deepEqual(it.socket.news(), [])
    it.clock.time += 1
    it.show('visibilitychange')
    assert.deepEqual(it.socket.news(), ['/qio/ping:2=null'])
    it.socket.say(ok(2))
    await it.clock.advance(5000)
    assert.equal(it.sockets.length, 1)
    it.show('online')
    await it.clock.advance(5000)
    assert.equal(it.sockets.length, 2)
  })

  test('one that waits for the next attempt has it now', async () => {
    const it = await world({ transports: ['websocket'] })
    for (let turn = 0; turn < 8; turn++) {
      it.socket.lose()
      await it.clock.advance(it.clock.next)
    }
    it.socket.lose()
    assert.equal(it.clock.next, 25_600)
    it.show('online')
    assert.equal(it.sockets.length, 10)
    it.socket.lose()
    assert.equal(it.clock.next, 100)
  })

  test('one that is left closes, and comes back when it is shown', async () => {
    const it = await opened()
    it.qio.on('/a', () => {})
    it.show('pagehide')
    assert.ok(it.socket.closed)
    assert.deepEqual(it.events(), ['/close'])
    it.qio.send('/b', 1, null)
    await it.clock.advance(600_000)
    assert.equal(it.sockets.length, 1)
    it.show('pageshow')
    it.socket.ohai()
    assert.deepEqual(it.socket.news(), ['/qio/ohai', '/qio/on:3="/a"', '/b:0=1'])
  })

  test('a clock that was set back is no silence', async () => {
    const it = await opened()
    it.clock.time -= 3_600_000
    it.show('online')
    await it.clock.advance(1000)
    assert.equal(it.sockets.length, 1)
    assert.equal(it.qio.state, 'open')
  })
})

describe('polls', () => {
  test('the first one asks for the name of the host', async () => {
    const it = await world({ transports: ['poll'] }, 'https://example.com/behind?x=1')
    const { url, query, method, body, headers } = it.request
    assert.equal(url.origin + url.pathname, 'https://example.com/behind')
    assert.deepEqual({ ...query, sid: '' }, { x: '1', sid: '', connect: 'true', seq: '1' })
    assert.match(query.sid, SID)
    assert.deepEqual([method, body, headers], ['POST', HELLO, {}])
    await it.request.answer(HELLO_ANSWER)
    assert.deepEqual(it.events(), ['/transport poll', '/open poll'])
    assert.deepEqual(it.request.query, { x: '1', sid: query.sid, seq: '2' })
    assert.equal(it.request.body, '')
  })

  test('events share a request', async () => {
    const it = await polling()
    for (let number = 0; number < 1000; number++) it.qio.send('/a', number, null)
    await settled()
    assert.equal(it.requests.length, 3)
    assert.equal(it.request.body, Array.from({ length: 1000 }, (_, number) => `/a:0=${number}`).join('\n'))
    assert.equal(it.request.query.seq, '3')
  })

  test('two requests in flight at most, 32 KiB each, but one event whatever its size', async () => {
    const it = await polling()
    const text = 'é'.repeat(5000) // 10 KB and a bit
    for (let number = 0; number < 4; number++) it.qio.send('/a', text, null)
    it.qio.send('/b', 'x'.repeat(40_000), null)
    it.qio.send('/c', 1, null)
    await settled()
    assert.equal(it.requests.length, 3)
    await it.requests[1].answer()
    assert.equal(it.requests.length, 4)
    await it.requests[2].answer()
    await it.requests[3].answer()
    const sizes = it.requests.slice(2).map(({ body }) => body.split('\n').length)
    assert.deepEqual(sizes, [3, 1, 1, 1])
    assert.ok(it.requests[2].body.length < 32_768)
  })

  test('at once after events, after a pause where there were none', async () => {
    const it = await polling({ random: () => 0.5 })
    it.qio.on('/a', () => {})
    await settled() // number 2 is held, 3 brings the subscription
    await it.requests[1].answer()
    assert.equal(it.requests.length, 3)
    await it.request.answer(ok(2), '/a:0=1')
    assert.equal(it.requests.length, 4)
    await it.request.answer()
    assert.equal(it.requests.length, 4)
    assert.equal(it.clock.next, 1000)
    await it.clock.advance(1000)
    assert.deepEqual([it.requests.length, it.request.body], [5, ''])
    await it.request.answer()
    it.qio.send('/b', 1, null) // does not wait for the pause
    await settled()
    assert.deepEqual([it.requests.length, it.request.body], [6, '/b:0=1'])
    await it.clock.advance(1000)
    assert.equal(it.requests.length, 6)
  })

  test('responses are handled in the order of their requests', async () => {
    const it = await polling()
    const events = []
    it.qio.on('/a', (data) => events.push(data))
    await settled()
    await it.requests[2].answer(ok(2), '/a:0=2', '/a:0=3')
    assert.deepEqual(events, [])
    await it.requests[1].answer('/a:0=1', '', '\r')
    assert.deepEqual(events, [1, 2, 3])
  })

  test('events sent while a response is handled go with the next poll', async () => {
    const it = await polling()
    it.qio.on('/a', (data) => it.qio.send('/b', data, null))
    await settled()
    await it.requests[1].answer()
    await it.requests[2].answer(ok(2), '/a:0=1', '/a:0=2')
    assert.equal(it.requests.length, 4)
    assert.equal(it.request.body, '/b:0=1\n/b:0=2')
  })

  test('anything but 200 ends the connection, and the next has another sid', async () => {
    for (const status of [201, 204, 304, 400, 403, 409, 429, 503]) {
      const it = await polling()
      const { sid } = it.request.query
      it.qio.send('/a', 1).catch(() => {})
      await settled()
      await it.requests[1].refuse(status)
      assert.deepEqual(it.events(), ['/close'])
      assert.ok(it.requests[2].aborted)
      await it.clock.advance(100)
      assert.deepEqual([it.request.query.connect, it.request.query.seq], ['true', '1'])
      assert.notEqual(it.request.query.sid, sid)
    }
  })

  test('a request that breaks is repeated once, under its number', async () => {
    const it = await polling()
    await it.request.fail()
    assert.equal(it.requests.length, 3)
    assert.deepEqual(it.requests[2].query, it.requests[1].query)
    assert.deepEqual(it.events(), [])
    await it.request.fail()
    assert.deepEqual(it.events(), ['/close'])
  })

  test('a malformed event: what is behind it is not handled', async () => {
    const it = await polling()
    const events = []
    it.qio.on('/a', (data) => events.push(data))
    await settled()
    await it.requests[1].answer('/a:0=1', 'nonsense', '/a:0=2')
    assert.deepEqual(events, [1])
    assert.deepEqual(it.events(), ['/close', '/error'])
    await it.requests[2].answer('/a:0=3')
    assert.deepEqual(events, [1])
  })

  test('a captive portal is no server', async () => {
    const it = await world({ transports: ['poll'] })
    await it.request.answer('<!doctype html>', '<title>Log in</title>')
    assert.equal(it.qio.state, 'waiting')
    const silent = await world({ transports: ['poll'] })
    await silent.clock.advance(9999)
    assert.equal(silent.qio.state, 'connecting')
    await silent.clock.advance(1)
    assert.equal(silent.qio.state, 'waiting')
    assert.ok(silent.request.aborted)
  })

  test('a response that does not come for 65 s', async () => {
    const it = await polling()
    await it.clock.advance(64_999)
    assert.deepEqual(it.events(), [])
    await it.clock.advance(1)
    assert.deepEqual(it.events(), ['/close'])
  })

  test('events that wait for a request have a bound', async () => {
    const it = await polling({ queueMax: 2 })
    const codes = []
    for (let number = 0; number < 5; number++) it.qio.send('/a', number, (_data, _reply, code) => codes.push(code))
    await settled()
    assert.deepEqual(codes, [-4, -4])
  })

  test('close sends what was given to it', async () => {
    const it = await polling()
    it.qio.send('/bye', 1, null)
    it.qio.close()
    assert.deepEqual([it.request.body, it.request.keepalive, it.request.query.seq], ['/bye:0=1', true, '3'])
    assert.ok(!it.request.aborted)
    await it.request.answer()
    assert.ok(it.requests[1].aborted)
    assert.equal(it.clock.count, 0)
  })
})

describe('streams', () => {
  test('opened first, events by numbered requests', async () => {
    const it = await world({ transports: ['stream'] })
    assert.deepEqual([it.request.method, it.request.headers], ['GET', { Accept: 'text/event-stream' }])
    const { sid } = it.request.query
    assert.deepEqual(it.request.query, { sid, connect: 'true' })
    await it.request.stream(': quickio\n\n')
    assert.deepEqual(it.events(), ['/transport stream', '/open stream'])
    assert.equal(it.requests.length, 1)
    it.qio.send('/a', 1, null)
    it.qio.send('/a', 2, null)
    await settled()
    assert.deepEqual(it.request.query, { sid, seq: '1' })
    assert.deepEqual([it.request.method, it.request.body], ['POST', '/a:0=1\n/a:0=2'])
    await it.request.answer()
    assert.equal(it.requests.length, 2)
    await it.clock.advance(60_000)
    assert.equal(it.requests.length, 2)
  })

  test('in pieces of any size', async () => {
    const text = 'data:/a:0="é🐌"\n\n: a comment\nid: 7\r\n\r\ndata: /a:0=2\r\n\r\ndata:/a:0=3\n\n'
    const bytes = new TextEncoder().encode(text)
    for (const size of [1, 2, 3, 7, bytes.length]) {
      const it = await streaming()
      const events = []
      it.qio.on('/a', (data) => events.push(data))
      for (let at = 0; at < bytes.length; at += size) it.stream.controller.enqueue(bytes.slice(at, at + size))
      await settled()
      await settled()
      assert.deepEqual(events, ['é🐌', 2, 3])
    }
  })

  test('a proxy that buffers, a portal, an error: polls with another sid', async () => {
    const obstacles = [
      (it) => it.clock.advance(5000),
      (it) => it.request.stream(': qui').then(() => it.clock.advance(5000)),
      (it) => it.request.stream('<!doctype html>\n'),
      (it) => it.request.stream('').then(() => it.request.end()),
      (it) => it.request.refuse(503),
      (it) => it.request.fail()
    ]
    for (const obstacle of obstacles) {
      const it = await world({ transports: ['stream', 'poll'] })
      await obstacle(it)
      assert.equal(it.requests.length, 2)
      assert.notEqual(it.request.query.sid, it.requests[0].query.sid)
      assert.ok(it.requests[0].aborted)
      await it.request.answer(HELLO_ANSWER)
      assert.equal(it.qio.transport, 'poll')
    }
  })

  test('the end of the stream is the end of the connection', async () => {
    const it = await streaming()
    const { sid } = it.request.query
    await it.stream.end()
    assert.deepEqual(it.events(), ['/close'])
    await it.clock.advance(100)
    assert.notEqual(it.request.query.sid, sid)
  })

  test('heartbeats are answered by request, and heard', async () => {
    const it = await streaming()
    await it.clock.advance(60_000)
    await it.stream.push('data:/qio/heartbeat:5=null\n\n')
    assert.equal(it.request.body, '/qio/callback/5:0=null')
    await it.request.answer()
    await it.clock.advance(64_999)
    assert.deepEqual(it.events(), [])
    await it.clock.advance(1)
    assert.deepEqual(it.events(), ['/close'])
    assert.ok(it.stream.aborted)
  })

  test('a request that is refused, or not answered, ends the connection', async () => {
    for (const obstacle of [(it) => it.request.refuse(403), (it) => it.clock.advance(65_000)]) {
      const it = await streaming()
      it.qio.send('/a', 1, null)
      await settled()
      if (!it.told.length) await it.stream.push('data:/qio/heartbeat:0=null\n\n')
      await obstacle(it)
      assert.deepEqual(it.events(), ['/close'])
      assert.ok(it.stream.aborted)
    }
  })

  test('two requests in flight at most', async () => {
    const it = await streaming()
    for (let number = 0; number < 5; number++) {
      it.qio.send('/a', number, null)
      await settled()
    }
    assert.equal(it.requests.length, 3)
    await it.requests[1].answer()
    assert.equal(it.request.body, '/a:0=2\n/a:0=3\n/a:0=4')
  })
})

describe('the name of the host', () => {
  const named = (host) => `/qio/callback/1:0={"code":200,"data":${JSON.stringify(host)}}`

  test('is followed only where that is wanted', async () => {
    const cases = [
      [false, 'b.example', 'https://example.com'],
      [true, 'b.example', 'https://b.example'],
      [true, 'b.example:8080', 'https://b.example:8080'],
      [true, 'example.com', 'https://example.com'],
      [true, 7, 'https://example.com'],
      [true, '', 'https://example.com']
    ]
    for (const [followHostname, host, origin] of cases) {
      const it = await world({ transports: ['poll'], followHostname }, 'https://example.com')
      await it.request.answer(named(host))
      assert.equal(it.request.url.origin, origin)
      assert.equal(it.qio.state, 'open')
    }
  })

  test('is asked for once the stream is there', async () => {
    const it = await world({ transports: ['stream'], followHostname: true })
    const stream = it.request
    await stream.stream(': quickio\n\n')
    assert.equal(it.request.body, HELLO)
    assert.equal(it.qio.state, 'connecting')
    await it.request.answer()
    await stream.push(`data:${named('b.example')}\n\n`)
    it.qio.send('/a', 1, null)
    await settled()
    assert.equal(it.request.url.host, 'b.example')
  })

  test('a host that cannot be reached is given up', async () => {
    for (const obstacle of [(it) => it.request.fail(), (it) => it.request.refuse(403)]) {
      const it = await world({ transports: ['poll'], followHostname: true })
      await it.request.answer(named('b.example'))
      await obstacle(it)
      assert.equal(it.request.url.host, 'example.com')
      assert.equal(it.request.query.seq, '2')
      await it.request.answer()
      await it.clock.advance(2000)
      assert.equal(it.request.url.host, 'example.com')
      assert.equal(it.qio.state, 'open')
    }
  })
})

describe('the file', () => {
  const source = readFileSync(LIBRARY, 'utf8')

  test('is a classic script that leaves one name, and knows where it came from', () => {
    const currentScript = { src: 'https://cdn.example:8443/quickio.js' }
    const scope = { document: { currentScript }, URL, queueMicrotask, fetch() {}, setTimeout, clearTimeout }
    const before = Object.keys(scope)
    vm.createContext(scope)
    vm.runInContext(source, scope)
    assert.deepEqual(Object.keys(scope).filter((name) => !before.includes(name)), ['QuickIO'])
    scope.sockets = []
    vm.runInContext(`
      class Socket { constructor(url) { sockets.push(url) } close() {} }
      client = new QuickIO(undefined, { WebSocket: Socket })
      client.reconnect()
      client.close()`, scope)
    assert.deepEqual([...scope.sockets], ['wss://cdn.example:8443/'])
  })

  test('is an ES module with an export added', async () => {
    const text = `${source}\nexport const QuickIO = globalThis.QuickIO; export default QuickIO;`
    const module = await import(`data:text/javascript,${encodeURIComponent(text)}`)
    assert.equal(module.default, module.QuickIO)
    assert.equal(typeof module.QuickIO.prototype.send, 'function')
  })

  test('is a CommonJS module', async () => {
    assert.equal(QuickIO.QuickIO, QuickIO)
    const module = await import(LIBRARY)
    assert.equal(module.QuickIO, QuickIO)
    assert.equal(module.default, QuickIO)
  })
})

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
