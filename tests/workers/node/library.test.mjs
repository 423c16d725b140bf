// The JavaScript worker library, against a server that is this test: byte for byte, as docs/workers.md has it.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import {
  FROM_WORKER,
  TO_WORKER,
  Worker,
  answer,
  event,
  folder,
  frame,
  refusal,
  start,
  started
} from '../support/fake.mjs'

const ADA = [0, 7, 3]
const BOB = [1, 9, 0xffffffff]

/** A script with the usual head. */
const script = (text) => `import { app, Answer, Json, NEVER, Refusal, Dropped } from 'quickio'\n${text}`
const running = (text, options) => started(script(text), options)

const RUNNER = fileURLToPath(new URL('../../../src/app/worker/node/runner.mjs', import.meta.url))
const NODE = process.env.QUICKIO_TEST_NODE ?? process.execPath
/** Makes a Node one that takes hooks by a flag only. */
const OLD_NODE = `data:text/javascript,${encodeURIComponent(`
  import module from 'node:module'
  module.register = module.registerHooks = undefined
  module.syncBuiltinESMExports()`)}`

/** The same, with a command that is not the usual one. */
async function runBy([command, ...args], source) {
  const worker = new Worker(command, args, join(folder({ 'app.mjs': source }), 'app.mjs'))
  await worker.ready()
  return worker
}

/** Asks one thing; answers the frame that comes back. */
async function ask(worker, rest) {
  worker.links[0].send(event({ request: 1, client: ADA, ...rest }))
  return worker.links[0].frame()
}

async function stopped(worker, stderr = '') {
  assert.equal(await worker.stop(), 0, worker.stderr)
  if (stderr instanceof RegExp) assert.match(worker.stderr, stderr)
  else assert.equal(worker.stderr, stderr)
}

const same = (got, ...wanted) => assert.deepEqual(hex(got), hex(Buffer.concat(wanted)))
const hex = (bytes) => bytes.toString('latin1')

async function expect(link, ...frames) {
  for (const wanted of frames) same(await link.frame(), wanted)
}

describe('what is registered', () => {
  test('is in ready, with timers and files', async () => {
    const worker = await running(
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
        { path: '/room', children: true, handler: true, subscriptions: 'ask', off: true },
        { path: '/none', children: false, handler: false, subscriptions: 'nobody', off: true }
      ],
      // Never early, and no later for 1.1 * 1000 being 1100.0000000000002.
      timers: [{ timer: 1, ms: 1500 }, { timer: 3, ms: 1 }, { timer: 4, ms: 1100 }, { timer: 5, ms: 2 }],
      files: [`${folder}/app.mjs`, `${folder}/lib/other.mjs`]
    })
    await expect(worker.links[0], frame(FROM_WORKER.TIMER, { number: 2, time: 1000 }))
    await stopped(worker)
  })

  test('may come from a start hook, and from nowhere later', async () => {
    const worker = await running(`
      app.start(async () => { await null; app.event('/late', () => {
        try { app.event('/later') } catch (error) { return error.message }
      }) })`)
    same(await ask(worker, {}), answer(1, '"the application runs already: register before that"'))
    await stopped(worker)
  })

  test('is what hello says of the worker', async () => {
    const hello = { app: 'chat', instance: 2, instances: 3, settings: { greeting: 'hi' }, unknown: 1 }
    const source = `app.event('/a', () => [app.name, app.instance, app.instances, app.settings])`
    const worker = await running(source, { hello })
    same(await ask(worker, {}), answer(1, '["chat",2,3,{"greeting":"hi"}]'))
    await stopped(worker)
  })
})

describe('events', () => {
  test('have everything that was sent', async () => {
    const worker = await running(`
      app.event('/other')
      app.event('/a', { children: true }, ({ client, path, extra, fullPath, data, json, wantsAnswer }) =>
        [client.id, String(client), path, extra, fullPath, data, json.text, wantsAnswer, app.now()])`)
    const told = { request: 0xfffffffe, number: 1, client: ADA, text: '/é/x', data: '{"ü": 1}', time: 2 ** 40 + 1500 }
    worker.links[0].send(event(told), event({ number: 1, client: ADA, flags: 0 }))
    const seconds = 2 ** 40 / 1000 + 1.5
    const all = ['0.7.3', '0.7.3', '/a', '/é/x', '/a/é/x', { ü: 1 }, '{"ü": 1}', true, seconds]
    await expect(worker.links[0], answer(0xfffffffe, JSON.stringify(all)))
    // Nothing is null, and the time never goes back.
    const nothing = ['0.7.3', '0.7.3', '/a', '', '/a', null, 'null', false, seconds]
    await expect(worker.links[0], answer(0, JSON.stringify(nothing)))
    await stopped(worker)
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
    test(`answered by ${code}`, async () => {
      const worker = await running(`app.event('/a', () => ${code})`)
      same(await ask(worker, {}), wanted)
      await stopped(worker)
    })
  }

  const failures = [
    [`throw new Refusal(403, 'nö', { a: 1 })`, refusal(1, 403, 'nö', '{"a":1}'), ''],
    [`throw new Refusal(65535, '')`, refusal(1, 65535, '', ''), ''],
    [`throw new Refusal(1)`, refusal(1, 1), ''],
    [`return Promise.reject(new Refusal(404, 'x'))`, refusal(1, 404, 'x'), ''],
    [`throw Object.assign(new Refusal(400), { code: 'NO_MONEY' })`, refusal(1, 500), /a code is a whole number/],
    [`throw Object.assign(new Refusal(400), { code: 70000 })`, refusal(1, 500), /the code of an error is .*: 70000/],
    [`throw Object.assign(new Refusal(400), { code: 200 })`, refusal(1, 500), /the code of an error is .*: 200/],
    [`throw Object.assign(new Refusal(400), { code: 402, text: 'x' })`, refusal(1, 402, 'x'), ''],
    [`throw Object.assign(new Refusal(400), { text: 5 })`, refusal(1, 500), /a message is a string/],
    [`throw Object.assign(new Refusal(400), { text: 'x'.repeat(65537) })`, refusal(1, 500), /a message of 65537 bytes/],
    [`throw Object.assign(new Refusal(400), { data: 'x'.repeat(2 ** 24) })`, refusal(1, 500), /data of 16777218 bytes/],
    [`return 'x'.repeat(2 ** 24)`, refusal(1, 500), /data of 16777218 bytes: 16646144 is the most/],
    [`throw new Error('boom')`, refusal(1, 500), /^\/a: Error: boom\n +at .*app\.mjs:\d+/],
    [`return (async () => { await null; throw new Error('boom') })()`, refusal(1, 500), /^\/a: Error: boom\n/],
    [`throw 'text'`, refusal(1, 500), /^\/a: 'text' was thrown\n/],
    [`throw undefined`, refusal(1, 500), /^\/a: undefined was thrown\n/],
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
    test(`failed by ${code}`, async () => {
      const worker = await running(`app.event('/a', (event) => { ${code} })`)
      same(await ask(worker, { data: '{"a":' }), wanted)
      await stopped(worker, stderr)
    })
  }

  test('whose data is no JSON can be passed on', async () => {
    const worker = await running(`app.event('/a', (event) => event.json)`)
    same(await ask(worker, { data: '{"a":' }), answer(1, '{"a":'))
    await stopped(worker)
  })

  test('without a handler are answered all the same', async () => {
    const worker = await running(`app.event('/a')`)
    same(await ask(worker, {}), refusal(1, 500))
    await stopped(worker)
  })

  test('of any size, and at any split', async () => {
    const worker = await running(`app.event('/a', (event) => event.json)`)
    const texts = ['1', '"é"', `"${'x'.repeat(100)}"`, 'null']
    const asked = Buffer.concat(texts.map((data, request) => event({ request, client: ADA, data, text: '/é' })))
    const answers = Buffer.concat(texts.map((text, request) => answer(request, text === 'null' ? '' : text)))
    const [link] = worker.links
    for (let at = 1; at < asked.length; at++) {
      link.socket.write(asked.subarray(0, at))
      await new Promise((resolve) => setImmediate(resolve))
      link.socket.write(asked.subarray(at))
      same(await link.bytes(answers.length), answers)
    }
    for (const byte of asked) {
      link.socket.write(Buffer.of(byte))
      await new Promise((resolve) => setImmediate(resolve))
    }
    same(await link.bytes(answers.length), answers)
    // Longer than all buffers, with small ones around it, and characters of several bytes.
    const large = JSON.stringify('é🦀x'.repeat(500_000))
    link.send(event({ request: 1, client: ADA, data: '1' }), event({ request: 2, client: ADA, data: large }))
    link.send(event({ request: 3, client: ADA, data: '3' }))
    await expect(link, answer(1, '1'), answer(2, large), answer(3, '3'))
    await stopped(worker)
  })

  test('by the ten thousand, in one piece', async () => {
    const worker = await running(`app.event('/a', (event) => event.data)`)
    const count = 10_000
    const requests = Array.from({ length: count }, (_, request) => request)
    const asked = (request) => event({ request, client: [1, request % 100, 1], data: `${request}` })
    worker.links[1].send(...requests.map(asked))
    await expect(worker.links[1], ...requests.map((request) => answer(request, `${request}`)))
    await stopped(worker)
  })

  test('are started in order, and a slow one delays nobody', async () => {
    const worker = await running(`
      let free
      app.event('/slow', async () => { await new Promise((resolve) => (free = resolve)); return 'slow' })
      app.event('/quick', (event) => event.data)
      app.event('/free', async () => { free() })`)
    const [link] = worker.links
    link.send(event({ request: 1, client: ADA }), event({ request: 2, number: 1, client: ADA, data: '2' }))
    await expect(link, answer(2, '2'))
    link.send(event({ request: 3, number: 2, client: ADA }))
    const both = [await link.frame(), await link.frame()].map(hex).sort()
    assert.deepEqual(both, [answer(1, '"slow"'), answer(3, '')].map(hex).sort())
    await stopped(worker)
  })
})

describe('what is sent', () => {
  test('is queued in the order of the calls, before the answer', async () => {
    const worker = await running(`
      app.event('/a', ({ client }) => {
        app.send(client, '/x/y/', { a: 1 })
        app.move(client, 'other:80')
        app.close(client)
        client.data.x = 1
        client.data.y = 1
        return 'done'
      })`)
    await expect(worker.links[0])
    worker.links[1].send(event({ request: 5, client: BOB }))
    await expect(
      worker.links[1],
      frame(FROM_WORKER.SEND, { client: BOB, text: '/x/y', data: '{"a":1}' }),
      frame(FROM_WORKER.MOVE, { client: BOB, text: 'other:80' }),
      frame(FROM_WORKER.CLOSE, { client: BOB }),
      frame(FROM_WORKER.WATCH, { client: BOB }),
      answer(5, '"done"')
    )
    await stopped(worker)
  })

  test('to a path goes over one link, and to many over all', async () => {
    const worker = await running(`
      app.event('/a', () => { for (let nth = 0; nth < 3; nth++) {
        for (let path = 0; path < 20; path++) app.broadcast('/p/' + path, [path, nth])
      } })`)
    await ask(worker, {}).catch(() => {})
    for (const link of worker.links) link.end()
    const frames = await Promise.all(worker.links.map((link) => link.rest()))
    const paths = frames.map((list) => list.filter((bytes) => bytes[4] === FROM_WORKER.BROADCAST))
      .map((list) => list.map((bytes) => bytes.subarray(40).toString()))
    const [first, second] = paths.map((list) => new Set(list.map((text) => text.split('[')[0])))
    assert.ok(first.size > 3 && second.size > 3, 'both links have some')
    assert.equal([...first].filter((path) => second.has(path)).length, 0)
    const all = paths.flat()
    for (let path = 0; path < 20; path++) {
      const wanted = [0, 1, 2].map((nth) => `/p/${path}[${path},${nth}]`)
      // The first frame of link 0 was taken above; it may have been a broadcast.
      assert.deepEqual(all.filter((text) => text.startsWith(`/p/${path}[`)).slice(-2), wanted.slice(-2))
    }
    assert.equal(await worker.exit(), 0)
  })

  test('waits where the server does not read, in order', async () => {
    const worker = await running(`
      app.event('/a', ({ client }) => {
        for (let nth = 0; nth < 20_000; nth++) app.send(client, '/x', nth + 'x'.repeat(nth % 999))
      })
      app.event('/b', () => 'alive')`)
    const [link, other] = worker.links
    link.socket.pause()
    link.send(event({ request: 1, client: ADA }))
    other.send(event({ request: 2, number: 1, client: BOB }))
    await expect(other, answer(2, '"alive"'))
    link.send(event({ request: 3, number: 1, client: ADA }))
    link.socket.resume()
    for (let nth = 0; nth < 20_000; nth++) {
      const data = JSON.stringify(nth + 'x'.repeat(nth % 999))
      same(await link.frame(), frame(FROM_WORKER.SEND, { client: ADA, text: '/x', data }))
    }
    await expect(link, answer(1, ''), answer(3, '"alive"'))
    await stopped(worker)
  })

  test('of the largest size arrives', async () => {
    const worker = await running(`
      app.event('/a', ({ client }) => {
        const data = 'é'.repeat((16 * 1024 * 1024 - 128 * 1024 - 2) / 2)
        app.send(client, '/x', data)
        return new Json('"' + data + '"')
      })`)
    const { length } = await ask(worker, {})
    assert.deepEqual([length, (await worker.links[0].frame()).length], [42 + 16_646_144, 40 + 16_646_144])
    await stopped(worker)
  })

  test('without giving way is refused where far too much of it waits', async () => {
    const worker = await running(`
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
    const message = 'more than 64 MiB wait to be sent: give way, by await, before you send more'
    await expect(link, answer(1, JSON.stringify([67, 'RangeError', message])))
    link.send(event({ request: 2, number: 1, client: ADA }))
    for (let nth = 0; nth < 67; nth++) assert.equal((await link.frame())[4], FROM_WORKER.BROADCAST)
    await expect(link, answer(2, ''))
    link.send(event({ request: 3, number: 2, client: ADA }))
    for (let nth = 0; nth < 100; nth++) {
      assert.equal((await link.frame()).length, 42 + 1_000_002)
      const number = 68 + nth
      await expect(link, frame(FROM_WORKER.SEND, { number, client: ADA, text: '/next' }))
      link.send(frame(TO_WORKER.REPLY, { request: 4, number, client: ADA }))
      await expect(link, answer(4, ''))
    }
    await expect(link, answer(3, '"all"'))
    await stopped(worker)
  })

  test('ends the worker where far too much waits, and nothing is read for 10 s', async () => {
    const worker = await running(`
      const data = 'x'.repeat(1_000_000)
      app.event('/a', () => data)`)
    worker.links[0].socket.pause()
    worker.links[0].send(...Array.from({ length: 70 }, (_, request) => event({ request, client: ADA })))
    const begun = Date.now()
    assert.equal(await worker.exit(), 1)
    assert.ok(Date.now() - begun > 9_000)
    assert.match(worker.stderr, /the server does not read: \d+ bytes wait/)
  })
})

describe('promises to answer', () => {
  test('are kept once', async () => {
    const worker = await running(`
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
    await expect(link, answer(1, '"one"'), answer(3, '["TypeError: NaN cannot be JSON","done","again","again"]'))
    link.send(event({ request: 4, number: 2 }))
    await expect(link, refusal(2, 410, 'gone', '[1]'))
    await expect(link, answer(4, '["RangeError: the code of an error is 1 to 65535, but not 200: 200","done"]'))
    link.send(...[3, 4, 5, 6].map((number) => event({ request: number, number })))
    await expect(link, answer(3, '"again"'), answer(4, '2'), refusal(5, 500), refusal(6, 409))
    await stopped(worker, /^\/wrong: TypeError: the promise of another request/)
  })

  test('that are forgotten answer 500', async () => {
    const worker = await running(`
      import { setFlagsFromString } from 'node:v8'
      import { runInNewContext } from 'node:vm'
      setFlagsFromString('--expose-gc')
      const collect = runInNewContext('gc')
      app.event('/forget', (event) => { event.later() })
      app.event('/kept', (event) => { event.later().answer(1) })
      app.event('/collect', async () => { await new Promise((resolve) => setTimeout(resolve)); collect() })`)
    const [link] = worker.links
    link.send(event({ request: 1 }), event({ request: 2, number: 1 }), event({ request: 3, number: 2 }))
    await expect(link, answer(2, '1'))
    const rest = [await link.frame(), await link.frame()].map(hex).sort()
    assert.deepEqual(rest, [answer(3, ''), refusal(1, 500)].map(hex).sort())
    await stopped(worker, '/forget: the promise to answer was forgotten\n')
  })
})

describe('subscriptions', () => {
  test('are decided by the hook', async () => {
    const worker = await running(`
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
    await expect(link, answer(1, ''), answer(2, ''), refusal(3, 401))
    link.send(on(4, 2), event({ request: 5, number: 3, client: ADA, data: 'true' }))
    await expect(link, answer(4, ''), answer(5, ''))
    link.send(on(6, 2), event({ request: 7, number: 3, client: ADA }))
    await expect(link, refusal(6, 401), answer(7, ''))
    link.send(on(8, 4), on(9, 5), on(10, 6))
    await expect(link, refusal(8, 500), refusal(9, 403), refusal(10, 500))
    link.send(frame(TO_WORKER.OFF, { number: 0, client: ADA, text: '/é' }))
    await expect(link, frame(FROM_WORKER.SEND, { client: ADA, text: '/off', data: '["/open","/é","/open/é"]' }))
    await stopped(worker, /^\/bad: TypeError: an on-hook returns(.|\n)*\n\/boom: Error: boom/)
  })
})

describe('callbacks', () => {
  const reply = (request, number, data, flags = 1) =>
    frame(TO_WORKER.REPLY, { request, number, client: ADA, data, flags })
  const dropped = (number) => frame(TO_WORKER.DROPPED, { number })

  test('are dialogues of any length', async () => {
    const worker = await running(`
      app.event('/a', () => new Answer(1, { callback: first }))
      const first = ({ client, data, json, wantsAnswer }) =>
        new Answer([client.id, data, json.text, wantsAnswer], { callback: second })
      const second = async () => { await null; throw new Refusal(418, 'tea') }`)
    const [link] = worker.links
    same(await ask(worker, {}), answer(1, '1', { number: 1 }))
    link.send(reply(2, 1, '"x"'))
    await expect(link, answer(2, '["0.7.3","x","\\"x\\"",true]', { number: 2 }))
    link.send(reply(3, 2, ''))
    await expect(link, refusal(3, 418, 'tea'))
    await stopped(worker)
  })

  test('of what is sent are answered or dropped', async () => {
    const worker = await running(`
      app.event('/a', ({ client }) => {
        app.send(client, '/x', 1, { callback: (reply) => reply.data + 1, dropped: () => app.send(client, '/gone') })
        app.send(client, '/y', 2, { callback: (reply) => { const later = reply.later(); later.answer('late') } })
      })`)
    const [link] = worker.links
    link.send(event({ request: 1, client: ADA }))
    const sent = (number, text, data) => frame(FROM_WORKER.SEND, { number, client: ADA, text, data })
    await expect(link, sent(1, '/x', '1'), sent(2, '/y', '2'), answer(1, ''))
    link.send(dropped(1), reply(2, 2, ''))
    await expect(link, sent(0, '/gone', ''), answer(2, '"late"'))
    link.send(event({ request: 3, client: ADA }))
    await expect(link, sent(3, '/x', '1'), sent(4, '/y', '2'), answer(3, ''))
    link.send(reply(4, 3, '41', 0), dropped(4))
    await expect(link, answer(4, '42'))
    link.send(reply(5, 3, ''))
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /protocol: callback 3 is not open/)
  })

  test('can be awaited', async () => {
    const worker = await running(`
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
      await expect(link, sent(number, '"what?"'))
    }
    await asked(1, 1)
    link.send(reply(2, 1, '[1]'))
    await expect(link, answer(2, ''), answer(1, '["got",[1]]'))
    await asked(3, 2)
    link.send(dropped(2))
    await expect(link, answer(3, '["Dropped",true]'))
    await asked(4, 3)
    link.send(reply(5, 3, '{'))
    await expect(link, refusal(5, 400, 'invalid JSON'), answer(4, '["Dropped",true]'))
    // A question that nobody awaits costs a line in the log, and not the worker.
    link.send(event({ request: 6, number: 1, client: ADA }))
    await expect(link, sent(4, ''), answer(6, ''))
    link.send(dropped(4))
    await asked(7, 5)
    // No answer can come any more when the link has ended.
    link.end()
    await expect(link, answer(7, '["Dropped",true]'))
    worker.links[1].end()
    assert.equal(await worker.exit(), 0)
    assert.match(worker.stderr, /^a promise was rejected, and nobody waited for it: Dropped: it will never/)
  })
})

describe('clients', () => {
  test('are the same object while they are there, with their data', async () => {
    const worker = await running(`
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
    await expect(link, watch(first), answer(1, '[1,1]'), answer(2, '[2,2]'), answer(3, '1'), answer(4, '2'))
    // The slot has a new client; of the one before something is still to come.
    link.send(count(5, second, 1), count(6, first), count(7, second, 1))
    await expect(link, answer(5, '1'), answer(6, '[3,3]'))
    await link.frame()
    link.send(frame(TO_WORKER.OFF, { client: first }), frame(TO_WORKER.GONE, { client: first }))
    await expect(link, log('["off","0.5.1",3]'), log('["gone","0.5.1",{"n":3}]'))
    link.send(frame(TO_WORKER.GONE, { client: first }), count(8, [0, 6, 1], 1))
    await expect(link, answer(8, '3'))
    await stopped(worker, /^a client that has gone: Error: in one of them/)
  })
})

describe('timers', () => {
  const fire = (number, time) => frame(TO_WORKER.TIMER, { number, time })
  const set = (number, time, flags = 0) => frame(FROM_WORKER.TIMER, { number, time, flags })
  const said = (data) => frame(FROM_WORKER.BROADCAST, { text: '/t', data })

  test('fire, once or again and again, until they are cancelled', async () => {
    const worker = await running(`
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
    await expect(link, set(2, 0), said('["every",1]'), said('["every",2]'))
    link.send(event({ request: 1 }))
    await expect(link, set(3, 250), set(4, 315_360_000_000), set(5, 2000, 1), set(6, 1000))
    await expect(link, frame(FROM_WORKER.CANCEL, { number: 6 }), set(7, 100), answer(1, ''))
    link.send(fire(6), fire(3), fire(3), fire(5), fire(7), fire(1), event({ request: 2 }))
    await expect(link, said('"once"'), said('"two"'), frame(FROM_WORKER.CANCEL, { number: 1 }))
    await stopped(worker, /^a timer: Error: in a timer\n/)
  })

  test('that repeat leave out what comes while they run', async () => {
    const worker = await running(`
      let free
      app.every(1, async () => { app.broadcast('/t', 'begins'); await new Promise((resolve) => (free = resolve)) })
      app.event('/free', () => { free() })`, { links: 1 })
    const [link] = worker.links
    link.send(fire(1), fire(1), fire(1), event({ request: 1 }))
    await expect(link, said('"begins"'), answer(1, ''))
    link.send(fire(1), event({ request: 2 }))
    await expect(link, said('"begins"'), answer(2, ''))
    await stopped(worker)
  })
})

describe('the end', () => {
  test('waits for what is under way, and for stop', async () => {
    const worker = await running(`
      const waiting = []
      app.event('/wait', async ({ data }) => {
        await new Promise((resolve) => waiting.push(resolve))
        app.broadcast('/x', data)
        return data
      })
      app.event('/free', async () => { setTimeout(() => waiting.splice(0).forEach((free) => free()), 50) })
        .off(async ({ client }) => {
          await new Promise((resolve) => setTimeout(resolve, 20))
          app.send(client, '/off')
        })
      app.every(1, () => {})
      app.stop(async () => { await null; console.log('stopped') })
      app.stop(() => { throw new Error('in stop') })
      app.stop(() => console.log('twice'))
      setInterval(() => {}, 1000)`)
    const [link, other] = worker.links
    link.send(event({ request: 1, client: ADA, data: '1' }))
    other.send(event({ request: 2, client: BOB, data: '2' }))
    link.send(frame(TO_WORKER.OFF, { number: 1, client: ADA }))
    link.end()
    other.send(event({ request: 3, number: 1, client: BOB }))
    await expect(other, answer(3, ''))
    other.end()
    const rest = [...(await link.rest()), ...(await other.rest())].map(hex).sort()
    const broadcasts = ['1', '2'].map((data) => frame(FROM_WORKER.BROADCAST, { text: '/x', data }))
    const off = frame(FROM_WORKER.SEND, { client: ADA, text: '/off' })
    assert.deepEqual(rest, [...broadcasts, off, answer(1, '1'), answer(2, '2')].map(hex).sort())
    assert.equal(await worker.exit(), 0)
    assert.equal(worker.stdout, 'stopped\ntwice\n')
    assert.match(worker.stderr, /^app\.stop: Error: in stop\n/)
  })

  test('comes at once with that of the control socket', async () => {
    const worker = await running(`app.event('/a', () => new Promise(() => {}))`)
    worker.links[0].send(event({ request: 1 }))
    worker.control.end()
    assert.equal(await worker.exit(), 'SIGKILL')
  })

  // Such a process would keep stdout open, and so the test would wait for it.
  const spawning = `
    import { spawn } from 'node:child_process'
    spawn('sleep', ['1000'], { stdio: 'inherit' })
    process.on('exit', () => console.log('exit'))
    app.event('/a', () => 1)`

  test('is that of the processes that it has started where the server has gone', async () => {
    const worker = await running(spawning)
    worker.control.end()
    assert.equal(await worker.exit(), 'SIGKILL')
    assert.equal(worker.stdout, 'exit\n')
  })

  test('is so where Node is an old one, which is started twice', async () => {
    const worker = await runBy([process.execPath, '--import', OLD_NODE, RUNNER], script(spawning))
    worker.control.end()
    assert.equal(await worker.exit(), 'SIGKILL')
    assert.equal(worker.stdout, 'exit\n')
  })

  test('spares a process group that is not its own', async () => {
    const shell = ['sh', '-c', '"$@"; echo "code $?"', 'sh', NODE, RUNNER]
    const worker = await runBy(shell, script(`app.event('/a', () => 1)`))
    worker.control.end()
    assert.equal(await worker.exit(), 0)
    assert.equal(worker.stdout, 'code 0\n')
  })

  const commands = [['', NODE, RUNNER], [', nor with an old Node', process.execPath, '--import', OLD_NODE, RUNNER]]
  for (const [what, ...command] of commands) {
    test(`is neither SIGINT nor SIGTERM${what}`, async () => {
      const worker = await runBy(command, script(`app.event('/a', () => 1)`))
      for (const signal of ['SIGINT', 'SIGTERM']) process.kill(-worker.process.pid, signal)
      worker.process.kill('SIGTERM')
      await new Promise((resolve) => setTimeout(resolve, 100))
      same(await ask(worker, {}), answer(1, '1'))
      await stopped(worker)
    })
  }

  test('comes with what no handler catches', async () => {
    const worker = await running(`app.event('/a', () => { setTimeout(() => { throw new Error('loose') }) })`)
    same(await ask(worker, {}), answer(1, ''))
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /Error: loose/)
  })

  const violations = [
    ['a frame that is too short', [Buffer.from('0000002301000000', 'hex')], /a frame of 39 bytes/],
    ['a frame that is too long', [Buffer.from('7fffffff', 'hex')], /a frame of 2147483651 bytes/],
    ['an unknown type', [frame(9)], /a frame of the type 9/],
    ['an unknown event', [event({ number: 1 })], /there is no event 1/],
    ['a text that is too long', [Buffer.from(event().fill(255, 28, 32))], /a text is longer than its frame/],
    ['a client of another shard', [event({ client: [1, 0, 0] })], /a client of another shard/],
    ['a callback that nobody offered', [frame(TO_WORKER.DROPPED, { number: 1 })], /callback 1 is not open/]
  ]
  for (const [what, bytes, said] of violations) {
    test(`comes with ${what}`, async () => {
      const worker = await running(`app.event('/a', () => 1)`)
      worker.links[0].send(...bytes)
      assert.equal(await worker.exit(), 1)
      assert.match(worker.stderr, said)
    })
  }

  test('comes with half a frame', async () => {
    const worker = await running(`app.event('/a', () => 1)`)
    worker.links[0].send(event().subarray(0, 20))
    worker.links[0].end()
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /a link ended within a frame/)
  })
})

describe('the control socket', () => {
  test('is answered while requests are under way', async () => {
    const worker = start(script(`
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
    test(`must make sense: ${line.slice(0, 10)}`, async () => {
      const worker = await running('')
      worker.control.write(`${line}${line.length > 10 ? '' : '\n'}`)
      assert.equal(await worker.exit(), 1)
      assert.match(worker.stderr, /the server does not keep to its protocol: a line of the control socket/)
    })
  }
})
