// The client library and the limits of the server: the size of events and requests, and `Retry-After`.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HELLO_ANSWER, LIMIT, createClient, limited, ok, opened, polling, refused, streaming } from './support/fakes.mjs'
import { settled } from './suite.mjs'

/** Returns data with which an event at `path` has so many bytes in all. */
const sized = (path, bytes) => 'x'.repeat(bytes - `${path}:0=""`.length)

describe('the size of events', () => {
  test('small events cause no question', async () => {
    const it = await opened()
    for (let number = 0; number < 100; number++) it.qio.send('/a', sized('/a', 4096), null)
    assert.equal(it.socket.takeSent().length, 100)
  })

  test('a large event waits for the limit, and those after it', async () => {
    const it = await opened()
    it.qio.send('/a', sized('/a', 4097), null)
    it.qio.send('/b', 1, null)
    it.qio.send('/c', sized('/c', 5000), null)
    assert.deepEqual(it.socket.takeSent(), [LIMIT(2)])
    it.socket.receive(limited(2, 100_000))
    assert.deepEqual(it.socket.takeSent().map((text) => [text.slice(0, 3), text.length]), [['/a:', 4097], ['/b:', 6], ['/c:', 5000]])
    it.qio.send('/d', sized('/d', 100_000), null)
    assert.equal(it.socket.takeSent()[0].length, 100_000)
  })

  test('an event over the limit fails alone, after send has returned', async () => {
    const it = await opened()
    const failures = []
    const record = (name) => (_data, _reply, code, message) => failures.push([name, code, message])
    it.qio.send('/a', sized('/a', 5000), () => {})
    it.socket.receive(limited(3, 5000))
    it.socket.takeSent()
    it.qio.send('/b', sized('/b', 5001), record('b'))
    it.qio.send('/c', 'é'.repeat(2500), record('c'))
    it.qio.send('/d', sized('/d', 5001), null)
    it.qio.on('/e', () => {}, { extra: 'x'.repeat(5000), onError: ({ code }) => failures.push(['e', code]) })
    it.qio.send('/f', sized('/f', 5000), null)
    assert.deepEqual(failures, [])
    await settled()
    assert.deepEqual(failures, [
      ['b', -5, 'the event has 5001 bytes, but the server accepts at most 5000'],
      ['c', -5, 'the event has 5007 bytes, but the server accepts at most 5000'],
      ['e', -5]
    ])
    assert.deepEqual(it.socket.takeSent().map((text) => text.length), [5000])
    assert.deepEqual(it.emitted.map(([path, { code }]) => [path, code]), [['/error', -5]])
    assert.equal(it.qio.state, 'open')
  })

  test('a server that does not know the question, or answers nonsense or nothing, has the default', async () => {
    const answers = [
      (it) => it.socket.receive(refused(2, 404)), (it) => it.clock.advance(5000),
      ...[null, 5, {}, { message_bytes_max: '9' }, { message_bytes_max: -1 }, { message_bytes_max: 1e999 }, { message_bytes_max: 0 }]
        .map((data) => (it) => it.socket.receive(ok(2, data)))
    ]
    for (const answer of answers) {
      const it = await opened()
      it.qio.send('/a', sized('/a', 65_536), null)
      it.qio.send('/a', sized('/a', 65_537), null)
      it.socket.takeSent()
      await answer(it)
      await settled()
      assert.deepEqual(it.socket.takeSent().map((text) => text.length), [65_536])
      assert.deepEqual(it.events(), ['/error'])
    }
  })

  test('each connection is asked again', async () => {
    const it = await opened()
    it.qio.send('/a', sized('/a', 5000), null)
    it.socket.receive(limited(2, 6000))
    it.socket.drop()
    it.qio.send('/a', sized('/a', 5001), null)
    await it.clock.advance(100)
    it.socket.completeHandshake()
    assert.deepEqual(it.socket.takeSent(), ['/qio/ohai', LIMIT(3)])
    it.socket.receive(limited(3, 5000))
    await settled()
    assert.deepEqual([it.socket.takeSent(), it.events()], [[], ['/close', '/open websocket', '/error']])
  })

  test('a reply can be too large', async () => {
    const it = await opened()
    const codes = []
    it.qio.on('/a', (_data, reply) => reply('x'.repeat(5000), (_data, _reply, code) => codes.push(code)))
    it.socket.receive('/a:9=1', limited(4, 100))
    await settled()
    assert.deepEqual(codes, [-5])
  })
})

describe('the size of requests', () => {
  test('is at most the limit of the server', async () => {
    for (const limit of [4096, 5000, 20_000, 65_536, 1_000_000]) {
      const it = await streaming()
      const sent = []
      for (let number = 0; number < 1000; number++) {
        sent.push(`/a:0="${number} ${'é'.repeat(number % 7)}"`)
        it.qio.send('/a', `${number} ${'é'.repeat(number % 7)}`, null)
      }
      await settled()
      const [first] = it.requests.slice(1)
      assert.ok(first.body.startsWith(`${LIMIT(2)}\n`))
      assert.ok(Buffer.byteLength(first.body) <= 4096)
      await it.stream.push(`data:${limited(2, limit)}\n\n`)
      for (let at = 1; at < it.requests.length; at++) await it.requests[at].answer()
      const bodies = it.requests.slice(1).map(({ body }) => body)
      assert.deepEqual(bodies.join('\n').split('\n').slice(1), sent)
      for (const body of bodies) assert.ok(Buffer.byteLength(body) <= Math.min(32 * 1024, limit))
    }
  })

  test('polls, too: a large event alone may be longer than other bodies', async () => {
    const it = await polling()
    it.qio.send('/a', sized('/a', 60_000), null)
    it.qio.send('/b', sized('/b', 60_001), null)
    it.qio.send('/c', 1, null)
    await settled()
    assert.equal(it.request.body, LIMIT(2))
    await it.requests[1].answer()
    await it.requests[2].answer(limited(2, 60_000))
    assert.deepEqual(it.requests.slice(3).map(({ body }) => body.length), [60_000, 6])
    assert.deepEqual(it.events(), ['/error'])
  })
})

describe('Retry-After', () => {
  test('lengthens the pause, up to a minute, with a random part', async () => {
    const date = (it, ms) => new Date(it.clock.now() + ms).toUTCString()
    const cases = [
      [503, () => '7', 7000], [429, () => '7', 7000], [503, () => '0', 100], [503, () => '', 100], [503, () => '-3', 100],
      [503, () => 'soon', 100], [503, () => '1e9', 100], [503, () => '99999999999', 60_000], [503, () => '9'.repeat(400), 60_000],
      [503, (it) => date(it, 30_000), 30_000], [503, (it) => date(it, 1e9), 60_000], [503, (it) => date(it, -5000), 100],
      [400, () => '7', 100]
    ]
    for (const [status, value, pause] of cases) {
      for (const random of [0, 1]) {
        const it = await createClient({ transports: ['poll'], random: () => random })
        await it.request.refuse(status, { 'Retry-After': value(it) })
        const expected = pause === 100 ? 50 + 50 * random : pause * (1 + random / 2)
        assert.equal(it.qio.state, 'waiting')
        // Dates have seconds.
        assert.ok(Math.abs(it.clock.next - expected) < 1500 && (pause > 100 || it.clock.next === expected), `${value(it)}: ${it.clock.next}`)
        await it.clock.advance(it.clock.next - 1)
        assert.equal(it.requests.length, 1)
        await it.clock.advance(1)
        assert.equal(it.requests.length, 2)
      }
    }
  })

  test('no further transport is tried', async () => {
    const it = await createClient({ transports: ['stream', 'poll'] })
    await it.request.refuse(503, { 'Retry-After': '2' })
    assert.deepEqual([it.requests.length, it.qio.state, it.clock.next], [1, 'waiting', 3000])
  })

  test('counts for an open session, and only for the address that asked', async () => {
    const it = await polling()
    await it.request.refuse(503, { 'Retry-After': '5' })
    assert.deepEqual([it.events(), it.clock.next], [['/close'], 7500])
    const two = await createClient({ transports: ['poll'] }, ['http://a', 'http://b'])
    await two.request.refuse(503, { 'Retry-After': '50' })
    assert.equal(two.clock.next, 100)
    await two.clock.advance(100)
    assert.equal(two.request.url.host, 'b')
    await two.request.answer(HELLO_ANSWER)
    assert.equal(two.qio.state, 'open')
  })
})
