// The client library and tokens: when they are got, and what waits for them.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { HELLO_ANSWER, createClient, ok, refused } from './support/fakes.mjs'
import { settled } from './suite.mjs'

const auth = (id, token) => `/qio/auth:${id}="${token}"`

/** Returns a client that gets these tokens in order. An error is thrown. */
async function withTokens(tokens, options) {
  const given = []
  const token = async () => {
    const next = tokens.shift() ?? null
    given.push(next)
    if (next instanceof Error) throw next
    return next
  }
  const it = await createClient({ transports: ['websocket'], token, ...options })
  return Object.assign(Object.create(it), { given })
}

/** Completes the handshake of the latest socket; returns what the client sends then. */
async function greet(it) {
  it.socket.completeHandshake()
  await settled()
  return it.socket.takeSent().slice(1)
}

const expiring = (it, seconds) => ({ user: '7', expires: it.clock.now() / 1000 + seconds })

describe('tokens', () => {
  test('nothing is sent before the server has accepted the token', async () => {
    const it = await withTokens(['a'])
    it.qio.on('/room', () => {})
    it.qio.send('/say', 1, null)
    assert.deepEqual(await greet(it), [auth(2, 'a')])
    assert.equal(it.qio.state, 'connecting')
    it.socket.receive(ok(2, expiring(it, 3600)))
    await settled()
    assert.equal(it.qio.state, 'open')
    assert.deepEqual(it.socket.takeSent(), ['/qio/on:3="/room"', '/say:0=1'])
    assert.deepEqual(it.events(), ['/transport websocket', '/open websocket'])
  })

  test('over HTTP the token is the first event too', async () => {
    const it = await withTokens(['a'], { transports: ['poll'] })
    it.qio.send('/say', 1, null)
    await it.request.answer(HELLO_ANSWER)
    await settled()
    const sent = it.request
    assert.equal(sent.body, auth(2, 'a'))
    for (const held of it.requests.slice(1).filter((request) => request !== sent)) await held.answer()
    await sent.answer(ok(2, { user: '7', expires: null }))
    assert.equal(it.qio.state, 'open')
    assert.equal(it.requests.filter(({ body }) => body === '/say:0=1').length, 1)
  })

  test('a token that is refused is got once more', async () => {
    const it = await withTokens(['old', 'new'])
    assert.deepEqual(await greet(it), [auth(2, 'old')])
    it.socket.receive(refused(2, 401))
    await settled()
    assert.deepEqual(it.socket.takeSent(), [auth(3, 'new')])
    it.socket.receive(ok(3, { user: '7', expires: null }))
    await settled()
    assert.equal(it.qio.state, 'open')
  })

  test('without a token that is accepted, the client tries again later', async () => {
    for (const tokens of [['a', 'b', 'c'], [new Error('not logged in'), 'c'], [7, 'c']]) {
      const it = await withTokens(tokens)
      let id = 2
      for (const sent of await greet(it)) {
        assert.equal(sent, auth(id, 'a'))
        it.socket.receive(refused(id++, 401))
        await settled()
        it.socket.receive(refused(id, 401))
        await settled()
      }
      assert.deepEqual([it.qio.state, it.socket.closed], ['waiting', true])
      assert.deepEqual(it.events(), ['/error'])
      await it.clock.advance(1000)
      await settled()
      assert.equal((await greet(it))[0].replace(/:\d+/, ':n'), '/qio/auth:n="c"')
    }
  })

  test('without an answer or a token in time, the client tries again later', async () => {
    const it = await withTokens(['a'])
    await greet(it)
    await it.clock.advance(5000)
    await settled()
    assert.equal(it.qio.state, 'waiting')
    const never = await createClient({ transports: ['websocket'], token: () => new Promise(() => {}) })
    never.socket.completeHandshake()
    await settled()
    await never.clock.advance(10_000)
    await settled()
    assert.equal(never.qio.state, 'waiting')
  })

  test('no token, or a server that knows none, is no error', async () => {
    const anonymous = await withTokens([])
    assert.deepEqual(await greet(anonymous), [])
    assert.equal(anonymous.qio.state, 'open')
    const old = await withTokens(['a'])
    await greet(old)
    old.socket.receive(refused(2, 404))
    await settled()
    assert.equal(old.qio.state, 'open')
  })

  test('another token is sent before the token expires', async () => {
    const it = await withTokens(['a', 'b', 'c'])
    await greet(it)
    it.socket.receive(ok(2, expiring(it, 3600)))
    await settled()
    it.socket.takeSent()
    // The silence timeout of the client is shorter.
    for (let second = 0; second < 3539; second += 59) {
      await it.clock.advance(59_000)
      it.socket.receive('/qio/heartbeat:0=null')
    }
    await settled()
    await it.clock.advance(1000)
    await settled()
    assert.deepEqual(it.socket.takeSent(), [auth(3, 'b')])
    it.socket.receive(ok(3, expiring(it, 100)))
    await settled()
    assert.equal(it.qio.state, 'open')
    await it.clock.advance(60_000)
    await settled()
    assert.deepEqual(it.socket.takeSent(), [auth(4, 'c')])
  })

  test('an event that is refused is sent once more with another token', async () => {
    const it = await withTokens(['a', 'b', 'c'])
    await greet(it)
    it.socket.receive(ok(2, { user: '7', expires: null }))
    await settled()
    it.socket.takeSent()
    await it.clock.advance(30_000)
    const answers = []
    it.qio.send('/say', 1, (data, _reply, code) => answers.push([data, code]))
    assert.deepEqual(it.socket.takeSent(), ['/say:3=1'])
    it.socket.receive(refused(3, 401))
    await settled()
    assert.deepEqual(it.socket.takeSent(), [auth(4, 'b')])
    it.socket.receive(ok(4, { user: '7', expires: null }))
    await settled()
    assert.deepEqual(it.socket.takeSent(), ['/say:3=1'])
    // The second refusal counts, and a token was got a moment ago.
    it.socket.receive(refused(3, 401))
    it.qio.send('/say', 2, (data, _reply, code) => answers.push([data, code]))
    it.socket.receive(refused(5, 401))
    await settled()
    assert.deepEqual(answers, [[null, 401], [null, 401]])
    assert.deepEqual(it.given, ['a', 'b'])
  })

  test('events that were queued when the client was closed are sent behind a token', async () => {
    const it = await withTokens(['a'])
    it.qio.send('/say', 1, null)
    const closed = it.qio.close()
    await settled()
    it.socket.completeHandshake()
    await settled()
    assert.deepEqual(it.socket.takeSent().slice(1), [auth(0, 'a'), '/say:0=1'])
    it.socket.drop(1000)
    await closed
  })

  test('the option must be a function', () => {
    return assert.rejects(() => createClient({ token: 'abc' }), /token must be a function, but is "abc"/)
  })
})
