// Events: their properties, answers and errors.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ADA, ask, assertBytes, expectFrames, latin1, startApp, stop } from '../support/library.mjs'
import { answer, event, refusal } from '../support/server.mjs'

describe('events', () => {
  test('have all values that were sent', async () => {
    const worker = await startApp(`
      app.event('/other')
      app.event('/a', { children: true }, ({ client, path, extra, fullPath, data, json, wantsAnswer }) =>
        [client.id, String(client), path, extra, fullPath, data, json.text, wantsAnswer, app.now()])`)
    const sent = { request: 0xfffffffe, number: 1, client: ADA, text: '/é/x', data: '{"ü": 1}', time: 2 ** 40 + 1500 }
    worker.links[0].send(event(sent), event({ number: 1, client: ADA, flags: 0 }))
    const seconds = 2 ** 40 / 1000 + 1.5
    const all = ['0.7.3', '0.7.3', '/a', '/é/x', '/a/é/x', { ü: 1 }, '{"ü": 1}', true, seconds]
    await expectFrames(worker.links[0], answer(0xfffffffe, JSON.stringify(all)))
    // Missing data is null, and the time never goes back.
    const nothing = ['0.7.3', '0.7.3', '/a', '', '/a', null, 'null', false, seconds]
    await expectFrames(worker.links[0], answer(0, JSON.stringify(nothing)))
    await stop(worker)
  })

  const results = [
    ['undefined', answer(1, '')],
    ['null', answer(1, '')],
    ['false', answer(1, 'false')],
    ['0', answer(1, '0')],
    [`''`, answer(1, '""')],
    [`'é🦀'`, answer(1, '"é🦀"')],
    [`'\\ud800'`, answer(1, '"\\ud800"')],
    [`({ a: [1, null], b: undefined })`, answer(1, '{"a":[1,null]}')],
    [`new Json(' [1 ]')`, answer(1, ' [1 ]')],
    [`({ a: new Json('[1 ]') })`, answer(1, '{"a":[1]}')],
    [`new Answer('x')`, answer(1, '"x"')],
    [`new Answer()`, answer(1, '')],
    ['NEVER', answer(1, '', { code: 0 })],
    ['Promise.resolve(5)', answer(1, '5')],
    ['Promise.resolve(NEVER)', answer(1, '', { code: 0 })]
  ]
  for (const [code, wanted] of results) {
    test(`are answered by ${code}`, async () => {
      const worker = await startApp(`app.event('/a', () => ${code})`)
      assertBytes(await ask(worker, {}), wanted)
      await stop(worker)
    })
  }

  const failures = [
    [`throw new Refusal(403, 'nö', { a: 1 })`, refusal(1, 403, 'nö', '{"a":1}'), ''],
    [`throw new Refusal(65535, '')`, refusal(1, 65535, '', ''), ''],
    [`throw new Refusal(1)`, refusal(1, 1), ''],
    [`return Promise.reject(new Refusal(404, 'x'))`, refusal(1, 404, 'x'), ''],
    [`throw Object.assign(new Refusal(400), { code: 'NO_MONEY' })`, refusal(1, 500), /error code must be an integer/],
    [`throw Object.assign(new Refusal(400), { code: 70000 })`, refusal(1, 500), /70000 is not an error code/],
    [`throw Object.assign(new Refusal(400), { code: 200 })`, refusal(1, 500), /200 is not an error code/],
    [`throw Object.assign(new Refusal(400), { code: 402, text: 'x' })`, refusal(1, 402, 'x'), ''],
    [`throw Object.assign(new Refusal(400), { text: 5 })`, refusal(1, 500), /the message must be a string/],
    [`throw Object.assign(new Refusal(400), { text: 'x'.repeat(65537) })`, refusal(1, 500), /message has 65537 bytes/],
    [`throw Object.assign(new Refusal(400), { data: 'x'.repeat(2 ** 24) })`, refusal(1, 500), /has 16777218 bytes/],
    [`return 'x'.repeat(2 ** 24)`, refusal(1, 500), /the data has 16777218 bytes; at most 16646144 /],
    [`throw new Error('boom')`, refusal(1, 500), /^error in the handler of \/a: Error: boom\n +at .*app\.mjs:\d+/],
    [`return (async () => { await null; throw new Error('boom') })()`, refusal(1, 500), /handler of \/a: Error: boom/],
    [`throw 'text'`, refusal(1, 500), /^error in the handler of \/a: 'text' was thrown\n/],
    [`throw undefined`, refusal(1, 500), /^error in the handler of \/a: undefined was thrown\n/],
    [`return NaN`, refusal(1, 500), /NaN cannot be JSON/],
    [`return { a: [Infinity] }`, refusal(1, 500), /Infinity cannot be JSON/],
    [`return () => {}`, refusal(1, 500), /cannot be JSON/],
    [`return Symbol('x')`, refusal(1, 500), /cannot be JSON/],
    [`return 10n`, refusal(1, 500), /BigInt/],
    [`const a = {}; a.a = a; return a`, refusal(1, 500), /circular/],
    [`return new Answer(new Promise(() => {}))`, refusal(1, 500), /await it/],
    [`return event.data.x`, refusal(1, 400, 'invalid JSON'), ''],
    [`return new Json('{')`, refusal(1, 500), /SyntaxError/]
  ]
  for (const [code, wanted, stderr] of failures) {
    test(`fail with ${code}`, async () => {
      const worker = await startApp(`app.event('/a', (event) => { ${code} })`)
      assertBytes(await ask(worker, { data: '{"a":' }), wanted)
      await stop(worker, stderr)
    })
  }

  test('with invalid JSON can be passed on', async () => {
    const worker = await startApp(`app.event('/a', (event) => event.json)`)
    assertBytes(await ask(worker, { data: '{"a":' }), answer(1, '{"a":'))
    await stop(worker)
  })

  test('without a handler are answered 500', async () => {
    const worker = await startApp(`app.event('/a')`)
    assertBytes(await ask(worker, {}), refusal(1, 500))
    await stop(worker)
  })

  test('may have any size and be split anywhere', async () => {
    const worker = await startApp(`app.event('/a', (event) => event.json)`)
    const texts = ['1', '"é"', `"${'x'.repeat(100)}"`, 'null']
    const asked = Buffer.concat(texts.map((data, request) => event({ request, client: ADA, data, text: '/é' })))
    const answers = Buffer.concat(texts.map((text, request) => answer(request, text === 'null' ? '' : text)))
    const [link] = worker.links
    for (let at = 1; at < asked.length; at++) {
      link.socket.write(asked.subarray(0, at))
      await new Promise((resolve) => setImmediate(resolve))
      link.socket.write(asked.subarray(at))
      assertBytes(await link.bytes(answers.length), answers)
    }
    for (const byte of asked) {
      link.socket.write(Buffer.of(byte))
      await new Promise((resolve) => setImmediate(resolve))
    }
    assertBytes(await link.bytes(answers.length), answers)
    // Longer than all buffers, between two short events, with characters of several bytes.
    const large = JSON.stringify('é🦀x'.repeat(500_000))
    link.send(event({ request: 1, client: ADA, data: '1' }), event({ request: 2, client: ADA, data: large }))
    link.send(event({ request: 3, client: ADA, data: '3' }))
    await expectFrames(link, answer(1, '1'), answer(2, large), answer(3, '3'))
    await stop(worker)
  })

  test('may arrive by the ten thousand in one piece', async () => {
    const worker = await startApp(`app.event('/a', (event) => event.data)`)
    const count = 10_000
    const requests = Array.from({ length: count }, (_, request) => request)
    const asked = (request) => event({ request, client: [1, request % 100, 1], data: `${request}` })
    worker.links[1].send(...requests.map(asked))
    await expectFrames(worker.links[1], ...requests.map((request) => answer(request, `${request}`)))
    await stop(worker)
  })

  test('start in order, and a slow one does not delay others', async () => {
    const worker = await startApp(`
      let free
      app.event('/slow', async () => { await new Promise((resolve) => (free = resolve)); return 'slow' })
      app.event('/quick', (event) => event.data)
      app.event('/free', async () => { free() })`)
    const [link] = worker.links
    link.send(event({ request: 1, client: ADA }), event({ request: 2, number: 1, client: ADA, data: '2' }))
    await expectFrames(link, answer(2, '2'))
    link.send(event({ request: 3, number: 2, client: ADA }))
    const both = [await link.frame(), await link.frame()].map(latin1).sort()
    assert.deepEqual(both, [answer(1, '"slow"'), answer(3, '')].map(latin1).sort())
    await stop(worker)
  })
})
