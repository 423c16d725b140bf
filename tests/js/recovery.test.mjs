// The client library and the positions of events: what it sends and expects on the wire, and readers whose connections
// break at random while events are published.

import assert from 'node:assert/strict'
import { after, describe, test } from 'node:test'
import { createClient, ok, opened } from './support/fakes.mjs'
import { HISTORY, QuickIO, Server, WebSocket } from './support/server.mjs'
import { TcpProxy } from './support/proxy.mjs'
import { settled } from './suite.mjs'

const refusal = (id, code, message) => `/qio/callback/${id}:0=${JSON.stringify({ code, data: null, err_msg: message })}`
const answer = (id, at, events, complete = true) => ok(id, { at, events, complete })

/** A handler that keeps the numbers and what it is told, in order. */
function recorder(options) {
  const log = []
  const fn = (data, _reply, _code, _message, position) => log.push(position ? `${data}@${position}` : data)
  return { log, fn, options: { onRecover: (recovery) => log.push(recovery), ...options } }
}

/** The requests among what was sent, without their callbacks. */
const requests = (it) => it.socket.takeSent().filter((text) => text !== '/qio/ohai').map((text) => text.replace(/:\d+=/, '='))

async function reconnected(it) {
  it.socket.drop()
  await it.clock.advance(it.clock.next)
  it.socket.completeHandshake()
}

/** Returns the callback of the latest request of a subscription. */
const last = (it) => Number(/\/qio\/on:(\d+)=/.exec(it.socket.sent.findLast((text) => text.startsWith('/qio/on:')))[1])

describe('positions', () => {
  test('the client subscribes with the position that it has', async () => {
    const it = await opened()
    const { log, fn, options } = recorder({ history: 2 })
    const promise = it.qio.on('/a', fn, options)
    it.socket.receive(answer(last(it), 'e1.7', 2), '/qio/at/6/a:0="six"', '/qio/at/7/a:0="seven"', '/qio/at/8/a:0="eight"')
    assert.deepEqual(requests(it), ['/qio/on=["/a",null,{"history":2}]'])
    const first = { recovered: false, events: 2, position: 'e1.5' }
    assert.deepEqual(log.splice(0), [first, 'six@e1.6', 'seven@e1.7', 'eight@e1.8'])
    assert.deepEqual([await promise, it.qio.position('/a')], [first, 'e1.8'])
    await reconnected(it)
    const id = last(it)
    assert.deepEqual(requests(it), ['/qio/on=["/a",null,{"since":"e1.8","history":2}]'])
    // Events before the answer are of an earlier subscription.
    it.socket.receive('/qio/at/9/a:0="early"', answer(id, 'e1.9', 1), '/qio/at/9/a:0="nine"')
    assert.deepEqual(log.splice(0), [{ recovered: true, events: 1, position: 'e1.8' }, 'nine@e1.9'])
    // Events are missing.
    await reconnected(it)
    it.socket.receive(answer(last(it), 'e1.90', 2, false), '/qio/at/89/a:0=89', '/qio/at/90/a:0=90')
    assert.deepEqual(log.splice(0), [{ recovered: false, events: 2, position: 'e1.88' }, '89@e1.89', '90@e1.90'])
    // Another epoch.
    await reconnected(it)
    it.socket.receive(answer(last(it), 'e2.0', 0, false))
    assert.deepEqual(log.splice(0), [{ recovered: false, events: 0, position: 'e2.0' }])
    assert.equal(it.qio.position('/a'), 'e2.0')
  })

  test('the application stores the position', async () => {
    const it = await opened()
    const [stored, none] = [recorder({ since: 'e1.5', extra: 7 }), recorder({ since: null })]
    it.qio.on('/a', stored.fn, stored.options)
    assert.equal(it.qio.position('/a'), 'e1.5')
    it.socket.receive(answer(last(it), 'e1.5', 0))
    it.qio.on('/b', none.fn, none.options)
    it.socket.receive(answer(last(it), 'e9.5', 0))
    assert.deepEqual(requests(it), ['/qio/on=["/a",7,{"since":"e1.5"}]', '/qio/on=["/b",null,{"history":0}]'])
    assert.deepEqual([stored.log, none.log],
      [[{ recovered: true, events: 0, position: 'e1.5' }], [{ recovered: false, events: 0, position: 'e9.5' }]])
    assert.equal(it.qio.position('/other'), null)
  })

  test('a new epoch, and lost events', async () => {
    const it = await opened()
    const { log, fn, options } = recorder({})
    it.qio.on('/a', fn, options)
    it.socket.receive('/qio/lost:0=["/a",1]', '/qio/at:0=["/a","e0.7"]')
    it.socket.receive(answer(last(it), 'e1.3', 0), '/qio/lost:0=["/a",2]', '/qio/at/6/a:0=6', '/qio/lost:0=["/a",null]')
    it.socket.receive('/qio/at:0=["/a","e2.0"]', '/qio/at/1/a:0=1', '/qio/lost:0=["/other",2]', '/qio/at:0=["/other","e2.0"]')
    assert.deepEqual(log, [
      { recovered: false, events: 0, position: 'e1.3' }, { recovered: false, events: 0, position: 'e1.5', lost: 2 }, '6@e1.6',
      { recovered: false, events: 0, position: 'e1.6', lost: null }, '1@e2.1'
    ])
    for (const malformed of ['/qio/at:0="/a"', '/qio/at:0=["/a","e2"]', '/qio/lost:0=["/a"]', '/qio/lost:0=["/a",-1]']) {
      const other = await opened()
      other.socket.receive(malformed)
      assert.equal(other.qio.state, 'waiting', malformed)
    }
  })

  test('data that is not JSON has a position too', async () => {
    const it = await opened()
    const { log, fn, options } = recorder({})
    it.qio.on('/a', fn, options)
    it.socket.receive(answer(last(it), 'e1.3', 0), '/qio/at/4/a:0={', '/qio/at/5/a:0=5')
    assert.deepEqual([log.slice(1), it.events()], [['5@e1.5'], ['/error']])
  })

  test('without history the client subscribes plainly', async () => {
    for (const message of ['no history', 'invalid json ev_path']) {
      const it = await opened()
      const { log, fn, options } = recorder({ history: 3, extra: 7 })
      it.qio.on('/a', fn, options)
      it.socket.receive(refusal(last(it), 400, message))
      it.socket.receive('/a:0="early"', ok(last(it)), '/a:0=1')
      assert.deepEqual(requests(it), ['/qio/on=["/a",7,{"history":3}]', '/qio/on=["/a",7]'])
      assert.deepEqual(log.splice(0), [{ recovered: false, events: 0, position: null }, 1])
      // A further handler has no history either, and the next connection tries again.
      const further = recorder({ history: 1 })
      it.qio.on('/a', further.fn, further.options)
      await settled()
      assert.deepEqual([further.log, requests(it)], [[{ recovered: false, events: 0, position: null }], []])
      await reconnected(it)
      it.socket.receive(answer(last(it), 'e1.3', 1), '/qio/at/3/a:0=3')
      assert.deepEqual(requests(it), ['/qio/on=["/a",7,{"history":3}]'])
      assert.deepEqual([log[0].events, log[1]], [1, '3@e1.3'])
    }
    // Without options a 400 is a refusal.
    const it = await opened()
    let refused
    it.qio.on('/a', () => {}, { history: 3, onError: ({ code }) => { refused = code } })
    for (let turn = 0; turn < 2; turn++) it.socket.receive(refusal(last(it), 400, 'refused'))
    assert.equal(refused, 400)
  })

  test('a server that is busy is asked again after a pause', async () => {
    for (const [code, message] of [[420, 'the server is busy'], [409, 'already subscribed'], [202, 'subscription pending']]) {
      const it = await opened()
      const { log, fn, options } = recorder({})
      it.qio.on('/a', fn, options)
      for (const pause of [1000, 2000]) {
        it.socket.receive(refusal(last(it), code, message))
        it.socket.takeSent()
        await it.clock.advance(pause - 1)
        assert.deepEqual(requests(it), [])
        await it.clock.advance(1)
        const id = last(it)
        assert.deepEqual(requests(it), ['/qio/off="/a"', '/qio/on=["/a",null,{"history":0}]'])
        it.socket.sent.push(`/qio/on:${id}=`)
      }
      it.socket.receive(answer(last(it), 'e1.3', 0))
      assert.equal(log.length, 1)
    }
    // A handler that was removed meanwhile is not subscribed, and a connection that was lost begins anew.
    const it = await opened()
    it.qio.on('/a', () => {}, { recover: true })
    it.qio.on('/b', () => {}, { recover: true })
    const id = last(it)
    it.socket.receive(refusal(id - 1, 420, 'the server is busy'), refusal(id, 420, 'the server is busy'))
    it.qio.off('/a')
    it.socket.takeSent()
    await reconnected(it)
    assert.deepEqual(requests(it), ['/qio/on=["/b",null,{"history":0}]'])
    await it.clock.advance(3000)
    assert.deepEqual(requests(it), [])
  })

  test('an earlier request that is not decided counts', async () => {
    const it = await opened()
    it.qio.on('/a', () => {}, { history: 1 })
    const first = last(it)
    it.qio.off('/a')
    const { log, fn, options } = recorder({ history: 5 })
    it.qio.on('/a', fn, options)
    it.socket.receive(refusal(last(it), 202, 'subscription pending'), answer(first, 'e1.3', 1), '/qio/at/3/a:0=3')
    assert.deepEqual(log, [{ recovered: false, events: 1, position: 'e1.2' }, '3@e1.3'])
    // One without options does not have positions: the client subscribes anew.
    it.qio.on('/b', () => {})
    const plain = last(it)
    it.qio.off('/b')
    it.qio.on('/b', fn, options)
    it.socket.receive(refusal(last(it), 202, 'subscription pending'))
    it.socket.takeSent()
    it.socket.receive(ok(plain))
    assert.deepEqual(requests(it), ['/qio/off="/b"', '/qio/on=["/b",null,{"history":5}]'])
  })

  test('handlers of one path', async () => {
    const it = await opened()
    const [plain, two, late] = [recorder({ onRecover: undefined }), recorder({ history: 2 }), recorder({ recover: true })]
    it.qio.on('/a', plain.fn)
    it.socket.receive(ok(last(it)), '/a:0="plain"')
    it.qio.on('/a', two.fn, two.options)
    const id = last(it)
    it.socket.receive('/a:0="between"', answer(id, 'e1.9', 2), ...[8, 9, 10].map((number) => `/qio/at/${number}/a:0=${number}`))
    assert.deepEqual(requests(it), ['/qio/on="/a"', '/qio/off="/a"', '/qio/on=["/a",null,{"history":2}]'])
    assert.deepEqual(plain.log.splice(0), ['plain', 'between', '10@e1.10'])
    assert.deepEqual(two.log.splice(0), [{ recovered: false, events: 2, position: 'e1.7' }, '8@e1.8', '9@e1.9', '10@e1.10'])
    // One that wants only what is new from now on needs no request.
    it.qio.on('/a', late.fn, late.options)
    await settled()
    assert.deepEqual([requests(it), late.log.splice(0)], [[], [{ recovered: false, events: 0, position: 'e1.10' }]])
    // One that wants more than the others gets them, and the others get nothing twice.
    const three = recorder({ history: 3 })
    it.qio.on('/a', three.fn, three.options)
    const next = last(it)
    assert.deepEqual(requests(it), ['/qio/off="/a"', '/qio/on=["/a",null,{"since":"e1.7","history":3}]'])
    it.socket.receive('/qio/at/11/a:0="early"', answer(next, 'e1.11', 4), ...[8, 9, 10, 11].map((n) => `/qio/at/${n}/a:0=${n}`))
    assert.deepEqual(plain.log.splice(0), ['11@e1.11'])
    assert.deepEqual(two.log.splice(0), [{ recovered: true, events: 1, position: 'e1.10' }, '11@e1.11'])
    assert.deepEqual(late.log.splice(0), [{ recovered: true, events: 1, position: 'e1.10' }, '11@e1.11'])
    assert.deepEqual(three.log.splice(0), [{ recovered: false, events: 3, position: 'e1.8' }, '9@e1.9', '10@e1.10', '11@e1.11'])
    // Without handlers that want positions, the next connection has none.
    for (const { fn } of [two, three, late]) it.qio.off('/a', fn)
    await reconnected(it)
    it.socket.receive(ok(last(it)), '/a:0="plain"')
    assert.deepEqual([requests(it), plain.log, it.qio.position('/a')], [['/qio/on="/a"'], ['plain'], null])
  })

  test('a handler that is added before the answer gets its events too', async () => {
    const it = await opened()
    const [one, two] = [recorder({ history: 1 }), recorder({ history: 2 })]
    it.qio.on('/a', one.fn, one.options)
    it.qio.on('/a', two.fn, two.options)
    it.socket.receive(answer(last(it), 'e1.9', 1))
    const id = last(it)
    assert.deepEqual(requests(it).slice(1), ['/qio/off="/a"', '/qio/on=["/a",null,{"history":2}]'])
    it.socket.receive('/qio/at/9/a:0=9', answer(id, 'e1.9', 2), '/qio/at/8/a:0=8', '/qio/at/9/a:0=9')
    assert.deepEqual(one.log, [{ recovered: false, events: 1, position: 'e1.8' }, '9@e1.9'])
    assert.deepEqual(two.log, [{ recovered: false, events: 2, position: 'e1.7' }, '8@e1.8', '9@e1.9'])
  })

  test('one() with history gets one event, and handlers that throw have had theirs', async () => {
    const it = await opened()
    const reported = []
    globalThis.reportError = (error) => reported.push(error.message)
    try {
      const { log, fn, options } = recorder({ history: 2 })
      it.qio.one('/a', fn, options)
      it.qio.on('/b', () => { throw new Error('thrown') }, { recover: true, onRecover: () => { throw new Error('thrown too') } })
      const id = last(it)
      it.socket.receive(answer(id - 1, 'e1.2', 2), '/qio/at/1/a:0=1', '/qio/at/2/a:0=2')
      it.socket.receive(answer(id, 'e1.2', 0), '/qio/at/3/b:0=3')
      assert.deepEqual(log, [{ recovered: false, events: 2, position: 'e1.0' }, '1@e1.1'])
      assert.deepEqual([reported, it.qio.position('/a'), it.qio.position('/b')], [['thrown too', 'thrown'], null, 'e1.3'])
    } finally {
      delete globalThis.reportError
    }
  })

  test('earlier events are read', async () => {
    const it = await opened()
    const events = it.qio.history('//a/', { limit: 2, before: 'e1.5' })
    const all = it.qio.history('/a')
    assert.deepEqual(it.socket.takeSent(), ['/qio/history:2=["/a",{"limit":2,"before":"e1.5"}]', '/qio/history:3=["/a",{}]'])
    it.socket.receive(ok(2, { at: 'e1.9', events: [[3, 'c'], [4, { d: 1 }]] }), refusal(3, 400, 'no history'))
    assert.deepEqual(await events, [{ position: 'e1.3', data: 'c' }, { position: 'e1.4', data: { d: 1 } }])
    await assert.rejects(all, { code: 400, message: 'no history' })
    const late = it.qio.history('/a', { timeout: 100 })
    await it.clock.advance(100)
    await assert.rejects(late, { code: -2 })
  })

  test('wrong options throw', async () => {
    const it = await createClient()
    const table = [
      [{ history: -1 }, /history must be/], [{ history: 1.5 }, /history must be/], [{ since: 'e1' }, /since must be/],
      [{ since: 7 }, /since must be/], [{ recover: 1 }, /recover must be/], [{ onRecover: 1 }, /onRecover must be/]
    ]
    for (const [options, message] of table) assert.throws(() => it.qio.on('/a', () => {}, options), message)
    assert.throws(() => it.qio.history('/a', { before: 'x' }), /before must be/)
    assert.throws(() => it.qio.history('/a', { limit: '5' }), /limit must be/)
    assert.throws(() => it.qio.history('/a', 5), /options must be/)
  })
})

describe('readers whose connections break while events are published', async () => {
  const server = await Server.start({ settings: HISTORY })
  const proxy = await TcpProxy.inFrontOf(server)
  after(async () => {
    await proxy.end()
    await server.stop()
  })

  test('get every event once and in order', { timeout: 120_000 }, async () => {
    const EVENTS = 600
    const path = '/relay/kept/broken'
    const publisher = new QuickIO(`ws://${server.address}`, { WebSocket })
    const told = []
    const readers = ['websocket', 'websocket', 'websocket', 'stream', 'stream', 'poll', 'poll'].map((transport) => {
      const qio = new QuickIO(proxy.url, { WebSocket, transports: [transport], pollDelay: 10 })
      const seen = []
      const started = qio.on(path, (data) => seen.push(data), { onRecover: (recovery) => told.push(recovery) })
      return { qio, seen, started }
    })
    await Promise.all(readers.map(({ started }) => started))
    for (let number = 0; number < EVENTS; number++) {
      await publisher.send(path, number)
      if (number % 60 === 30) proxy.cut()
    }
    const expected = Array.from({ length: EVENTS }, (_, number) => number)
    const deadline = Date.now() + 60_000
    const isBehind = ({ seen }) => seen.at(-1) !== EVENTS - 1
    while (readers.some(isBehind) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20))
    for (const { seen } of readers) assert.deepEqual(seen, expected)
    const again = told.slice(readers.length)
    assert.ok(again.length >= readers.length && again.every(({ recovered }) => recovered), JSON.stringify(again))
    assert.ok(again.some(({ events }) => events > 0))
    await Promise.all([publisher, ...readers.map(({ qio }) => qio)].map((qio) => qio.close()))
  })
})
