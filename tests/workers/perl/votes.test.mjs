// examples/votes.pl against a fake server: docs/workers.md alone is enough to write a worker.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { expectFrames, stop } from '../support/library.mjs'
import { FROM_WORKER, TO_WORKER, Worker, answer, event, frame, refusal } from '../support/server.mjs'

const VOTES = fileURLToPath(new URL('../../../examples/votes.pl', import.meta.url))
const [CAST, TALLY] = [0, 1]
const ADA = [0, 7, 3]
const BOB = [1, 7, 0xffffffff]

const start = (options) => new Worker(VOTES, [], VOTES, options)

async function startReady(options) {
  const worker = start(options)
  worker.manifest = await worker.ready()
  return worker
}

const counts = (yes, no) => `{"yes":${yes},"no":${no}}`
const changed = (yes, no) => frame(FROM_WORKER.BROADCAST, { text: '/votes/changed', data: counts(yes, no) })
const watch = (client) => frame(FROM_WORKER.WATCH, { client })
const cast = (request, client, data, rest) => event({ request, number: CAST, client, data, ...rest })
const tally = (request, client, rest) => event({ request, number: TALLY, client, ...rest })

describe('the poll', () => {
  test('announces its events', async () => {
    const worker = await startReady()
    assert.deepEqual(worker.manifest, {
      version: 1,
      events: [
        { path: '/votes/cast', handler: true },
        { path: '/votes/tally', handler: true },
        { path: '/votes/changed', handler: false }
      ],
      files: [VOTES]
    })
    await stop(worker)
  })

  test('counts one vote per client, and broadcasts each change', async () => {
    const worker = await startReady()
    const [first, second] = worker.links
    first.send(cast(1, ADA, '"yes"'))
    await expectFrames(first, watch(ADA), changed(1, 0), answer(1, counts(1, 0)))
    second.send(cast(0xffffffff, BOB, '"no"'), tally(2, BOB))
    await expectFrames(second, watch(BOB), answer(0xffffffff, counts(1, 1)), answer(2, counts(1, 1)))
    await expectFrames(first, changed(1, 1))
    const bad = ['"maybe"', '{"yes', '', '[]']
    first.send(cast(3, ADA, '"no"'), ...bad.map((data, nth) => cast(4 + nth, ADA, data)))
    await expectFrames(first, refusal(3, 403, 'one vote each'))
    for (const request of [4, 5, 6, 7]) await expectFrames(first, refusal(request, 400, '"yes" or "no" is needed'))
    await stop(worker)
  })

  test('forgets clients that have disconnected', async () => {
    const worker = await startReady({ links: 1 })
    const [link] = worker.links
    link.send(cast(1, ADA, '"yes"'), frame(TO_WORKER.GONE, { client: ADA }), cast(2, ADA, '"yes"'))
    await expectFrames(link, watch(ADA), changed(1, 0), answer(1, counts(1, 0)))
    await expectFrames(link, watch(ADA), changed(2, 0), answer(2, counts(2, 0)))
    await stop(worker)
  })
})

describe('the worker', () => {
  test('accepts frames split anywhere, and many in one piece', async () => {
    const worker = await startReady({ links: 1 })
    const [link] = worker.links
    const asked = Buffer.concat([tally(1, ADA, { text: '/é', time: 2 ** 40 }), cast(2, ADA, '5'), tally(3, ADA)])
    const answers = Buffer.concat([
      answer(1, counts(0, 0)),
      refusal(2, 400, '"yes" or "no" is needed'),
      answer(3, counts(0, 0))
    ])
    for (let at = 1; at < asked.length; at++) {
      link.socket.write(asked.subarray(0, at))
      await new Promise((resolve) => setImmediate(resolve))
      link.socket.write(asked.subarray(at))
      assert.deepEqual(await link.bytes(answers.length), answers)
    }
    const requests = Array.from({ length: 5000 }, (_, request) => request)
    link.send(...requests.map((request) => tally(request, ADA)))
    await expectFrames(link, ...requests.map((request) => answer(request, counts(0, 0))))
    await stop(worker)
  })

  test('keeps serving while one link is not read', async () => {
    const worker = await startReady()
    const [first, second] = worker.links
    const requests = Array.from({ length: 30_000 }, (_, request) => request)
    first.socket.pause()
    first.send(...requests.map((request) => tally(request, ADA)))
    second.send(tally(1, BOB))
    await expectFrames(second, answer(1, counts(0, 0)))
    worker.sendLine({ ping: 0 })
    assert.deepEqual(await worker.line(), { pong: 0 })
    first.socket.resume()
    await expectFrames(first, ...requests.map((request) => answer(request, counts(0, 0))))
    await stop(worker)
  })

  test('answers on a link that has ended, and exits after the last one', async () => {
    const worker = await startReady()
    const [first, second] = worker.links
    first.send(tally(1, ADA))
    first.end()
    await expectFrames(first, answer(1, counts(0, 0)))
    second.send(cast(2, BOB, '"no"'))
    await expectFrames(second, watch(BOB), answer(2, counts(0, 1)))
    await expectFrames(first, changed(0, 1))
    second.end()
    assert.equal(await worker.exit(), 0)
  })

  test('answers pings, and accepts lines in pieces', async () => {
    const worker = await startReady()
    worker.control.write('{"ping":7}\n{"later":1}\n{"pi')
    assert.deepEqual(await worker.line(), { pong: 7 })
    worker.control.write('ng":8}\n')
    assert.deepEqual(await worker.line(), { pong: 8 })
    await stop(worker)
  })

  test('exits when the control socket ends', async () => {
    const worker = await startReady()
    worker.control.end()
    assert.equal(await worker.exit(), 0)
  })

  test('ignores SIGINT', async () => {
    const worker = await startReady()
    worker.process.kill('SIGINT')
    worker.sendLine({ ping: 1 })
    assert.deepEqual(await worker.line(), { pong: 1 })
    await stop(worker)
  })

  test('rejects another version of the protocol', async () => {
    const worker = start({ hello: { version: 2 } })
    assert.deepEqual(await worker.line(), {
      failed: 'the server uses version 2 of the worker protocol, this worker version 1'
    })
    assert.equal(await worker.exit(), 1)
  })

  test('runs its self-test', async () => {
    const worker = await startReady({ links: 0, hello: { test: true } })
    assert.deepEqual(await worker.line(), { tested: true })
    assert.equal(await worker.exit(), 0)
  })
})
