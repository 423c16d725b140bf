// Events and subscriptions of the client library, with a fake WebSocket.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { QuickIO, ok, opened, refused, createClient } from './support/fakes.mjs'
import { settled } from './suite.mjs'

describe('WebSocket', () => {
  test('the handshake', async () => {
    const it = await createClient()
    assert.equal(it.sockets.length, 1)
    assert.equal(it.socket.url, 'ws://example.com/')
    assert.deepEqual(it.socket.protocols, ['quickio'])
    it.qio.send('/a', 1, null)
    it.socket.accept()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai'])
    assert.equal(it.qio.state, 'connecting')
    it.socket.receive('/qio/ohai')
    assert.deepEqual(it.socket.takeSent(), ['/a:0=1'])
    assert.deepEqual(it.events(), ['/transport websocket', '/open websocket'])
  })

  test('encodes events', async () => {
    const it = await opened()
    it.qio.send('/a', { b: 'é' }, () => {})
    it.qio.send('/a', undefined, null)
    it.qio.send('/a')
    it.qio.on('/b', () => {})
    it.qio.on('/b', () => {})
    it.qio.on('/c', () => {}, { extra: null })
    it.qio.off('/b')
    it.qio.off('/b')
    assert.deepEqual(it.socket.takeSent(), [
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
    for (const [address, url] of Object.entries(cases)) assert.equal((await createClient({}, address)).socket.url, url)
    for (const address of ['ftp://a.example', 'ws://', 'file:///a', ' ', 'ws://a b']) {
      assert.throws(() => new QuickIO(address), TypeError, address)
    }
    assert.throws(() => new QuickIO(), /address of the server/)
    assert.throws(() => new QuickIO([]), TypeError)
  })

  test('rejects invalid options', () => {
    assert.throws(() => new QuickIO('ws://a', { transports: ['telegraph'] }), /no such transport: telegraph/)
    assert.throws(() => new QuickIO('ws://a', { WebSocket: null, fetch: null }), /no usable transport/)
    assert.throws(() => new QuickIO('ws://a', { timeout: 1 }), /no such option: timeout/)
    assert.throws(() => new QuickIO('ws://a', { WebSocket: null, transports: ['websocket'] }), TypeError)
  })

  test('times out at each step of the handshake', async () => {
    const silent = await createClient()
    await silent.clock.advance(5000)
    assert.equal(silent.requests.length, 1)
    const swallowed = await createClient()
    swallowed.socket.accept()
    await swallowed.clock.advance(4999)
    assert.equal(swallowed.requests.length, 0)
    await swallowed.clock.advance(1)
    assert.equal(swallowed.requests.length, 1)
    assert.ok(swallowed.socket.closed)
    const slow = await createClient()
    await slow.clock.advance(4999)
    slow.socket.accept()
    await slow.clock.advance(4999)
    slow.socket.receive('/qio/ohai')
    assert.equal(slow.qio.transport, 'websocket')
  })

  test('rejects a first message other than ohai', async () => {
    for (const text of ['/qio/ping:1=null', '', new ArrayBuffer(9)]) {
      const it = await createClient()
      it.socket.accept()
      it.socket.receive(text)
      await settled()
      assert.equal(it.requests.length, 1)
    }
  })

  test('handles a constructor that throws', async () => {
    class Forbidden { constructor() { throw new Error('mixed content') } }
    const it = await createClient({ WebSocket: Forbidden })
    assert.equal(it.emitted[0][1].message, 'websocket: mixed content')
    assert.equal(it.requests.length, 1)
  })

  test('answers heartbeats that have a callback', async () => {
    const it = await opened()
    it.socket.receive('/qio/heartbeat:0=null', '/qio/heartbeat:18446744073709551615=null', '/qio/heartbeat:7=')
    assert.deepEqual(it.socket.takeSent(), ['/qio/callback/18446744073709551615:0=null', '/qio/callback/7:0=null'])
  })

  test('ends the connection after 65 s without data', async () => {
    const it = await opened()
    await it.clock.advance(64_000)
    it.socket.receive('/qio/heartbeat:0=null')
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
      'this is no event', '', ':', '/a', '/a:', '/a:=1', '/a:x=1', '/a:1', '/a:-1=1', '/a:1 =1',
      `/a:${'1'.repeat(21)}=1`, new ArrayBuffer(3), null,
      '/qio/callback/2:0=1', '/qio/callback/2:0=null', '/qio/callback/2:0={', '/qio/callback/2:0={}', '/qio/callback/2:0={"code":"200"}',
      '/qio/move:0=1', '/qio/move:0="ftp://a"', '/qio/move:0=""'
    ]
    for (const text of texts) {
      const it = await opened()
      it.socket.receive(text)
      assert.deepEqual(it.events(), ['/close', '/error'], String(text))
      assert.ok(it.socket.closed)
      it.socket.receive('/b:0=1') // still in transit
      await it.clock.advance(100)
      it.socket.completeHandshake()
      assert.equal(it.qio.state, 'open')
    }
  })

  test('reports data that is not JSON and keeps the connection', async () => {
    const it = await opened()
    const events = []
    it.qio.on('/a', (data) => events.push(data))
    it.socket.receive('/a:0={', '/a:0=undefined', '/nobody:0={', '/a:0=1')
    assert.deepEqual(events, [1])
    assert.deepEqual(it.events(), ['/error', '/error'])
    assert.equal(it.qio.state, 'open')
  })

  test('accepts unusual but valid events', async () => {
    const it = await opened()
    const events = []
    it.qio.on('/a', (...args) => events.push(args))
    it.socket.receive('/a:0=', '/a:00= 1', '/nobody:0=1', '/open:0=1', '/close:0=1', '/error:9=1', '/qio/nothing:3=1')
    it.socket.receive(':0=1', ok(77), '/qio/callback/:0={"code":200}', '/qio/callback/x/y:0={"code":200}', '/__proto__:0=1')
    assert.deepEqual(events, [[null, undefined, 200, null], [1, undefined, 200, null]])
    assert.deepEqual(it.events(), [])
  })

  test('reply answers an event that has a callback', async () => {
    const it = await opened()
    it.qio.on('/a', (data, reply) => reply(data + 1, null))
    it.qio.on('/a', (data, reply) => reply(data + 2, () => {}))
    it.socket.takeSent()
    it.socket.receive('/a:9=1')
    assert.deepEqual(it.socket.takeSent(), ['/qio/callback/9:0=2', '/qio/callback/9:3=3'])
  })

  test('a reply works only on its own connection', async () => {
    const it = await opened()
    const [replies, codes] = [[], []]
    it.qio.on('/a', (_data, reply) => replies.push(reply))
    it.socket.receive('/a:9=1')
    it.socket.drop()
    const fail = () => replies[0](1, (_data, _reply, code) => codes.push(code))
    fail()
    await it.clock.advance(100)
    it.socket.completeHandshake()
    fail()
    await settled()
    assert.deepEqual(codes, [-1, -1])
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/qio/on:3="/a"'])
  })

  test('does not call a handler that an earlier handler removed', async () => {
    const it = await opened()
    const called = []
    const second = () => called.push('second')
    it.qio.on('/a', () => it.qio.off('/a', second))
    it.qio.on('/a', second)
    it.qio.on('/a', () => called.push('third'))
    it.socket.receive('/a:0=1')
    assert.deepEqual(called, ['third'])
  })

  test('removes the timer and the listener when the answer arrives', async () => {
    const it = await opened()
    const [before, { signal }] = [it.clock.count, new AbortController()]
    const remove = signal.removeEventListener.bind(signal)
    let removed = 0
    signal.removeEventListener = (...args) => { remove(...args), removed++ }
    it.qio.send('/a', 1, () => {}, { timeout: 10, signal })
    assert.equal(it.clock.count, before + 1)
    it.socket.receive(ok(2))
    assert.deepEqual([it.clock.count, removed], [before, 1])
  })

  test('a handler that throws does not affect others', async (t) => {
    const thrown = []
    const it = await opened()
    t.mock.method(globalThis, 'queueMicrotask', (fn) => assert.throws(fn, ({ message }) => thrown.push(message) > 0))
    it.qio.on('/a', () => { throw new Error('one') })
    it.qio.on('/a', () => { throw new Error('two') })
    it.qio.send('/b', 1, () => { throw new Error('three') })
    it.socket.receive('/a:0=1', ok(3))
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

  test('one answer settles the promises of all handlers', async () => {
    const it = await setup()
    it.subscribe('x')
    it.subscribe('y')
    assert.deepEqual(await it.found(), [])
    it.socket.receive(ok(2))
    assert.deepEqual(await it.found(), ['x', 'y'])
    it.subscribe('z')
    assert.deepEqual(await it.found(), ['z'])
    assert.deepEqual(it.socket.takeSent(), ['/qio/on:2="/a"'])
  })

  test('can subscribe again after a refusal', async () => {
    const it = await setup()
    it.subscribe('x')
    it.socket.receive(refused(2, 420))
    assert.deepEqual(await it.found(), [['x', 420]])
    it.subscribe('y')
    it.socket.receive(ok(3))
    assert.deepEqual(await it.found(), ['y'])
    assert.deepEqual(it.socket.takeSent(), ['/qio/on:2="/a"', '/qio/on:3="/a"'])
  })

  test('202: the answer to the earlier request decides', async () => {
    for (const [answer, wanted] of [[ok(2), ['y']], [refused(2, 401), [['y', 401]]]]) {
      const it = await setup()
      it.subscribe('x')
      it.qio.off('/a')
      it.subscribe('y')
      assert.deepEqual(await it.found(), [['x', -3]])
      it.socket.receive(refused(3, 202))
      assert.deepEqual(await it.found(), [])
      it.socket.receive(answer)
      assert.deepEqual(await it.found(), wanted)
      assert.deepEqual(it.socket.takeSent(), ['/qio/on:2="/a"', '/qio/off:0="/a"', '/qio/on:3="/a"'])
    }
  })

  test('ignores the answer to a subscription that was removed', async () => {
    const it = await setup()
    it.subscribe('x')
    it.qio.off('/a')
    it.subscribe('y')
    it.socket.receive(ok(2))
    assert.deepEqual(await it.found(), [['x', -3]])
    it.socket.receive(refused(3, 401))
    assert.deepEqual(await it.found(), [['y', 401]])
  })

  test('a handler added while disconnected waits for the next answer', async () => {
    const it = await setup()
    it.subscribe('x')
    it.socket.receive(ok(2))
    it.socket.drop()
    it.subscribe('y')
    assert.deepEqual(await it.found(), ['x'])
  })

  test('requests pending subscriptions again on the next connection', async () => {
    const it = await opened()
    const pending = it.qio.on('/a', () => {}, { extra: 7 })
    it.socket.drop()
    await it.clock.advance(100)
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/qio/on:3=["/a",7]'])
    it.socket.receive(ok(3))
    await pending
  })

  test('calls onError of a subscription that is refused after a reconnect', async () => {
    const it = await opened()
    const errors = []
    await Promise.all([it.qio.on('/a', () => {}, (error) => errors.push(error.code)), it.socket.receive(ok(2))])
    it.socket.drop()
    await it.clock.advance(100)
    it.socket.completeHandshake()
    it.socket.receive(refused(3, 401))
    assert.deepEqual(errors, [401])
  })

  test('rejects invalid handlers and paths', async () => {
    const it = await opened()
    for (const fn of [undefined, null, {}]) assert.throws(() => it.qio.on('/a', fn), TypeError)
    for (const path of ['', '/', '???']) assert.throws(() => it.qio.on(path, () => {}), TypeError)
  })
})
