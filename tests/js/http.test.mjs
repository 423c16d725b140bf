// Polls and streams of the client library, with a fake `fetch`.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HELLO, HELLO_ANSWER, LIMIT, SID, limited, ok, polling, refused, streaming, createClient } from './support/fakes.mjs'
import { settled } from './suite.mjs'

describe('polls', () => {
  test('the first poll asks for the host name', async () => {
    const it = await createClient({ transports: ['poll'] }, 'https://example.com/behind?x=1')
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
    for (let number = 0; number < 400; number++) it.qio.send('/a', number, null)
    await settled()
    assert.equal(it.requests.length, 3)
    assert.equal(it.request.body, Array.from({ length: 400 }, (_, number) => `/a:0=${number}`).join('\n'))
    assert.equal(it.request.query.seq, '3')
  })

  test('at most two requests in flight, of 32 KiB each or one larger event', async () => {
    const it = await polling()
    const text = 'é'.repeat(5000) // a little more than 10 KB
    for (let number = 0; number < 4; number++) it.qio.send('/a', text, null)
    it.qio.send('/b', 'x'.repeat(40_000), null)
    it.qio.send('/c', 1, null)
    await settled()
    assert.deepEqual([it.requests.length, it.request.body], [3, LIMIT(2)])
    await it.requests[1].answer()
    await it.requests[2].answer(limited(2, 65_536))
    assert.equal(it.requests.length, 5)
    await it.requests[3].answer()
    await it.requests[4].answer()
    const sizes = it.requests.slice(3).map(({ body }) => body.split('\n').length)
    assert.deepEqual(sizes, [3, 1, 1, 1])
    assert.ok(it.requests[3].body.length < 32_768)
  })

  test('polls at once after events, and after a pause without events', async () => {
    const it = await polling({ random: () => 0.5 })
    it.qio.on('/a', () => {})
    await settled() // request 2 is held, request 3 sends the subscription
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

  test('handles responses in the order of their requests', async () => {
    const it = await polling()
    const events = []
    it.qio.on('/a', (data) => events.push(data))
    await settled()
    await it.requests[2].answer(ok(2), '/a:0=2', '/a:0=3')
    assert.deepEqual(events, [])
    await it.requests[1].answer('/a:0=1', '', '\r')
    assert.deepEqual(events, [1, 2, 3])
  })

  test('events sent by a handler go out with the next poll', async () => {
    const it = await polling()
    it.qio.on('/a', (data) => it.qio.send('/b', data, null))
    await settled()
    await it.requests[1].answer()
    await it.requests[2].answer(ok(2), '/a:0=1', '/a:0=2')
    assert.equal(it.requests.length, 4)
    assert.equal(it.request.body, '/b:0=1\n/b:0=2')
  })

  test('any status but 200 ends the connection; the next one has a new sid', async () => {
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

  test('repeats a broken request once with the same number', async () => {
    const it = await polling()
    await it.request.fail()
    assert.equal(it.requests.length, 3)
    assert.deepEqual(it.requests[2].query, it.requests[1].query)
    assert.deepEqual(it.events(), [])
    await it.request.fail()
    assert.deepEqual(it.events(), ['/close'])
  })

  test('does not repeat the first request, because there is no session yet', async () => {
    const it = await createClient({ transports: ['poll'] })
    await it.request.fail()
    assert.equal(it.requests.length, 1)
    assert.equal(it.qio.state, 'waiting')
  })

  test('ignores events after a malformed one', async () => {
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

  test('rejects the response of a captive portal', async () => {
    const it = await createClient({ transports: ['poll'] })
    await it.request.answer('<!doctype html>', '<title>Log in</title>')
    assert.equal(it.qio.state, 'waiting')
    const silent = await createClient({ transports: ['poll'] })
    await silent.clock.advance(9999)
    assert.equal(silent.qio.state, 'connecting')
    await silent.clock.advance(1)
    assert.equal(silent.qio.state, 'waiting')
    assert.ok(silent.request.aborted)
  })

  test('ends the connection if a response takes longer than 65 s', async () => {
    const it = await polling()
    await it.clock.advance(64_999)
    assert.deepEqual(it.events(), [])
    await it.clock.advance(1)
    assert.deepEqual(it.events(), ['/close'])
  })

  test('limits the events that wait for a request', async () => {
    const it = await polling({ queueMax: 2 })
    const codes = []
    for (let number = 0; number < 5; number++) it.qio.send('/a', number, (_data, _reply, code) => codes.push(code))
    await settled()
    assert.deepEqual(codes, [-4, -4])
  })

  test('close sends the queued events', async () => {
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
  test('opens the stream first, then sends events in numbered requests', async () => {
    const it = await createClient({ transports: ['stream'] })
    assert.deepEqual([it.request.method, it.request.headers], ['GET', { Accept: 'text/event-stream' }])
    const { sid } = it.request.query
    assert.deepEqual(it.request.query, { sid, connect: 'true', linger: 'true' })
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

  test('decodes chunks of any size', async () => {
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

  test('falls back to polls with a new sid after a buffering proxy, a portal or an error', async () => {
    const obstacles = [
      (it) => it.clock.advance(5000),
      (it) => it.request.stream(': qui').then(() => it.clock.advance(5000)),
      (it) => it.request.stream('<!doctype html>\n'),
      (it) => it.request.stream('').then(() => it.request.end()),
      (it) => it.request.refuse(503),
      (it) => it.request.fail()
    ]
    for (const obstacle of obstacles) {
      const it = await createClient({ transports: ['stream', 'poll'] })
      await obstacle(it)
      assert.equal(it.requests.length, 2)
      assert.notEqual(it.request.query.sid, it.requests[0].query.sid)
      assert.ok(it.requests[0].aborted)
      await it.request.answer(HELLO_ANSWER)
      assert.equal(it.qio.transport, 'poll')
    }
  })

  test('the end of the stream ends the connection', async () => {
    const it = await streaming()
    const { sid } = it.request.query
    await it.stream.end()
    assert.deepEqual(it.events(), ['/close'])
    await it.clock.advance(100)
    assert.notEqual(it.request.query.sid, sid)
  })

  test('answers heartbeats by request; any received data counts as activity', async () => {
    const it = await streaming()
    await it.clock.advance(60_000)
    await it.stream.push('data:/qio/heartbeat:5=null\n\n')
    assert.equal(it.request.body, '/qio/callback/5:0=null')
    await it.request.answer()
    await it.clock.advance(64_000)
    await it.stream.push(': a comment\n\n')
    await it.clock.advance(64_999)
    assert.deepEqual(it.events(), [])
    await it.clock.advance(1)
    assert.deepEqual(it.events(), ['/close'])
    assert.ok(it.stream.aborted)
  })

  test('a refused or unanswered request ends the connection', async () => {
    for (const obstacle of [(it) => it.request.refuse(403), (it) => it.clock.advance(65_000)]) {
      const it = await streaming()
      it.qio.send('/a', 1, null)
      await settled()
      if (!it.emitted.length) await it.stream.push('data:/qio/heartbeat:0=null\n\n')
      await obstacle(it)
      assert.deepEqual(it.events(), ['/close'])
      assert.ok(it.stream.aborted)
    }
  })

  test('close lets requests in flight finish, then ends the session', async () => {
    const it = await streaming()
    it.qio.send('/a', 1, null)
    await settled()
    it.qio.send('/a', 2, null)
    it.qio.close()
    await settled()
    const last = it.request
    assert.equal(last.body, '/a:0=2')
    assert.deepEqual([last.query.close, last.query.seq], ['true', '2'])
    assert.ok(!it.stream.aborted && !it.requests[1].aborted)
    await last.answer()
    assert.ok(it.stream.aborted)
    assert.equal(it.clock.count, 0)
  })

  test('close does not wait longer than the handshake timeout', async () => {
    const it = await streaming()
    it.qio.close()
    await it.clock.advance(5000)
    assert.ok(it.request.aborted && it.stream.aborted)
  })

  test('at most two requests in flight', async () => {
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

describe('the host name', () => {
  const named = (host) => `/qio/callback/1:0={"code":200,"data":${JSON.stringify(host)}}`

  test('is used only if followHostname is set', async () => {
    const cases = [
      [false, 'b.example', 'https://example.com'],
      [true, 'b.example', 'https://b.example'],
      [true, 'b.example:8080', 'https://b.example:8080'],
      [true, 'example.com', 'https://example.com'],
      [true, 7, 'https://example.com'],
      [true, '', 'https://example.com'],
      [true, 'a b', 'https://example.com'],
      [true, 'http://b.example', 'https://b.example']
    ]
    for (const [followHostname, host, origin] of cases) {
      const it = await createClient({ transports: ['poll'], followHostname }, 'https://example.com')
      await it.request.answer(named(host))
      assert.equal(it.request.url.origin, origin)
      assert.equal(it.qio.state, 'open')
    }
  })

  test('is used without the port of the address', async () => {
    const it = await createClient({ transports: ['poll'], followHostname: true }, 'http://example.com:8080')
    await it.request.answer(named('b.example'))
    assert.equal(it.request.url.origin, 'http://b.example')
  })

  test('is requested when the stream is open', async () => {
    const it = await createClient({ transports: ['stream'], followHostname: true })
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

  test('is abandoned if the host is unreachable', async () => {
    for (const obstacle of [(it) => it.request.fail(), (it) => it.request.refuse(403)]) {
      const it = await createClient({ transports: ['poll'], followHostname: true })
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
