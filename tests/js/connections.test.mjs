// The client library's rules for connecting: which transport, when, where, and in which order things happen then.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HELLO, QuickIO, ok, opened, world } from './support/fakes.mjs'
import { settled } from './suite.mjs'

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
    it.socket.lose()
    it.qio.send('/b', 1, (data, _reply, code) => answers.push([data, code]))
    it.qio.reconnect()
    it.socket.ohai()
    assert.deepEqual(it.socket.news(), ['/qio/ohai', '/b:3=1'])
    assert.deepEqual(answers, [['x', 200]])
  })

  test('a callback that fails may close the client', async () => {
    const it = await opened()
    it.qio.send('/a', 1, () => it.qio.close())
    it.socket.lose()
    assert.deepEqual([it.qio.state, it.clock.count], ['closed', 0])
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
        if (path === '/transport') assert.ok(!it.events().includes('/open websocket'))
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
    it.clock.now = () => it.clock.time - 3_600_000 // timers do not care
    it.show('online')
    await it.clock.advance(64_999)
    assert.equal(it.sockets.length, 1)
    assert.equal(it.qio.state, 'open')
    await it.clock.advance(1)
    assert.equal(it.qio.state, 'waiting')
  })
})
