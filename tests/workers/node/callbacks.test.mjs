// Callbacks that clients reply to.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ADA, ask, assertBytes, expectFrames, startApp, stop } from '../support/library.mjs'
import { FROM_WORKER, TO_WORKER, answer, event, frame, refusal } from '../support/server.mjs'

describe('callbacks', () => {
  const reply = (request, number, data, flags = 1) =>
    frame(TO_WORKER.REPLY, { request, number, client: ADA, data, flags })
  const dropped = (number) => frame(TO_WORKER.DROPPED, { number })

  test('may answer with further callbacks', async () => {
    const worker = await startApp(`
      app.event('/a', () => new Answer(1, { callback: first }))
      const first = ({ client, data, json, wantsAnswer }) =>
        new Answer([client.id, data, json.text, wantsAnswer], { callback: second })
      const second = async () => { await null; throw new Refusal(418, 'tea') }`)
    const [link] = worker.links
    assertBytes(await ask(worker, {}), answer(1, '1', { number: 1 }))
    link.send(reply(2, 1, '"x"'))
    await expectFrames(link, answer(2, '["0.7.3","x","\\"x\\"",true]', { number: 2 }))
    link.send(reply(3, 2, ''))
    await expectFrames(link, refusal(3, 418, 'tea'))
    await stop(worker)
  })

  test('of sent events get a reply or are dropped', async () => {
    const worker = await startApp(`
      app.event('/a', ({ client }) => {
        app.send(client, '/x', 1, { callback: (reply) => reply.data + 1, dropped: () => app.send(client, '/gone') })
        app.send(client, '/y', 2, { callback: (reply) => { const later = reply.later(); later.answer('late') } })
      })`)
    const [link] = worker.links
    link.send(event({ request: 1, client: ADA }))
    const sent = (number, text, data) => frame(FROM_WORKER.SEND, { number, client: ADA, text, data })
    await expectFrames(link, sent(1, '/x', '1'), sent(2, '/y', '2'), answer(1, ''))
    link.send(dropped(1), reply(2, 2, ''))
    await expectFrames(link, sent(0, '/gone', ''), answer(2, '"late"'))
    link.send(event({ request: 3, client: ADA }))
    await expectFrames(link, sent(3, '/x', '1'), sent(4, '/y', '2'), answer(3, ''))
    link.send(reply(4, 3, '41', 0), dropped(4))
    await expectFrames(link, answer(4, '42'))
    link.send(reply(5, 3, ''))
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /^protocol error: .* callback 3, which is not open; this worker exits\n$/)
  })

  test('can be awaited', async () => {
    const worker = await startApp(`
      app.event('/a', async ({ client }) => {
        try {
          return ['got', await app.ask(client, '/x', 'what?')]
        } catch (error) {
          return [error.name, error instanceof Dropped]
        }
      })
      app.event('/loose', ({ client }) => { app.ask(client, '/x') })`)
    const [link] = worker.links
    const sent = (number, data) => frame(FROM_WORKER.SEND, { number, client: ADA, text: '/x', data })
    const asked = async (request, number) => {
      link.send(event({ request, client: ADA }))
      await expectFrames(link, sent(number, '"what?"'))
    }
    await asked(1, 1)
    link.send(reply(2, 1, '[1]'))
    await expectFrames(link, answer(2, ''), answer(1, '["got",[1]]'))
    await asked(3, 2)
    link.send(dropped(2))
    await expectFrames(link, answer(3, '["Dropped",true]'))
    await asked(4, 3)
    link.send(reply(5, 3, '{'))
    await expectFrames(link, refusal(5, 400, 'invalid JSON'), answer(4, '["Dropped",true]'))
    // An ask that nothing awaits is logged, and does not end the worker.
    link.send(event({ request: 6, number: 1, client: ADA }))
    await expectFrames(link, sent(4, ''), answer(6, ''))
    link.send(dropped(4))
    await asked(7, 5)
    // No reply can arrive after the link has ended.
    link.end()
    await expectFrames(link, answer(7, '["Dropped",true]'))
    worker.links[1].end()
    assert.equal(await worker.exit(), 0)
    assert.match(worker.stderr, /^error in a promise that nothing awaits: Dropped: the client will never reply/)
  })
})
