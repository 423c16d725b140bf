// The control socket.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { startApp, withImports } from '../support/library.mjs'
import { event, start } from '../support/server.mjs'

describe('the control socket', () => {
  test('answers pings while requests are in progress', async () => {
    const worker = start(withImports(`
      app.log('warn', 'l\\u0001ne')
      app.event('/log', () => { app.log('info', 'x'.repeat(2_000_000)) })
      app.event('/wait', () => new Promise(() => {}))`))
    assert.deepEqual(await worker.line(), { log: 'warn', text: 'l\u0001ne' })
    await worker.ready()
    worker.links[0].send(event({ number: 1 }))
    worker.control.write('{"ping":7}\n{"unknown":1}\n{"pi')
    assert.deepEqual(await worker.line(), { pong: 7 })
    worker.control.write('ng":8}\n')
    assert.deepEqual(await worker.line(), { pong: 8 })
    worker.links[0].send(event({ request: 2 }))
    const { log, text } = await worker.line()
    assert.deepEqual([log, text.length], ['info', 128 * 1024])
    worker.kill()
  })

  for (const line of ['{', 'null', '1', `"${'x'.repeat(1_100_000)}`]) {
    test(`rejects the line ${line.slice(0, 10)}`, async () => {
      const worker = await startApp('')
      worker.control.write(`${line}${line.length > 10 ? '' : '\n'}`)
      assert.equal(await worker.exit(), 1)
      assert.match(worker.stderr, /protocol error: a line of the control socket/)
    })
  }
})
