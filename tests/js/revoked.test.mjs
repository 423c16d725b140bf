// Subscriptions that the server ends because its rules were changed.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ok, opened } from './support/fakes.mjs'

describe('a subscription that is not allowed any more', () => {
  test('ends, and is reported to onError or /error', async () => {
    const it = await opened()
    it.socket.takeSent()
    const failures = []
    it.qio.on('/a', () => failures.push('an event'), ({ code, message }) => failures.push(['a', code, message]))
    it.qio.on('/b', () => failures.push('an event'))
    const ids = it.socket.takeSent().map((text) => Number(/^\/qio\/on:(\d+)=/.exec(text)[1]))
    for (const id of ids) it.socket.receive(ok(id))
    it.socket.receive('/qio/off:0="/a"')
    it.socket.receive('/qio/off:0="/b"')
    it.socket.receive('/qio/off:0="/unknown"')
    it.socket.receive('/a:0=1')
    assert.deepEqual(failures, [['a', 401, 'not allowed any more']])
    assert.deepEqual(it.emitted.map(([path, { code }]) => [path, code]), [['/error', 401]])
    assert.equal(it.qio.state, 'open')
    // It can be tried again.
    it.qio.on('/a', () => {})
    assert.match(it.socket.takeSent()[0], /^\/qio\/on:\d+="\/a"$/)
  })

  test('that was requested anew is decided by its own answer', async () => {
    const it = await opened()
    it.socket.takeSent()
    let failures = 0
    it.qio.on('/a', () => {}, () => { failures += 1 })
    it.socket.receive('/qio/off:0="/a"')
    assert.equal(failures, 0)
  })
})
