// Promises to answer later, and subscriptions.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ADA, expectFrames, latin1, startApp, stop } from '../support/library.mjs'
import { FROM_WORKER, TO_WORKER, answer, event, frame, refusal } from '../support/server.mjs'

describe('promises to answer', () => {
  test('answer once', async () => {
    const worker = await startApp(`
      import { AlreadyAnswered } from 'quickio'
      const kept = []
      const tried = (fn) => {
        try {
          fn()
          return 'done'
        } catch (error) {
          return error instanceof AlreadyAnswered ? 'again' : String(error)
        }
      }
      app.event('/keep', (event) => { kept.push(event.later()); if (event.data) return kept.at(-1) })
      app.event('/answer', () => [
        tried(() => kept[0].answer(NaN)),
        tried(() => kept[0].answer('one')),
        tried(() => kept[0].answer(1)),
        tried(() => kept[0].error(400))
      ])
      app.event('/error', () => [tried(() => kept[1].error(200)), tried(() => kept[1].error(410, 'gone', [1]))])
      app.event('/twice', (event) => { event.later(); return tried(() => event.later()) })
      app.event('/now', (event) => { event.later().answer(new Answer(2)) })
      app.event('/wrong', (event) => kept[0])
      app.event('/throws', (event) => { event.later(); throw new Refusal(409) })`)
    const [link] = worker.links
    link.send(event({ request: 1, data: 'true' }), event({ request: 2 }), event({ request: 3, number: 1 }))
    await expectFrames(link, answer(1, '"one"'), answer(3, '["TypeError: NaN cannot be JSON","done","again","again"]'))
    link.send(event({ request: 4, number: 2 }))
    await expectFrames(link, refusal(2, 410, 'gone', '[1]'))
    await expectFrames(link, answer(4, '["RangeError: 200 is not an error code: use 1 to 65535, except 200","done"]'))
    link.send(...[3, 4, 5, 6].map((number) => event({ request: number, number })))
    await expectFrames(link, answer(3, '"again"'), answer(4, '2'), refusal(5, 500), refusal(6, 409))
    await stop(worker, /^error in the handler of \/wrong: TypeError: it returned the promise of another request/)
  })

  test('answer 500 if they are dropped', async () => {
    const worker = await startApp(`
      import { setFlagsFromString } from 'node:v8'
      import { runInNewContext } from 'node:vm'
      setFlagsFromString('--expose-gc')
      const collect = runInNewContext('gc')
      app.event('/forget', (event) => { event.later() })
      app.event('/kept', (event) => { event.later().answer(1) })
      app.event('/collect', async () => { await new Promise((resolve) => setTimeout(resolve)); collect() })`)
    const [link] = worker.links
    link.send(event({ request: 1 }), event({ request: 2, number: 1 }), event({ request: 3, number: 2 }))
    await expectFrames(link, answer(2, '1'))
    const rest = [await link.frame(), await link.frame()].map(latin1).sort()
    assert.deepEqual(rest, [answer(3, ''), refusal(1, 500)].map(latin1).sort())
    await stop(worker, 'the handler of /forget dropped its promise to answer; the client is answered 500\n')
  })
})

describe('subscriptions', () => {
  test('are decided by the on-hook', async () => {
    const worker = await startApp(`
      let promise
      app.event('/open').off(({ client, path, extra, fullPath }) => app.send(client, '/off', [path, extra, fullPath]))
      app.event('/asked', { children: true }).on(async ({ client, extra, fullPath, data }) => {
        if (data === 'sync') return true
        await null
        return [client.id, extra, fullPath, data].join() === '0.7.3,/x,/asked/x,1'
      })
      app.event('/later').on((subscription) => { promise = subscription.later(); return promise })
      app.event('/decide', ({ data }) => { data ? promise.accept() : promise.refuse() })
      app.event('/bad').on(() => {})
      app.event('/refused').on(() => { throw new Refusal(403, 'no') })
      app.event('/boom').on(async () => { throw new Error('boom') })`)
    const [link] = worker.links
    const on = (request, number, rest) => frame(TO_WORKER.ON, { request, number, client: ADA, ...rest })
    link.send(on(1, 0), on(2, 1, { text: '/x', data: '1' }), on(3, 1, { text: '/x', data: '2' }))
    await expectFrames(link, answer(1, ''), answer(2, ''), refusal(3, 401))
    link.send(on(4, 2), event({ request: 5, number: 3, client: ADA, data: 'true' }))
    await expectFrames(link, answer(4, ''), answer(5, ''))
    link.send(on(6, 2), event({ request: 7, number: 3, client: ADA }))
    await expectFrames(link, refusal(6, 401), answer(7, ''))
    link.send(on(8, 4), on(9, 5), on(10, 6))
    await expectFrames(link, refusal(8, 500), refusal(9, 403), refusal(10, 500))
    link.send(frame(TO_WORKER.OFF, { number: 0, client: ADA, text: '/é' }))
    await expectFrames(link, frame(FROM_WORKER.SEND, { client: ADA, text: '/off', data: '["/open","/é","/open/é"]' }))
    await stop(worker, /the on-hook of \/bad: TypeError: (.|\n)*\nerror in the on-hook of \/boom: Error: boom/)
  })
})
