// The end of a client: everything that was passed to `send` is sent, in order, as far as the platform allows.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HELLO_ANSWER, createClient, limited, opened, polling, streaming } from './support/fakes.mjs'
import { settled } from './suite.mjs'

const KIB = 1024
const numbers = (count) => Array.from({ length: count }, (_, number) => number)

/** Sends `count` events of about `size` bytes. Returns their texts. */
function sendMany(it, count, size) {
  const text = 'x'.repeat(size)
  for (const number of numbers(count)) it.qio.send('/a', [number, text], null)
  return numbers(count).map((number) => `/a:0=[${number},"${text}"]`)
}

/** Creates a client that knows that the limit of the server is the default. */
async function informed(create, options) {
  const it = await create(options)
  it.qio.send('/a', 'x'.repeat(5000), null)
  await settled()
  if (it.socket) it.socket.receive(limited(2, 65_536))
  for (let at = it.stream ? 1 : 2; at < it.requests.length; at++) {
    await it.requests[at].answer(...(at === (it.stream ? 1 : 2) ? [limited(2, 65_536)] : []))
  }
  if (!it.stream && !it.socket) await it.requests[1].answer()
  it.requests.splice(0, it.requests.length - (it.stream ? 0 : 1))
  return it
}

const bodies = (requests) => requests.flatMap(({ body }) => body?.split('\n') ?? []).filter(Boolean)

describe('close', () => {
  for (const [name, create] of [['a stream', streaming], ['polls', polling]]) {
    test(`over ${name}: sends everything, in as many requests as it takes`, async () => {
      const it = await informed(create)
      const from = it.requests.length
      const texts = sendMany(it, 100, 3000)
      let isDone = false
      const closed = it.qio.close().then(() => { isDone = true })
      assert.equal(it.qio.state, 'closed')
      for (let at = Math.max(0, from - 1); at < it.requests.length; at++) {
        assert.ok(it.requests.slice(at).length <= 3, 'too many requests in flight')
        assert.equal(isDone, false)
        if (it.requests[at].method === 'POST') await it.requests[at].answer()
      }
      await closed
      const sent = it.requests.slice(from)
      assert.deepEqual(bodies(sent), texts)
      assert.deepEqual(sent.map(({ query }) => query.close), [...sent.slice(1).map(() => undefined), 'true'])
      assert.deepEqual(sent.map(({ query }) => Number(query.seq) - Number(sent[0].query.seq)), numbers(sent.length))
      for (const { body } of sent) assert.ok(body.length <= 32 * KIB)
      assert.equal(it.clock.count, 0)
      assert.equal(it.requests.filter(({ query }) => query.connect).length <= 1, true)
    })

    test(`over ${name}: keepalive is used within the 64 KiB of the browser`, async () => {
      const it = await informed(create)
      const from = it.requests.length
      sendMany(it, 100, 3000)
      it.qio.close()
      await settled()
      const inFlight = it.requests.slice(from).filter(({ keepalive }) => keepalive)
      assert.ok(inFlight.length >= 1)
      assert.ok(inFlight.reduce((sum, { body }) => sum + body.length, 0) <= 64 * KIB)
      await it.clock.advance(5000)
    })

    test(`over ${name}: gives up if nothing is answered for handshakeTimeout, but not before`, async () => {
      const it = await informed(create)
      sendMany(it, 100, 3000)
      const closed = it.qio.close()
      for (let turn = 0; turn < 3; turn++) {
        await it.clock.advance(4999)
        const open = it.requests.filter(({ method, aborted, answered }) => method === 'POST' && !aborted && !answered)
        open[0].answered = true
        await open[0].answer()
      }
      assert.ok(!it.request.aborted)
      await it.clock.advance(5000)
      await closed
      assert.ok(it.request.aborted)
      assert.equal(it.clock.count, 0)
    })
  }

  test('repeats a request that breaks, with the same number and without keepalive', async () => {
    const it = await streaming()
    it.qio.send('/a', 1, null)
    const closed = it.qio.close()
    await settled()
    await it.request.fail() // as if the page had used up its 64 KiB
    assert.deepEqual([it.requests.length, it.request.body, it.request.keepalive, it.request.query.close], [3, '/a:0=1', false, 'true'])
    await it.request.answer()
    await closed
    assert.ok(it.stream.aborted)
  })

  test('ends if the session is over', async () => {
    for (const status of [403, 409, 413, 503]) {
      const it = await streaming()
      it.qio.send('/a', 1, null)
      const closed = it.qio.close()
      await settled()
      await it.request.refuse(status)
      await closed
      assert.deepEqual([it.requests.length, it.clock.count], [2, 0])
    }
  })

  test('over WebSocket: events that wait for the limit are sent before the close; resolves when the socket is closed', async () => {
    const it = await opened()
    const order = []
    it.socket.send = (text) => order.push(text.slice(0, 4))
    it.socket.close = () => order.push('close')
    it.qio.send('/a', 'x'.repeat(5000), null)
    it.qio.send('/b', 1, null)
    let isDone = false
    const closed = it.qio.close().then(() => { isDone = true })
    await settled()
    assert.deepEqual([order, isDone], [['/qio', '/a:0', '/b:0', 'close'], false])
    it.socket.drop(1000)
    await closed
    assert.equal(it.qio.state, 'closed')
  })

  test('while connecting: the queued events are sent on a connection of their own', async () => {
    const it = await createClient()
    const codes = []
    it.qio.send('/a', 1, (_data, _reply, code) => codes.push(code))
    it.qio.send('/b', 2, null)
    const closed = it.qio.close()
    assert.deepEqual([it.qio.state, codes], ['closed', [-1]])
    assert.ok(it.sockets[0].closed)
    it.sockets[1].drop()
    await settled()
    await it.request.stream(': quickio\n\n')
    assert.deepEqual([it.request.body, it.request.query.close], ['/a:2=1\n/b:0=2', 'true'])
    await it.request.answer()
    await closed
    assert.deepEqual([it.qio.state, it.events(), it.clock.count], ['closed', [], 0])
  })

  test('without a server: the promise resolves, and nothing is left', async () => {
    const it = await createClient()
    it.socket.drop()
    await settled()
    await it.request.fail()
    await it.request.fail()
    assert.equal(it.qio.state, 'waiting')
    it.qio.send('/a', 1, null)
    const closed = it.qio.close()
    await it.clock.advance(20_000)
    await closed
    assert.equal(it.clock.count, 0)
    await createClient().then(({ qio }) => qio.close())
    const idle = await createClient()
    await Promise.all([idle.qio.close(), idle.socket.drop(), idle.qio.close()])
  })

  test('reconnect sends what the old connection still has', async () => {
    const it = await streaming()
    it.qio.send('/a', 1, null)
    it.qio.reconnect()
    await settled()
    const [last] = it.requests.filter(({ query }) => query.close)
    assert.equal(last.body, '/a:0=1')
  })
})

describe('leaving the page', () => {
  test('sends up to 64 KiB in requests with keepalive, in order; the rest is sent if the page is restored', async () => {
    const it = await informed(streaming)
    const from = it.requests.length
    const codes = []
    const texts = sendMany(it, 100, 3000)
    it.qio.send('/last', 1, (_data, _reply, code) => codes.push(code))
    it.dispatch('pagehide')
    const sent = it.requests.slice(from)
    assert.ok(sent.every(({ keepalive }) => keepalive))
    const bytes = sent.reduce((sum, { body }) => sum + body.length, 0)
    assert.ok(bytes <= 64 * KIB && bytes > 60 * KIB, `${bytes} bytes`)
    assert.deepEqual(sent.map(({ query }) => query.close), [...sent.slice(1).map(() => undefined), 'true'])
    assert.deepEqual(bodies(sent), texts.slice(0, bodies(sent).length))
    for (const request of sent) await request.answer()
    assert.deepEqual([it.events(), codes], [['/close'], []])
    const resumed = it.requests.length
    it.dispatch('pageshow')
    await it.request.stream(': quickio\n\n')
    await settled()
    for (let at = resumed; at < it.requests.length; at++) {
      if (at === resumed) await it.requests[at].push(`data:${limited(Number(it.requests[at + 1].body.match(/limits:(\d+)/)[1]), 65_536)}\n\n`)
      else await it.requests[at].answer()
    }
    const rest = bodies(it.requests.slice(resumed)).filter((text) => text.startsWith('/a:'))
    assert.deepEqual(bodies(sent).concat(rest), texts)
  })

  test('repeats the requests in flight, which the browser aborts', async () => {
    const it = await streaming()
    it.qio.send('/a', 1, null)
    await settled()
    it.qio.send('/b', 2, null)
    it.dispatch('pagehide')
    const sent = it.requests.slice(1).map(({ query, body, keepalive }) => [query.seq, query.close, body, keepalive])
    assert.deepEqual(sent, [
      ['1', undefined, '/a:0=1', false], ['1', undefined, '/a:0=1', true], ['2', 'true', '/b:0=2', true]
    ])
    for (const request of it.requests.slice(1)) await request.answer()
    assert.equal(it.clock.count, 0)
  })

  test('also while close is still sending', async () => {
    const it = await informed(streaming)
    const from = it.requests.length
    const texts = sendMany(it, 25, 3000)
    it.qio.close()
    await settled()
    it.dispatch('pagehide')
    const sent = it.requests.slice(from)
    assert.ok(sent.filter(({ keepalive }) => keepalive).reduce((sum, { body }) => sum + body.length, 0) <= 64 * KIB)
    assert.equal(sent.at(-1).query.close, 'true')
    assert.deepEqual([...new Set(bodies(sent))].length > 20, true)
    assert.deepEqual([...new Set(bodies(sent))], texts.slice(0, new Set(bodies(sent)).size))
    for (const request of sent) await request.answer()
  })

  test('several clients share the 64 KiB', async () => {
    const clients = [await informed(streaming), await informed(streaming)]
    for (const it of clients) sendMany(it, 30, 3000)
    for (const it of clients) it.dispatch('pagehide')
    const requests = clients.flatMap((it) => it.requests).filter(({ keepalive }) => keepalive)
    assert.ok(requests.reduce((sum, { body }) => sum + body.length, 0) <= 64 * KIB)
    for (const request of requests) await request.answer()
  })

  test('a client that is not open keeps its queue', async () => {
    const it = await createClient({ transports: ['poll'] })
    it.qio.send('/a', 1, null)
    it.dispatch('pagehide')
    it.dispatch('pageshow')
    await it.request.answer(HELLO_ANSWER)
    assert.equal(it.request.body, '/a:0=1')
  })
})
