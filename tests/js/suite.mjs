// What a QuickIO client library in JavaScript has to do against a server that runs `--app relay --app clienttest`:
// the same tests in browsers and in Node, over every transport. Nothing here belongs to one of them.
//
//     for (const { name, skip, run } of suite(env)) ...      // `skip`: why it cannot be run here; else `await run()`
//
// `env` is
//     QuickIO           the library
//     url               of the server, or of what stands before it
//     options           for every client: what is injected, shorter timeouts
//     expectTransport   'websocket', 'stream' or 'poll': what clients have to arrive at
//     assert            ok, equal, deepEqual; without it the one exported here
//     control           what only the runner can do; each one may be absent, and its tests are skipped then:
//       restart()         ends the server and starts it at the same address
//       cut()             breaks every connection of the clients; new ones work
//       sleep(), wake()   the clients hear nothing any more; then much time has passed, and their page is told so
//       secondServer()    resolves to the address, host:port, of another server

const DEADLINE_MS = 30_000 // how long anything is waited for

export const assert = {
  ok(value, message = 'not true') {
    if (!value) throw new Error(message)
  },
  equal(found, wanted, message = 'not equal') {
    assert.ok(Object.is(found, wanted), `${message}: ${show(found)} is not ${show(wanted)}`)
  },
  deepEqual(found, wanted, message = 'not equal') {
    assert.ok(show(found) === show(wanted), `${message}: ${show(found)} is not ${show(wanted)}`)
  }
}

function show(value) {
  return JSON.stringify(value, (_, part) => {
    if (part === undefined) return 'undefined'
    if (part === null || typeof part !== 'object' || Array.isArray(part)) return part
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}

/** A clock that only its owner moves. */
export class FakeClock {
  #timers = new Map()
  #lastId = 0
  time = 1_000_000

  now() { return this.time }
  clearTimeout(id) { this.#timers.delete(id) }

  setTimeout(fn, ms) {
    this.#timers.set(++this.#lastId, { fn, at: this.time + ms })
    return this.#lastId
  }

  /** In how many milliseconds the next timer is due. */
  get next() {
    return Math.min(...[...this.#timers.values()].map(({ at }) => at)) - this.time
  }

  get count() { return this.#timers.size }

  /** Moves on, and lets happen what is due on the way. */
  async advance(ms) {
    await settled()
    const end = this.time + ms
    while (this.count && this.time + this.next <= end) {
      const [id, { fn, at }] = [...this.#timers].reduce((a, b) => (b[1].at < a[1].at ? b : a))
      this.#timers.delete(id)
      this.time = Math.max(this.time, at)
      fn()
      await settled()
    }
    this.time = end
  }
}

/** Everything that is due without a timer has happened. */
export async function settled() {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setTimeout(resolve, 0))
}

/** A promise with its handles outside. */
function deferred() {
  const handles = {}
  handles.promise = new Promise((resolve, reject) => Object.assign(handles, { resolve, reject }))
  return handles
}

async function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`never came: ${what}`)), DEADLINE_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** What comes, one after the other, for tests that wait for it. */
class Inbox {
  #kept = []
  #waiting = []

  put = (...args) => {
    const next = this.#waiting.shift()
    if (next) next(args)
    else this.#kept.push(args)
  }

  get count() { return this.#kept.length }

  take(what) {
    if (this.#kept.length) return Promise.resolve(this.#kept.shift())
    return within(new Promise((resolve) => this.#waiting.push(resolve)), what)
  }
}

/** The clients of one test. */
class Bench {
  #clients = []

  constructor(env) {
    this.env = env
  }

  /** A client that has just been made. */
  client(options = {}, url = this.env.url) {
    const client = new this.env.QuickIO(url, { ...this.env.options, ...options })
    this.#clients.push(client)
    return client
  }

  async open(options, url) {
    const client = this.client(options, url)
    await within(new Promise((resolve) => client.one('/open', resolve)), 'an open connection')
    return client
  }

  /** The next client-side event of a client. */
  next(client, path) {
    return within(new Promise((resolve) => client.one(path, resolve)), path)
  }

  /** Asks, and asks again where the connection is lost meanwhile. */
  async ask(client, path, data) {
    for (;;) {
      try {
        return await within(client.send(path, data), `an answer of ${path}`)
      } catch (error) {
        if (error.code !== -1) throw error
      }
    }
  }

  end() {
    for (const client of this.#clients) client.close()
  }
}

let rooms = 0
const someRoom = () => `/relay/js-${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}-${++rooms}`

async function failure(promise) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('that should have failed')
}

/** The tests, as a list of `{ name, skip, run }`. */
export function suite(env) {
  const context = { assert, control: {}, options: {}, ...env }
  return TESTS.map(({ name, needs, body }) => {
    const absent = needs.filter((need) => !context.control[need])
    return {
      name,
      skip: absent.length ? `the runner has no ${absent.join(', ')}` : null,
      async run() {
        const bench = new Bench(context)
        try {
          await body(bench, context)
        } finally {
          bench.end()
        }
      }
    }
  })
}

const TESTS = []
const test = (name, body, needs = []) => TESTS.push({ name, needs, body })

test('opens, by the transport that works here', async (bench, { assert, expectTransport }) => {
  const client = bench.client()
  assert.equal(client.state, 'connecting')
  assert.equal(client.transport, null)
  const told = []
  client.on('/transport', (name) => told.push(['/transport', name]))
  const opened = bench.next(client, '/open')
  client.on('/open', (name) => told.push(['/open', name]))
  await opened
  await settled()
  assert.deepEqual(told, [['/transport', expectTransport], ['/open', expectTransport]])
  assert.equal(client.transport, expectTransport)
  assert.equal(client.state, 'open')
})

test('a ping is answered, by callback and by promise', async (bench, { assert }) => {
  const client = await bench.open()
  const answers = new Inbox()
  assert.equal(client.send('/qio/ping', null, answers.put), undefined)
  assert.deepEqual(await answers.take('an answer'), [null, undefined, 200, null])
  assert.equal(await client.send('/qio/ping'), null)
})

test('every kind of JSON comes back as it went', async (bench, { assert }) => {
  const client = await bench.open()
  const values = [null, true, false, 0, -1.5, 1e300, '', '"\\/\b\f\n\r\t', [], {}, [1, [2, [3]]], { a: { b: [null] } }]
  const answers = await Promise.all(values.map((value) => client.send('/clienttest/echo', value)))
  assert.deepEqual(answers, values)
  assert.equal(await client.send('/clienttest/echo'), null)
})

test('unicode', async (bench, { assert }) => {
  const client = await bench.open()
  const odd = ['e\u0301', '\u2028\u2029', '\u0000\u001f', '\ud800', '\uffff']
  const texts = ['é', '水', '🐌', ...odd, '🐌é水'.repeat(1000)]
  for (const text of texts) assert.equal(await client.send('/clienttest/echo', text), text)
  assert.deepEqual(await client.send('/clienttest/echo', { 'é🐌': texts }), { 'é🐌': texts })
})

test('large data', async (bench, { assert }) => {
  const client = await bench.open()
  const sizes = [1, 125, 126, 127, 1000, 4096, 16_384, 32_768, 40_000, 60_000]
  const answers = await Promise.all(sizes.map((size) => client.send('/clienttest/echo', 'x'.repeat(size))))
  assert.deepEqual(answers.map((answer) => answer.length), sizes)
})

test('1000 sends at once are answered in their order', async (bench, { assert }) => {
  const client = await bench.open()
  const answers = []
  const all = deferred()
  for (let number = 0; number < 1000; number++) {
    client.send('/clienttest/echo', number, (data) => {
      answers.push(data)
      if (answers.length === 1000) all.resolve()
    })
  }
  await within(all.promise, '1000 answers')
  assert.deepEqual(answers, Array.from({ length: 1000 }, (_, number) => number))
})

test('errors have a code, data and a message', async (bench, { assert, QuickIO }) => {
  const client = await bench.open()
  const answers = new Inbox()
  client.send('/clienttest/error/402', null, answers.put)
  assert.deepEqual(await answers.take('an answer'), ['you requested an error?', undefined, 402, '402s are fun!'])
  const error = await failure(client.send('/clienttest/error/500'))
  assert.ok(error instanceof Error && error instanceof QuickIO.Error)
  assert.deepEqual([error.code, error.data, error.message], [500, 'you requested an error?', '500s are fun!'])
})

test('what does not exist is answered 404', async (bench, { assert }) => {
  const client = await bench.open()
  assert.equal((await failure(client.send('/nowhere/at/all', 1))).code, 404)
  assert.equal((await failure(client.on('/nowhere/at/all', () => {}))).code, 404)
})

test('paths are cleaned as the server cleans them', async (bench, { assert }) => {
  const client = await bench.open()
  assert.equal(await client.send('//client@test///echo/', 7), 7)
  const room = someRoom()
  const events = new Inbox()
  await client.on(`/${room}/(new)>>/`, events.put)
  client.send(`${room}/new`, 1)
  assert.equal((await events.take('an event'))[0], 1)
})

test('chains of server callbacks', async (bench, { assert }) => {
  const client = await bench.open()
  const found = []
  const done = deferred()
  const step = (number) => (data, reply, code) => {
    found.push([data, code])
    if (number === 20) done.resolve()
    else reply(number, step(number + 1))
  }
  client.send('/clienttest/echo', 0, step(1))
  await within(done.promise, 'the end of the chain')
  assert.deepEqual(found, Array.from({ length: 20 }, (_, number) => [number, 200]))
})

test('a reply may be awaited, and works once', async (bench, { assert }) => {
  const client = await bench.open()
  const answers = new Inbox()
  client.send('/clienttest/echo', 'a', answers.put)
  const [, reply] = await answers.take('an answer')
  assert.equal(await reply('b'), 'b')
  assert.equal((await failure(reply('c'))).code, 404)
})

test('a reply to a connection that has gone is not sent', async (bench, { assert }) => {
  const client = await bench.open()
  const answers = new Inbox()
  client.send('/clienttest/echo', 'a', answers.put)
  const [, reply] = await answers.take('an answer')
  const opened = bench.next(client, '/open')
  client.reconnect()
  assert.equal((await failure(reply('while disconnected'))).code, -1)
  await opened
  assert.equal((await failure(reply('on another connection'))).code, -1)
})

test('broadcasts reach whoever subscribed, until they no longer are', async (bench, { assert }) => {
  const client = await bench.open()
  const events = new Inbox()
  await within(client.on('/clienttest/broadcast', events.put), 'the subscription')
  for (let number = 0; number < 5; number++) {
    assert.deepEqual(await events.take('a broadcast'), ['broadcast event', undefined, 200, null])
  }
  client.off('/clienttest/broadcast', events.put)
  const before = events.count
  for (let number = 0; number < 10; number++) await client.send('/qio/ping')
  assert.equal(events.count, before)
})

test('one handler for one event', async (bench, { assert }) => {
  const client = await bench.open()
  const room = someRoom()
  const [once, always] = [new Inbox(), new Inbox()]
  await Promise.all([client.one(room, once.put), client.on(room, always.put)])
  for (const number of [1, 2, 3]) client.send(room, number)
  for (const number of [1, 2, 3]) assert.equal((await always.take('an event'))[0], number)
  assert.equal((await once.take('an event'))[0], 1)
  assert.equal(once.count, 0)
})

test('several handlers, one of which throws nothing at the others', async (bench, { assert }) => {
  const client = await bench.open()
  const room = someRoom()
  const [first, second] = [new Inbox(), new Inbox()]
  const leaving = () => client.off(room, leaving)
  await Promise.all([client.on(room, first.put), client.on(room, leaving), client.on(room, second.put)])
  client.send(room, 'both')
  assert.equal((await first.take('an event'))[0], 'both')
  assert.equal((await second.take('an event'))[0], 'both')
  client.off(room)
  const before = [first.count, second.count]
  await client.send(room, 'none')
  await client.send('/qio/ping')
  assert.deepEqual([first.count, second.count], before)
})

test('events from one client to another, in order', async (bench, { assert }) => {
  const [sender, listener] = await Promise.all([bench.open(), bench.open()])
  const room = someRoom()
  const found = []
  const all = deferred()
  await listener.on(room, (number) => {
    found.push(number)
    if (found.length === 500) all.resolve()
  })
  for (let number = 0; number < 500; number++) {
    sender.send(room, number, null)
    if (number % 100 === 0) await sender.send('/qio/ping')
  }
  await within(all.promise, '500 events')
  assert.deepEqual(found, Array.from({ length: 500 }, (_, number) => number))
})

test('subscriptions with data for the application', async (bench, { assert }) => {
  const client = await bench.open()
  const events = new Inbox()
  await within(client.on('/clienttest/on-data', events.put, { extra: 123987 }), 'the subscription')
  assert.equal((await events.take('an event'))[0], true)
})

test('a refused subscription is told to whoever asked', async (bench, { assert }) => {
  const client = await bench.open()
  const [refusals, errors] = [new Inbox(), new Inbox()]
  client.on('/error', errors.put)
  const asked = client.on('/clienttest/on-data', () => {}, refusals.put)
  assert.equal((await refusals.take('a refusal'))[0].code, 401)
  assert.equal((await failure(asked)).code, 401)
  assert.equal(errors.count, 0)
  client.on('/clienttest/on-data', () => {}, { extra: 1, onError: refusals.put })
  assert.equal((await refusals.take('a refusal'))[0].code, 401)
  client.on('/clienttest/echo', () => {})
  assert.equal((await errors.take('an error'))[0].code, 401)
})

test('a subscription waits for the decision', async (bench, { assert }) => {
  const client = await bench.open()
  let subscribed = false
  const asked = client.on('/clienttest/in-progress', () => {}).then(() => { subscribed = true })
  const again = client.on('/clienttest/in-progress', () => {})
  await client.send('/qio/ping')
  assert.equal(subscribed, false)
  await client.send('/clienttest/in-progress')
  await within(Promise.all([asked, again]), 'the decision')
})

test('a subscription that is given up and asked for again while it is decided', async (bench, { assert }) => {
  const client = await bench.open()
  const first = client.on('/clienttest/in-progress', () => {})
  client.off('/clienttest/in-progress')
  assert.equal((await failure(first)).name, 'AbortError')
  let subscribed = false
  const second = client.on('/clienttest/in-progress', () => {}).then(() => { subscribed = true }) // answered 202
  await client.send('/qio/ping')
  assert.equal(subscribed, false)
  await client.send('/clienttest/in-progress')
  await within(second, 'the decision')
})

test('heartbeats are answered', async (bench, { assert }) => {
  const client = await bench.open()
  assert.equal(await within(client.send('/clienttest/heartbeat-challenge'), 'the answer'), null)
})

test('an answer that never comes: timeout and abort', async (bench, { assert }) => {
  const client = await bench.open()
  const late = await failure(client.send('/clienttest/drop-callback', 1, { timeout: 20 }))
  assert.deepEqual([late.name, late.code], ['TimeoutError', -2])
  const controller = new AbortController()
  const aborted = client.send('/clienttest/drop-callback', 1, { signal: controller.signal })
  controller.abort()
  assert.deepEqual([(await failure(aborted)).name, (await failure(aborted)).code], ['AbortError', -3])
  const never = await failure(client.send('/clienttest/echo', 1, { signal: controller.signal }))
  assert.equal(never.code, -3)
  const answers = new Inbox()
  client.send('/clienttest/drop-callback', null, answers.put, { timeout: 20 })
  assert.equal((await answers.take('the timeout'))[2], -2)
  assert.equal(await client.send('/clienttest/echo', 'still there', { timeout: DEADLINE_MS }), 'still there')
})

test('an event that nobody subscribed to is dropped', async (bench, { assert }) => {
  const client = await bench.open()
  const told = new Inbox()
  for (const path of ['/error', '/close']) client.on(path, told.put)
  assert.equal(await client.send('/clienttest/send-unsubscribed'), null)
  assert.equal(await client.send('/clienttest/echo', 'alive'), 'alive')
  assert.equal(told.count, 0)
})

test('a malformed event ends the connection, and there is another one', async (bench, { assert }) => {
  const client = await bench.open()
  const told = []
  for (const path of ['/error', '/close', '/open']) client.on(path, () => told.push(path))
  const opened = bench.next(client, '/open')
  const error = bench.next(client, '/error')
  client.send('/clienttest/send-invalid', null, null)
  assert.ok((await error).message.includes('this is no event'))
  await opened
  assert.ok(told.includes('/close'))
  assert.equal(await client.send('/clienttest/echo', 'alive'), 'alive')
})

test('a lost connection comes back with all subscriptions, by the same transport', async (bench, context) => {
  const { assert, expectTransport } = context
  const client = await bench.open()
  const room = someRoom()
  const events = new Inbox()
  await Promise.all([client.on(room, events.put), client.on('/clienttest/broadcast', () => {})])
  const closed = bench.next(client, '/close')
  const opened = bench.next(client, '/open')
  client.send('/clienttest/close', null, null)
  assert.ok((await closed) instanceof Error)
  assert.equal(client.transport, null)
  assert.equal(await opened, expectTransport)
  client.send(room, 'back')
  assert.equal((await events.take('an event'))[0], 'back')
})

test('a disconnect: callbacks fail, then subscriptions, the queue, /open', async (bench, { assert }) => {
  const client = await bench.open()
  const room = someRoom()
  const order = []
  const done = deferred()
  await client.on(room, (data) => {
    order.push(data)
    done.resolve()
  })
  client.send('/clienttest/drop-callback', null, (_data, _reply, code, message) => {
    order.push([code, message])
    client.send(room, 'queued') // reaches this client only where it has subscribed before
  })
  client.on('/open', () => order.push('/open'))
  client.on('/close', () => order.push('/close'))
  client.send('/clienttest/close', null, null)
  await within(done.promise, 'the queued event')
  assert.deepEqual(order, [[-1, 'disconnected'], '/close', '/open', 'queued'])
})

test('events are queued until there is a connection, and keep their order', async (bench, { assert }) => {
  const client = bench.client()
  const answers = []
  const sent = []
  for (let number = 0; number < 100; number++) {
    sent.push(client.send('/clienttest/echo', number).then((data) => answers.push(data)))
  }
  await within(Promise.all(sent), 'the answers')
  assert.deepEqual(answers, Array.from({ length: 100 }, (_, number) => number))
})

test('a subscription before there is a connection', async (bench, { assert }) => {
  const client = bench.client()
  const events = new Inbox()
  await within(client.on('/clienttest/broadcast', events.put), 'the subscription')
  assert.equal((await events.take('a broadcast'))[0], 'broadcast event')
})

test('the queue has an end, and an event in it can be taken back', async (bench, { assert }) => {
  const client = bench.client({ queueMax: 2 })
  const controller = new AbortController()
  const [first, second, third] = ['a', 'b', 'c'].map((data) => {
    return client.send('/clienttest/echo', data, { signal: controller.signal })
  })
  assert.equal((await failure(third)).code, -4)
  controller.abort()
  assert.deepEqual([(await failure(first)).code, (await failure(second)).code], [-3, -3])
  assert.equal(await within(client.send('/clienttest/echo', 'd'), 'an answer'), 'd')
})

test('close is for good, until reconnect', async (bench, { assert }) => {
  const client = await bench.open()
  const room = someRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  const open = client.send('/clienttest/drop-callback')
  const closed = bench.next(client, '/close')
  client.close()
  await closed
  assert.equal((await failure(open)).code, -1)
  assert.equal((await failure(client.send('/qio/ping'))).code, -1)
  assert.deepEqual([client.state, client.transport], ['closed', null])
  const opened = bench.next(client, '/open')
  client.reconnect()
  await opened
  client.send(room, 'again')
  assert.equal((await events.take('an event'))[0], 'again')
})

test('backs off: 100 ms, then twice that, up to 25.6 s', async (bench, { assert }) => {
  const clock = new FakeClock()
  const attempts = []
  class Unreachable {
    constructor() {
      attempts.push(clock.now())
      queueMicrotask(() => this.onclose({ code: 1006, reason: '' }))
    }
    close() {}
  }
  const options = { clock, WebSocket: Unreachable, transports: ['websocket'], random: () => 1, page: {} }
  bench.client(options, 'ws://127.0.0.1:1')
  await clock.advance(100_000)
  const pauses = attempts.slice(1).map((at, number) => at - attempts[number])
  assert.deepEqual(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 25_600])
})

test('follows a move to another server', async (bench, { assert, control, expectTransport, url }) => {
  const second = await control.secondServer()
  const client = await bench.open()
  const room = someRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  const moved = bench.next(client, '/open')
  client.send('/clienttest/move', second, null)
  await moved
  const witness = await bench.open({}, second)
  await witness.send(room, 'at the second server')
  assert.equal((await events.take('an event'))[0], 'at the second server')
  const back = bench.next(client, '/open')
  client.send('/clienttest/move', String(url), null)
  assert.equal(await back, expectTransport)
}, ['secondServer'])

test('comes back from a move to nowhere', async (bench, { assert }) => {
  const client = await bench.open()
  const opened = bench.next(client, '/open')
  client.send('/clienttest/move', '127.0.0.1:1', null)
  await opened
  assert.equal(await client.send('/clienttest/echo', 'home'), 'home')
})

test('survives a restart of the server', async (bench, { assert, control, expectTransport }) => {
  const client = await bench.open()
  const room = someRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  const closed = bench.next(client, '/close')
  const opened = bench.next(client, '/open')
  await control.restart()
  await closed
  assert.equal(await opened, expectTransport)
  await bench.ask(client, room, 'after the restart')
  assert.equal((await events.take('an event'))[0], 'after the restart')
}, ['restart'])

test('survives cut connections', async (bench, { assert, control, expectTransport }) => {
  const client = await bench.open()
  const room = someRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  await control.cut()
  await bench.ask(client, room, 'after the cut')
  assert.equal((await events.take('an event'))[0], 'after the cut')
  assert.equal(client.transport, expectTransport)
}, ['cut'])

test('a sleeper that wakes connects anew, at once', async (bench, { assert, control }) => {
  const client = await bench.open()
  const room = someRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  await control.sleep()
  const opened = bench.next(client, '/open')
  await control.wake()
  await opened
  await bench.ask(client, room, 'awake')
  assert.equal((await events.take('an event'))[0], 'awake')
}, ['sleep', 'wake'])
