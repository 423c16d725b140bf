// Arguments of the client library: each mistake throws a TypeError that names it, and changes nothing.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { QuickIO, createClient, ok, opened, polling } from './support/fakes.mjs'
import { settled } from './suite.mjs'

const LATE = [Infinity, 2 ** 31, 1e300] // longer than any timer: no limit
const NO_TIMES = [NaN, -1, -Infinity, '5', '', null, true, {}, [], 5n, Symbol('time'), () => 5]

describe('times', () => {
  test('options that are no times are refused by name', () => {
    for (const name of ['handshakeTimeout', 'silenceTimeout', 'pollDelay', 'queueMax']) {
      for (const value of NO_TIMES) {
        assert.throws(() => new QuickIO('ws://a', { [name]: value }), { name: 'TypeError', message: new RegExp(`^${name} must be`) })
      }
    }
    for (const name of ['handshakeTimeout', 'silenceTimeout']) assert.throws(() => new QuickIO('ws://a', { [name]: 0 }), TypeError)
    for (const value of LATE) assert.throws(() => new QuickIO('ws://a', { pollDelay: value }), /^TypeError: pollDelay/)
  })

  test('a timeout that is no time is refused, and nothing is sent', async () => {
    const it = await opened()
    const timers = it.clock.count
    for (const timeout of NO_TIMES) {
      assert.throws(() => it.qio.send('/a', 1, { timeout }), /^TypeError: timeout must be/)
      assert.throws(() => it.qio.send('/a', 1, () => {}, { timeout }), /^TypeError: timeout must be/)
    }
    assert.deepEqual([it.socket.takeSent(), it.clock.count], [[], timers])
  })

  test('a long timeout is no limit', async () => {
    const it = await opened()
    const timers = it.clock.count
    const codes = []
    for (const timeout of LATE) it.qio.send('/a', 1, (_data, _reply, code) => codes.push(code), { timeout })
    assert.equal(it.clock.count, timers)
    for (const id of [2, 3, 4]) it.socket.receive(ok(id))
    assert.deepEqual(codes, [200, 200, 200])
    it.qio.send('/a', 1, (_data, _reply, code) => codes.push(code), { timeout: 2 ** 31 - 1 })
    assert.equal(it.clock.count, timers + 1)
  })

  test('long times in options are no limits: nothing expires, and nothing loops', async () => {
    for (const time of LATE) {
      const it = await createClient({ handshakeTimeout: time, silenceTimeout: time })
      assert.equal(it.clock.count, 0)
      await it.clock.advance(1_000_000)
      it.socket.completeHandshake()
      await it.clock.advance(1_000_000)
      assert.deepEqual([it.qio.state, it.sockets.length, it.clock.count], ['open', 1, 0])
      const http = await polling({ handshakeTimeout: time, silenceTimeout: time })
      await http.clock.advance(1_000_000)
      assert.deepEqual([http.qio.state, http.requests.length], ['open', 2])
    }
  })

  test('random numbers out of range do not make a client loop', async () => {
    for (const [number, pause] of [[NaN, 50], [-5, 50], [Infinity, 100], [undefined, 50], ['x', 50]]) {
      const it = await createClient({ transports: ['websocket'], random: () => number })
      it.socket.drop()
      assert.equal(it.clock.next, pause)
    }
  })
})

describe('options', () => {
  test('each has a type', () => {
    const wrong = {
      transports: ['websocket', null, {}, 5], followHostname: ['yes', 1, null], WebSocket: [{}, 'ws'], fetch: [{}, true],
      page: [null, 5], random: [0.5, null], clock: [null, {}, { now() {} }, Date]
    }
    for (const [name, values] of Object.entries(wrong)) {
      for (const value of values) {
        assert.throws(() => new QuickIO('ws://a', { [name]: value }), { name: 'TypeError', message: new RegExp(`^${name} must be`) })
      }
    }
    for (const options of [5, 'x', () => {}]) assert.throws(() => new QuickIO('ws://a', options), /^TypeError: options must be/)
    for (const name of ['toString', '__proto__x', 'timeout', 'signal', 'onError']) {
      assert.throws(() => new QuickIO('ws://a', { [name]: 1 }), { name: 'TypeError', message: `no such option: ${name}` })
    }
    for (const name of ['toString', 5, Symbol('x'), null]) {
      assert.throws(() => new QuickIO('ws://a', { transports: [name] }), /^TypeError: no such transport/)
    }
  })

  test('addresses are strings or URLs', async () => {
    for (const address of [5, {}, true, () => {}]) {
      assert.throws(() => new QuickIO(address), /^TypeError: the address of a server must be/)
      assert.throws(() => new QuickIO(['ws://a', address]), /^TypeError: the address of a server must be/)
    }
    for (const address of ['ws://a:65536', 'ws://a:x', 'ws://', 'ws://a/ b', 'ws://[::1', '//a']) {
      assert.throws(() => new QuickIO(address), /^TypeError: not a ws, wss, http or https address/, address)
    }
    const cases = {
      'WSS://A.Example:443': 'wss://a.example/', 'ws://a:080/x': 'ws://a/x', 'wss://a:80': 'wss://a:80/',
      ' ws://a ': 'ws://a/', 'ws://me:secret@a': 'ws://me:secret@a/', 'http://a?x=1': 'ws://a/?x=1', 'bücher.example': 'ws://bücher.example/'
    }
    for (const [address, url] of Object.entries(cases)) assert.equal((await createClient({}, address)).socket.url, url)
    assert.equal((await createClient({}, new URL('https://a.example:8443/b'))).socket.url, 'wss://a.example:8443/b')
  })

  test('of a subscription and of an event', async () => {
    const it = await opened()
    for (const options of [5, 'x', true]) {
      assert.throws(() => it.qio.on('/a', () => {}, options), /^TypeError: options must be/)
      assert.throws(() => it.qio.send('/a', 1, () => {}, options), /^TypeError: options must be/)
    }
    assert.throws(() => it.qio.on('/a', () => {}, { onError: 'x' }), /^TypeError: onError must be a function/)
    for (const signal of [{}, 5, new AbortController()]) {
      assert.throws(() => it.qio.send('/a', 1, { signal }), /^TypeError: signal must be an AbortSignal/)
    }
    for (const fn of ['x', 5, {}]) assert.throws(() => it.qio.off('/a', fn), /^TypeError: the handler to remove must be/)
    assert.deepEqual(it.socket.takeSent(), [])
  })
})

describe('paths', () => {
  test('are strings', async () => {
    const it = await opened()
    for (const path of [undefined, null, 5, {}, ['/a'], Symbol('a'), () => '/a', new String('/a')]) {
      for (const call of [() => it.qio.send(path), () => it.qio.on(path, () => {}), () => it.qio.one(path, () => {}), () => it.qio.off(path)]) {
        assert.throws(call, /^TypeError: a path must be a string/)
      }
    }
    assert.deepEqual(it.socket.takeSent(), [])
  })
})

describe('data', () => {
  const circular = {}
  circular.self = circular
  const broken = [
    Symbol('data'), 5n, { a: [5n] }, circular,
    { toJSON() { throw new Error('broken') } }, { toJSON() { throw undefined } }, { toJSON: () => undefined }, { toJSON: () => () => {} },
    { get a() { throw 'text' } }
  ]

  test('that is not JSON is refused, and nothing is sent or changed', async () => {
    const it = await opened()
    const replies = []
    it.qio.on('/asked', (_data, reply) => replies.push(reply))
    it.socket.receive('/asked:9=1')
    it.socket.takeSent()
    for (const data of broken) {
      const calls = [
        () => it.qio.send('/a', data), () => it.qio.send('/a', data, null), () => it.qio.send('/a', data, () => {}),
        () => replies[0](data), () => it.qio.on('/b', () => {}, { extra: data })
      ]
      for (const call of calls) assert.throws(call, /^TypeError: data cannot be sent as JSON: /)
    }
    for (const call of [() => it.qio.send('/a', () => {}, () => {}), () => it.qio.send('/a', () => {}, null)]) {
      assert.throws(call, /^TypeError: data cannot be sent as JSON: it is a function/)
    }
    assert.throws(() => it.qio.send('/a', { toJSON() { throw new Error('broken') } }), /broken/)
    assert.deepEqual(it.socket.takeSent(), [])
    // The path is not half subscribed.
    it.qio.off('/b')
    it.qio.on('/b', () => {})
    assert.deepEqual(it.socket.takeSent().filter((text) => text.startsWith('/qio/on')).length, 1)
  })

  test('of a subscription is that of the call, on each connection', async () => {
    const it = await opened()
    const extra = { token: 1 }
    it.qio.on('/a', () => {}, { extra })
    extra.token = 5n
    it.socket.drop()
    await it.clock.advance(100)
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/qio/on:3=["/a",{"token":1}]'])
  })

  test('may be omitted before a callback', async () => {
    const it = await opened()
    const answers = []
    const fn = (data, reply, code) => answers.push([data, code])
    it.qio.on('/asked', (_data, reply) => reply(fn))
    it.socket.takeSent()
    assert.equal(it.qio.send('/a', fn), undefined)
    it.qio.send('/b', fn, { timeout: 10 })
    it.socket.receive('/asked:9=1', ok(3, 'x'), ok(5, 'y'))
    await it.clock.advance(10)
    assert.deepEqual(it.socket.takeSent(), ['/a:3=null', '/b:4=null', '/qio/callback/9:5=null'])
    assert.deepEqual(answers, [['x', 200], ['y', 200], [null, -2]])
  })

  test('callbacks are functions', async () => {
    const it = await opened()
    for (const fn of ['x', 5, true, Symbol('fn')]) {
      assert.throws(() => it.qio.send('/a', 1, fn), /^TypeError: the callback of an event must be a function or null/)
    }
    for (const fn of [undefined, null, 5, {}]) assert.throws(() => it.qio.on('/a', fn), /^TypeError: the handler for \/a must be a function/)
    await settled()
    assert.deepEqual(it.socket.takeSent(), [])
  })
})
