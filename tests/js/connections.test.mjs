// How the client library connects: the choice of transport, time and address, and the order of what follows.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HELLO, QuickIO, ok, opened, createClient } from './support/fakes.mjs'
import { settled } from './suite.mjs'

describe('connections', () => {
  test('after a mangled WebSocket: tries the stream at once, then the poll, then pauses', async () => {
    const it = await createClient()
    it.socket.drop()
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

  test('tries WebSocket first after a disconnect', async () => {
    const it = await createClient()
    it.socket.drop()
    await settled()
    await it.request.stream(': quickio\n\n')
    assert.deepEqual(it.events(), ['/error', '/transport stream', '/open stream'])
    await it.request.end()
    await it.clock.advance(100)
    it.socket.completeHandshake()
    assert.deepEqual(it.events(), ['/close', '/transport websocket', '/open websocket'])
    assert.equal(it.requests.length, 1)
  })

  test('returns to WebSocket if the network recovers between two attempts', async () => {
    const it = await opened()
    it.socket.drop()
    await it.clock.advance(100)
    it.socket.drop() // the server is still down,
    await settled()
    await it.request.stream(': quickio\n\n') // and up again
    assert.equal(it.requests[0].aborted, true)
    it.socket.completeHandshake()
    assert.equal(it.qio.transport, 'websocket')
    assert.deepEqual(it.events(), ['/close', '/error', '/open websocket'])
  })

  test('uses the stream if WebSocket fails again', async () => {
    const it = await opened()
    it.socket.drop()
    await it.clock.advance(100)
    for (const turn of [1, 2]) {
      it.socket.drop()
      await settled()
      await it.request.stream(': quickio\n\n')
      assert.equal(it.sockets.length, turn === 1 ? 3 : 3)
    }
    assert.equal(it.qio.transport, 'stream')
  })

  test('does not retry WebSocket if the failed attempt reached a peer', async () => {
    const it = await opened()
    it.socket.drop()
    await it.clock.advance(100)
    it.socket.accept()
    it.socket.drop()
    await settled()
    await it.request.stream(': quickio\n\n')
    assert.equal(it.qio.transport, 'stream')
    assert.equal(it.sockets.length, 2)
  })

  test('doubles the pauses while connections are short-lived', async () => {
    const it = await createClient({ transports: ['websocket'] })
    const pauses = []
    for (let turn = 0; turn < 4; turn++) {
      it.socket.completeHandshake()
      if (turn === 3) await it.clock.advance(10_000)
      it.socket.drop()
      pauses.push(it.clock.next)
      await it.clock.advance(it.clock.next)
    }
    assert.deepEqual(pauses, [100, 200, 400, 100])
  })

  test('jitter shortens a pause by at most half', async () => {
    for (const [random, pause] of [[0, 50], [0.5, 75], [0.999, 99.95]]) {
      const it = await createClient({ transports: ['websocket'], random: () => random })
      it.socket.drop()
      assert.ok(Math.abs(it.clock.next - pause) < 1e-6)
    }
  })

  test('switches to the next address after a failure', async () => {
    const it = await createClient({ transports: ['websocket'] }, ['ws://a', 'ws://b', 'c'])
    for (let turn = 0; turn < 3; turn++) {
      it.socket.drop()
      await it.clock.advance(it.clock.next)
    }
    it.socket.completeHandshake()
    it.socket.drop()
    await it.clock.advance(it.clock.next)
    assert.deepEqual(it.sockets.map(({ url }) => url), ['a', 'b', 'c', 'a', 'a'].map((host) => `ws://${host}/`))
  })

  test('order after a disconnect: callbacks fail, subscriptions, queue, /open', async () => {
    const it = await opened()
    const order = []
    const names = ['/x', '/y']
    for (const path of names) it.qio.on(path, () => {})
    it.qio.send('/a', 1, (_data, _reply, code, message) => {
      order.push([code, message])
      it.qio.send('/b', 2, null)
    })
    it.qio.on('/close', () => order.push('/close'))
    it.qio.on('/open', () => order.push(it.socket.takeSent()))
    it.socket.drop()
    it.qio.send('/c', 3, null)
    await it.clock.advance(100)
    it.socket.completeHandshake()
    assert.deepEqual(order, [
      [-1, 'disconnected'], '/close',
      ['/qio/ohai', '/qio/on:5="/x"', '/qio/on:6="/y"', '/b:0=2', '/c:0=3']
    ])
  })

  test('queued events do not fail at a disconnect', async () => {
    const it = await createClient({ transports: ['websocket'] })
    const answers = []
    it.qio.send('/a', 1, (data, _reply, code) => answers.push([data, code]))
    it.socket.drop()
    await it.clock.advance(100)
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/a:2=1'])
    it.socket.receive(ok(2, 'x'))
    it.socket.drop()
    it.qio.send('/b', 1, (data, _reply, code) => answers.push([data, code]))
    it.qio.reconnect()
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/b:3=1'])
    assert.deepEqual(answers, [['x', 200]])
  })

  test('a failing callback may close the client', async () => {
    const it = await opened()
    it.qio.send('/a', 1, () => it.qio.close())
    it.socket.drop()
    assert.deepEqual([it.qio.state, it.clock.count], ['closed', 0])
  })

  test('a timeout removes an event from the queue; a late answer is ignored', async () => {
    const it = await createClient()
    const codes = []
    it.qio.send('/a', 1, (_data, _reply, code) => codes.push(code), { timeout: 10 })
    it.qio.send('/b', 2, (_data, _reply, code) => codes.push(code), { timeout: 30 })
    await it.clock.advance(10)
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/b:3=2'])
    await it.clock.advance(20)
    it.socket.receive(ok(3))
    assert.deepEqual(codes, [-2, -2])
  })

  test('a full queue fails the callback, or emits /error if there is none', async () => {
    const it = await createClient({ queueMax: 1 })
    const codes = []
    it.qio.send('/a', 1, null)
    it.qio.send('/b', 2, (_data, _reply, code) => codes.push(code))
    assert.deepEqual(codes, []) // not before `send` has returned
    it.qio.send('/c', 3, null)
    await settled()
    assert.deepEqual(codes, [-4])
    assert.equal(it.emitted[0][1].code, -4)
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/a:0=1'])
  })

  test('close is permanent and leaves no timer or listener', async () => {
    const it = await opened()
    it.qio.close()
    assert.ok(it.socket.closed)
    assert.equal(it.clock.count, 0)
    it.dispatch('pageshow')
    await it.clock.advance(100_000)
    assert.equal(it.sockets.length, 1)
    assert.deepEqual(it.events(), ['/close'])
    const early = new QuickIO('ws://a', { WebSocket: class { constructor() { assert.fail() } } })
    early.close()
    await settled()
    assert.equal(early.state, 'closed')
  })

  test('every handler may close and reconnect the client', async () => {
    for (const path of ['/open', '/close', '/error', '/transport']) {
      for (const act of ['close', 'reconnect']) {
        const it = await createClient({ transports: ['websocket'] })
        it.qio.one(path, () => it.qio[act]())
        it.socket.drop()
        await it.clock.advance(100)
        if (!it.socket.closed) it.socket.completeHandshake()
        if (!it.socket.closed) it.socket.drop()
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
  test('moves at once, keeps the scheme, never changes to an insecure one', async () => {
    const cases = [
      ['ws://a', 'b:81', 'ws://b:81/'],
      ['ws://a', 'wss://b', 'wss://b/'],
      ['wss://a', 'b', 'wss://b/'],
      ['wss://a', 'ws://b/c', 'wss://b/c']
    ]
    for (const [from, address, to] of cases) {
      const it = await opened({}, from)
      it.socket.receive(`/qio/move:0=${JSON.stringify(address)}`)
      assert.deepEqual(it.sockets.map(({ url }) => url).at(-1), to)
      assert.equal(it.clock.time, 1_000_000)
      assert.ok(it.sockets[0].closed)
      assert.deepEqual(it.events(), ['/close'])
    }
  })

  test('returns to its own address if the move fails', async () => {
    const it = await opened({ transports: ['websocket'] })
    it.socket.receive('/qio/move:0="b"')
    it.socket.drop()
    await it.clock.advance(200)
    assert.equal(it.socket.url, 'ws://example.com/')
  })

  test('pauses between repeated moves', async () => {
    const it = await opened({ transports: ['websocket'] })
    const pauses = []
    for (const host of ['b', 'c', 'd', 'e']) {
      it.socket.receive(`/qio/move:0="${host}"`)
      pauses.push(it.qio.state === 'waiting' ? it.clock.next : 0)
      if (pauses.at(-1)) await it.clock.advance(pauses.at(-1))
      it.socket.completeHandshake()
      assert.equal(it.socket.url, `ws://${host}/`)
    }
    assert.deepEqual(pauses, [0, 200, 400, 800])
  })
})

describe('pages', () => {
  test('reconnects at once after a long sleep', async () => {
    for (const name of ['visibilitychange', 'pageshow', 'online']) {
      const it = await opened()
      it.clock.time += 65_000 // no timer ran meanwhile
      it.page.document.visibilityState = 'hidden'
      it.dispatch(name)
      assert.equal(it.sockets.length, 1)
      it.page.document.visibilityState = 'visible'
      it.dispatch(name)
      assert.equal(it.sockets.length, 2)
      assert.equal(it.qio.state, 'connecting')
    }
  })

  test('sends a ping after a shorter sleep', async () => {
    const it = await opened()
    it.clock.time += 4999
    it.dispatch('visibilitychange')
    assert.deepEqual(it.socket.takeSent(), [])
    it.clock.time += 1
    it.dispatch('visibilitychange')
    assert.deepEqual(it.socket.takeSent(), ['/qio/ping:2=null'])
    it.socket.receive(ok(2))
    await it.clock.advance(5000)
    assert.equal(it.sockets.length, 1)
    it.dispatch('online')
    await it.clock.advance(5000)
    assert.equal(it.sockets.length, 2)
  })

  test('makes a pending attempt at once', async () => {
    const it = await createClient({ transports: ['websocket'] })
    for (let turn = 0; turn < 8; turn++) {
      it.socket.drop()
      await it.clock.advance(it.clock.next)
    }
    it.socket.drop()
    assert.equal(it.clock.next, 25_600)
    it.dispatch('online')
    assert.equal(it.sockets.length, 10)
    it.socket.drop()
    assert.equal(it.clock.next, 100)
  })

  test('disconnects on pagehide, reconnects on pageshow', async () => {
    const it = await opened()
    it.qio.on('/a', () => {})
    it.dispatch('pagehide')
    assert.ok(it.socket.closed)
    assert.deepEqual(it.events(), ['/close'])
    it.qio.send('/b', 1, null)
    await it.clock.advance(600_000)
    assert.equal(it.sockets.length, 1)
    it.dispatch('pageshow')
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', '/qio/on:3="/a"', '/b:0=1'])
  })

  test('ignores a clock that was set back', async () => {
    const it = await opened()
    it.clock.now = () => it.clock.time - 3_600_000 // timers do not care
    it.dispatch('online')
    await it.clock.advance(64_999)
    assert.equal(it.sockets.length, 1)
    assert.equal(it.qio.state, 'open')
    await it.clock.advance(1)
    assert.equal(it.qio.state, 'waiting')
  })
})
