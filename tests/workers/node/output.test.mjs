// Frames that the worker sends: order, sizes, and a server that does not read.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ADA, BOB, ask, assertBytes, expectFrames, startApp, stop } from '../support/library.mjs'
import { FROM_WORKER, TO_WORKER, answer, event, frame } from '../support/server.mjs'

describe('output', () => {
  test('is sent in the order of the calls, before the answer', async () => {
    const worker = await startApp(`
      app.event('/a', ({ client }) => {
        app.send(client, '/x/y/', { a: 1 })
        app.move(client, 'other:80')
        app.close(client)
        client.data.x = 1
        client.data.y = 1
        return 'done'
      })`)
    await expectFrames(worker.links[0])
    worker.links[1].send(event({ request: 5, client: BOB }))
    await expectFrames(
      worker.links[1],
      frame(FROM_WORKER.SEND, { client: BOB, text: '/x/y', data: '{"a":1}' }),
      frame(FROM_WORKER.MOVE, { client: BOB, text: 'other:80' }),
      frame(FROM_WORKER.CLOSE, { client: BOB }),
      frame(FROM_WORKER.WATCH, { client: BOB }),
      answer(5, '"done"')
    )
    await stop(worker)
  })

  test('of broadcasts to one path uses one link, and to many paths all links', async () => {
    const worker = await startApp(`
      app.event('/a', () => { for (let nth = 0; nth < 3; nth++) {
        for (let path = 0; path < 20; path++) app.broadcast('/p/' + path, [path, nth])
      } })`)
    await ask(worker, {}).catch(() => {})
    for (const link of worker.links) link.end()
    const frames = await Promise.all(worker.links.map((link) => link.rest()))
    const paths = frames.map((list) => list.filter((bytes) => bytes[4] === FROM_WORKER.BROADCAST))
      .map((list) => list.map((bytes) => bytes.subarray(40).toString()))
    const [first, second] = paths.map((list) => new Set(list.map((text) => text.split('[')[0])))
    assert.ok(first.size > 3 && second.size > 3, 'both links have broadcasts')
    assert.equal([...first].filter((path) => second.has(path)).length, 0)
    const all = paths.flat()
    for (let path = 0; path < 20; path++) {
      const wanted = [0, 1, 2].map((nth) => `/p/${path}[${path},${nth}]`)
      // The first frame of link 0 was taken above; it may have been a broadcast.
      assert.deepEqual(all.filter((text) => text.startsWith(`/p/${path}[`)).slice(-2), wanted.slice(-2))
    }
    assert.equal(await worker.exit(), 0)
  })

  test('waits in order while the server does not read', async () => {
    const worker = await startApp(`
      app.event('/a', ({ client }) => {
        for (let nth = 0; nth < 20_000; nth++) app.send(client, '/x', nth + 'x'.repeat(nth % 999))
      })
      app.event('/b', () => 'alive')`)
    const [link, other] = worker.links
    link.socket.pause()
    link.send(event({ request: 1, client: ADA }))
    other.send(event({ request: 2, number: 1, client: BOB }))
    await expectFrames(other, answer(2, '"alive"'))
    link.send(event({ request: 3, number: 1, client: ADA }))
    link.socket.resume()
    for (let nth = 0; nth < 20_000; nth++) {
      const data = JSON.stringify(nth + 'x'.repeat(nth % 999))
      assertBytes(await link.frame(), frame(FROM_WORKER.SEND, { client: ADA, text: '/x', data }))
    }
    await expectFrames(link, answer(1, ''), answer(3, '"alive"'))
    await stop(worker)
  })

  test('may have the largest size', async () => {
    const worker = await startApp(`
      app.event('/a', ({ client }) => {
        const data = 'é'.repeat((16 * 1024 * 1024 - 128 * 1024 - 2) / 2)
        app.send(client, '/x', data)
        return new Json('"' + data + '"')
      })`)
    const { length } = await ask(worker, {})
    assert.deepEqual([length, (await worker.links[0].frame()).length], [42 + 16_646_144, 40 + 16_646_144])
    await stop(worker)
  })

  test('is refused if too much is waiting and the handler does not await', async () => {
    const worker = await startApp(`
      const data = 'x'.repeat(1_000_000)
      app.event('/all', ({ client }) => {
        let callbacks = 0
        try {
          for (;;) { app.send(client, '/x', data, { callback() {} }); callbacks++ }
        } catch (error) {
          return [callbacks, error.name, error.message]
        }
      })
      app.event('/each', ({ client }) => {
        for (const call of [
          () => { for (;;) app.broadcast('/x', data) },
          () => { for (;;) app.send(client, '/x', data) }
        ]) {
          try { call() } catch (error) { if (!(error instanceof RangeError)) throw error }
        }
      })
      app.event('/way', async ({ client }) => {
        for (let nth = 0; nth < 100; nth++) {
          app.send(client, '/x', data)
          await app.ask(client, '/next')
        }
        return 'all'
      })`, { links: 1 })
    const [link] = worker.links
    link.send(event({ request: 1, client: ADA }))
    for (let number = 1; number <= 67; number++) assert.equal((await link.frame()).readUInt32BE(12), number)
    const message = 'more than 64 MiB are waiting to be sent: use await between sends to let them be written'
    await expectFrames(link, answer(1, JSON.stringify([67, 'RangeError', message])))
    link.send(event({ request: 2, number: 1, client: ADA }))
    for (let nth = 0; nth < 67; nth++) assert.equal((await link.frame())[4], FROM_WORKER.BROADCAST)
    await expectFrames(link, answer(2, ''))
    link.send(event({ request: 3, number: 2, client: ADA }))
    for (let nth = 0; nth < 100; nth++) {
      assert.equal((await link.frame()).length, 42 + 1_000_002)
      const number = 68 + nth
      await expectFrames(link, frame(FROM_WORKER.SEND, { number, client: ADA, text: '/next' }))
      link.send(frame(TO_WORKER.REPLY, { request: 4, number, client: ADA }))
      await expectFrames(link, answer(4, ''))
    }
    await expectFrames(link, answer(3, '"all"'))
    await stop(worker)
  })

  test('ends the worker if too much is waiting and the server reads nothing for 10 s', async () => {
    const worker = await startApp(`
      const data = 'x'.repeat(1_000_000)
      app.event('/a', () => data)`)
    worker.links[0].socket.pause()
    worker.links[0].send(...Array.from({ length: 70 }, (_, request) => event({ request, client: ADA })))
    const begun = Date.now()
    assert.equal(await worker.exit(), 1)
    assert.ok(Date.now() - begun > 9_000)
    assert.match(worker.stderr, /the server has read nothing for 10 s, and \d+ bytes of output are waiting/)
  })
})
