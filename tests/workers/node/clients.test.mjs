// Clients and their data.

import { describe, test } from 'node:test'
import { expectFrames, startApp, stop } from '../support/library.mjs'
import { FROM_WORKER, TO_WORKER, answer, event, frame, refusal } from '../support/server.mjs'

describe('clients', () => {
  test('are one object with its data while they are connected', async () => {
    const worker = await startApp(`
      const seen = new Map()
      const count = (client) => { seen.set(client, (seen.get(client) ?? 0) + 1); return seen.get(client) }
      app.event('/count', ({ client }) => [count(client), client.data.n = (client.data.n ?? 0) + 1])
        .off(({ client }) => app.broadcast('/log', ['off', client.id, client.data.n]))
      app.event('/plain', ({ client }) => count(client))
      app.gone((client) => { throw new Error('in one of them') })
      app.gone(async (client) => app.broadcast('/log', ['gone', client.id, client.data]))`, { links: 1 })
    const [link] = worker.links
    const count = (request, client, number = 0) => event({ request, client, number })
    const watch = (client) => frame(FROM_WORKER.WATCH, { client })
    const log = (data) => frame(FROM_WORKER.BROADCAST, { text: '/log', data })
    const [first, second] = [[0, 5, 1], [0, 5, 2]]
    link.send(count(1, first), count(2, first), count(3, [0, 6, 1], 1), count(4, [0, 6, 1], 1))
    await expectFrames(link, watch(first), answer(1, '[1,1]'), answer(2, '[2,2]'), answer(3, '1'), answer(4, '2'))
    // The slot has a new client, but frames for the previous one still arrive.
    link.send(count(5, second, 1), count(6, first), count(7, second, 1))
    await expectFrames(link, answer(5, '1'), answer(6, '[3,3]'))
    await link.frame()
    link.send(frame(TO_WORKER.OFF, { client: first }), frame(TO_WORKER.GONE, { client: first }))
    await expectFrames(link, log('["off","0.5.1",3]'), log('["gone","0.5.1",{"n":3}]'))
    // Clients that only an earlier worker has watched: one that has sent an event here, and one that is not known. Their
    // data is empty, and they are not watched again.
    link.send(frame(TO_WORKER.GONE, { client: [0, 6, 1] }), frame(TO_WORKER.GONE, { client: [0, 7, 3] }))
    await expectFrames(link, log('["gone","0.6.1",{}]'), log('["gone","0.7.3",{}]'))
    await stop(worker, /^error in a function of app\.gone: Error: in one of them/)
  })

  test('events bring what the server knows of the client, if they are registered for it', async () => {
    const worker = await startApp(`
      app.event('/who', { clientInfo: true }, ({ extra, info }) => [extra, info.user, info.claims?.role, info.headers, info.address])
        .on(({ extra, info }) => extra === '/x' && info.user === '7')
      app.event('/plain', (event) => { try { return event.info } catch (error) { return error.message } })`, { links: 1 })
    const [link] = worker.links
    const info = '{"user":"7","claims":{"role":"a"},"address":"::1","headers":{"origin":"o"},"certificate":null}'
    link.send(event({ request: 1, flags: 5, text: `/x\n${info}` }), event({ request: 2, flags: 5, text: '\nnull' }))
    await expectFrames(link, answer(1, '["/x","7","a",{"origin":"o"},"::1"]'), answer(2, '["",null,null,{},null]'))
    link.send(frame(TO_WORKER.ON, { request: 3, flags: 4, text: `/x\n${info}` }), event({ request: 4, number: 1 }))
    link.send(frame(TO_WORKER.ON, { request: 5, flags: 12, text: `/x\n{"history":1}\n${info}` }))
    await expectFrames(link, answer(3, ''), answer(4, '"register /plain with clientInfo: true to use info"'), answer(5, ''))
    await stop(worker)
  })

  test('on-hooks see the options of the subscription', async () => {
    const worker = await startApp(`
      app.event('/room', { children: true }).on(({ extra, options }) => {
        app.broadcast('/seen', [extra, options])
        return options === null || options.history <= 20
      })`, { links: 1 })
    const [link] = worker.links
    const on = (flags, text) => frame(TO_WORKER.ON, { request: 1, flags, text })
    const seen = (data) => frame(FROM_WORKER.BROADCAST, { text: '/seen', data })
    link.send(on(0, '/x'))
    await expectFrames(link, seen('["/x",null]'), answer(1, ''))
    link.send(on(8, '/x\n{"history":20,"since":"e7f3.1041"}'))
    await expectFrames(link, seen('["/x",{"history":20,"since":"e7f3.1041"}]'), answer(1, ''))
    link.send(on(8, '\n{"history":21}'))
    await expectFrames(link, seen('["",{"history":21}]'), refusal(1, 401))
    await stop(worker)
  })
})
