// Registration of events, and the properties of `app`.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ask, assertBytes, expectFrames, startApp, stop } from '../support/library.mjs'
import { FROM_WORKER, answer, frame } from '../support/server.mjs'

describe('registration', () => {
  test('is announced in ready, with timers and files', async () => {
    const worker = await startApp(
      `import './lib/other.mjs'
       app.event('/plain', () => {})
       app.event('//room/!', { children: true }, () => {}).on(() => true).off(() => {})
       app.event('/none', { subscriptions: false }).off(() => {})
       app.every(1.5, () => {})
       app.after(1, () => {})
       app.every(0.001, () => {})
       app.every(1.1, () => {})
       app.every(0.0012, () => {})`,
      {
        files: {
          'lib/other.mjs': `import 'dep'`,
          'node_modules/dep/package.json': '{"main":"index.js"}',
          'node_modules/dep/index.js': ''
        }
      }
    )
    const folder = worker.script.replace('/app.mjs', '')
    assert.deepEqual(worker.manifest, {
      version: 1,
      events: [
        { path: '/plain', children: false, handler: true, subscriptions: 'everyone', off: false },
        { path: '/room', children: true, handler: true, subscriptions: 'ask', off: true, options: true },
        { path: '/none', children: false, handler: false, subscriptions: 'nobody', off: true }
      ],
      // Rounded up, but not because 1.1 * 1000 is 1100.0000000000002.
      timers: [{ timer: 1, ms: 1500 }, { timer: 3, ms: 1 }, { timer: 4, ms: 1100 }, { timer: 5, ms: 2 }],
      files: [`${folder}/app.mjs`, `${folder}/lib/other.mjs`]
    })
    await expectFrames(worker.links[0], frame(FROM_WORKER.TIMER, { number: 2, time: 1000 }))
    await stop(worker)
  })

  test('is allowed in a start hook, and not later', async () => {
    const worker = await startApp(`
      app.start(async () => { await null; app.event('/late', () => {
        try { app.event('/later') } catch (error) { return error.message }
      }) })`)
    const message = 'cannot register anything after the start: do it while the script is loaded'
    assertBytes(await ask(worker, {}), answer(1, JSON.stringify(message)))
    await stop(worker)
  })

  test('app has the values of the hello', async () => {
    const hello = { app: 'chat', instance: 2, instances: 3, settings: { greeting: 'hi' }, unknown: 1 }
    const source = `app.event('/a', () => [app.name, app.instance, app.instances, app.settings])`
    const worker = await startApp(source, { hello })
    assertBytes(await ask(worker, {}), answer(1, '["chat",2,3,{"greeting":"hi"}]'))
    await stop(worker)
  })
})
