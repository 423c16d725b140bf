// Timers.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { expectFrames, startApp, stop } from '../support/library.mjs'
import { FROM_WORKER, TO_WORKER, answer, event, frame } from '../support/server.mjs'

describe('timers', () => {
  const fire = (number, time) => frame(TO_WORKER.TIMER, { number, time })
  const set = (number, time, flags = 0) => frame(FROM_WORKER.TIMER, { number, time, flags })
  const broadcast = (data) => frame(FROM_WORKER.BROADCAST, { text: '/t', data })

  test('run once or repeatedly until they are cancelled', async () => {
    const worker = await startApp(`
      const timer = app.every(1, () => app.broadcast('/t', ['every', app.now()]))
      app.after(0, () => { throw new Error('in a timer') })
      app.event('/a', () => {
        const once = app.after(0.25, () => app.broadcast('/t', 'once'))
        app.after(10 * 365 * 24 * 3600, () => {})
        app.every(2, () => app.broadcast('/t', 'two'))
        app.after(1, () => {}).cancel()
        app.after(0.1, () => { timer.cancel(); timer.cancel(); once.cancel() })
      })`, { links: 1 })
    const [link] = worker.links
    assert.deepEqual(worker.manifest.timers, [{ timer: 1, ms: 1000 }])
    link.send(fire(1, 1000), fire(2, 1500), fire(1, 2000))
    await expectFrames(link, set(2, 0), broadcast('["every",1]'), broadcast('["every",2]'))
    link.send(event({ request: 1 }))
    await expectFrames(link, set(3, 250), set(4, 315_360_000_000), set(5, 2000, 1), set(6, 1000))
    await expectFrames(link, frame(FROM_WORKER.CANCEL, { number: 6 }), set(7, 100), answer(1, ''))
    link.send(fire(6), fire(3), fire(3), fire(5), fire(7), fire(1), event({ request: 2 }))
    await expectFrames(link, broadcast('"once"'), broadcast('"two"'), frame(FROM_WORKER.CANCEL, { number: 1 }))
    await stop(worker, /^error in a timer: Error: in a timer\n/)
  })

  test('that repeat skip runs while one is running', async () => {
    const worker = await startApp(`
      let free
      app.every(1, async () => { app.broadcast('/t', 'begins'); await new Promise((resolve) => (free = resolve)) })
      app.event('/free', () => { free() })`, { links: 1 })
    const [link] = worker.links
    link.send(fire(1), fire(1), fire(1), event({ request: 1 }))
    await expectFrames(link, broadcast('"begins"'), answer(1, ''))
    link.send(fire(1), event({ request: 2 }))
    await expectFrames(link, broadcast('"begins"'), answer(2, ''))
    await stop(worker)
  })
})
