// Tests of a QuickIO client library in JavaScript, against a server that runs `--app relay --app clienttest`. The tests
// do not depend on an environment: they run in browsers and in Node, over every transport.
//
//     for (const { name, skip, run } of suite(env)) ...      // `skip`: the reason to skip the test; else `await run()`
//
// `env` has these members:
//     QuickIO           the library
//     url               the address of the server, or of a proxy in front of it
//     options           options for every client: injected objects, shorter timeouts
//     expectTransport   'websocket', 'stream' or 'poll': the transport that clients must end up with
//     assert            ok, equal, deepEqual; the default is the one exported here
//     control           functions that only the runner can provide; tests whose functions are missing are skipped:
//       restart()         stops the server and starts it at the same address
//       cut()             breaks all connections of the clients; new ones work
//       sleep(), wake()   stops all data to the clients; then makes a long time pass and notifies their page
//       keeps()           does nothing: says that the server has the settings of support/history.toml
//       secondServer()    resolves to the address, host:port, of another server

const DEADLINE_MS = 30_000 // the time limit for everything that a test awaits

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

/** A clock that only the test advances. */
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

  /** The milliseconds until the next timer is due. */
  get next() {
    return Math.min(...[...this.#timers.values()].map(({ at }) => at)) - this.time
  }

  get count() { return this.#timers.size }

  /** Advances the clock, and runs the timers that become due. */
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

/** Resolves when everything has happened that does not wait for a timer of the fake clock. */
export async function settled() {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setTimeout(resolve, 0))
}

/** Returns a promise together with its `resolve` and `reject`. */
function deferred() {
  const handles = {}
  handles.promise = new Promise((resolve, reject) => Object.assign(handles, { resolve, reject }))
  return handles
}

async function within(promise, what) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`timed out waiting for ${what}`)), DEADLINE_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** A queue of received values, which tests take one after the other. */
class Inbox {
  #values = []
  #waiting = []

  put = (...args) => {
    const next = this.#waiting.shift()
    if (next) next(args)
    else this.#values.push(args)
  }

  get count() { return this.#values.length }

  take(what) {
    if (this.#values.length) return Promise.resolve(this.#values.shift())
    return within(new Promise((resolve) => this.#waiting.push(resolve)), what)
  }
}

/** The clients of one test. */
class TestClients {
  #clients = []

  constructor(env) {
    this.env = env
  }

  /** Creates a client, which connects after the current task. */
  client(options = {}, url = this.env.url) {
    const client = new this.env.QuickIO(url, { ...this.env.options, ...options })
    this.#clients.push(client)
    return client
  }

  /** Creates a client and waits until it is open. */
  async open(options, url) {
    const client = this.client(options, url)
    await within(new Promise((resolve) => client.one('/open', resolve)), 'an open connection')
    return client
  }

  /** Resolves to the data of the next event at `path`. */
  next(client, path) {
    return within(new Promise((resolve) => client.one(path, resolve)), path)
  }

  /** Sends an event and returns the answer. Repeats the event if the connection is lost meanwhile. */
  async sendReliably(client, path, data) {
    for (;;) {
      try {
        return await within(client.send(path, data), `an answer from ${path}`)
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
const newRoom = (parent = '/relay') => `${parent}/js-${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}-${++rooms}`

async function failure(promise) {
  try {
    await promise
  } catch (error) {
    return error
  }
  throw new Error('the promise should have been rejected')
}

/** Returns the tests as a list of `{ name, skip, run }`. */
export function suite(env) {
  const context = { assert, control: {}, options: {}, ...env }
  return TESTS.map(({ name, needs, body }) => {
    const absent = needs.filter((need) => !context.control[need])
    return {
      name,
      skip: absent.length ? `the runner does not provide ${absent.join(', ')}` : null,
      async run() {
        const clients = new TestClients(context)
        try {
          await body(clients, context)
        } finally {
          clients.end()
        }
      }
    }
  })
}

const TESTS = []
const test = (name, body, needs = []) => TESTS.push({ name, needs, body })

test('opens with the transport that works in this environment', async (clients, { assert, expectTransport }) => {
  const client = clients.client()
  assert.equal(client.state, 'connecting')
  assert.equal(client.transport, null)
  const emitted = []
  client.on('/transport', (name) => emitted.push(['/transport', name]))
  const opened = clients.next(client, '/open')
  client.on('/open', (name) => emitted.push(['/open', name]))
  await opened
  await settled()
  assert.deepEqual(emitted, [['/transport', expectTransport], ['/open', expectTransport]])
  assert.equal(client.transport, expectTransport)
  assert.equal(client.state, 'open')
})

test('answers a ping, by callback and by promise', async (clients, { assert }) => {
  const client = await clients.open()
  const answers = new Inbox()
  assert.equal(client.send('/qio/ping', null, answers.put), undefined)
  assert.deepEqual(await answers.take('an answer'), [null, undefined, 200, null])
  assert.equal(await client.send('/qio/ping'), null)
})

test('every kind of JSON value is echoed unchanged', async (clients, { assert }) => {
  const client = await clients.open()
  const values = [null, true, false, 0, -1.5, 1e300, '', '"\\/\b\f\n\r\t', [], {}, [1, [2, [3]]], { a: { b: [null] } }]
  const answers = await Promise.all(values.map((value) => client.send('/clienttest/echo', value)))
  assert.deepEqual(answers, values)
  assert.equal(await client.send('/clienttest/echo'), null)
})

test('unicode', async (clients, { assert }) => {
  const client = await clients.open()
  const odd = ['e\u0301', '\u2028\u2029', '\u0000\u001f', '\ud800', '\uffff']
  const texts = ['é', '水', '🐌', ...odd, '🐌é水'.repeat(1000)]
  for (const text of texts) assert.equal(await client.send('/clienttest/echo', text), text)
  assert.deepEqual(await client.send('/clienttest/echo', { 'é🐌': texts }), { 'é🐌': texts })
})

test('large data', async (clients, { assert }) => {
  const client = await clients.open()
  const sizes = [1, 125, 126, 127, 1000, 4096, 16_384, 32_768, 40_000, 60_000]
  const answers = await Promise.all(sizes.map((size) => client.send('/clienttest/echo', 'x'.repeat(size))))
  assert.deepEqual(answers.map((answer) => answer.length), sizes)
})

test('1000 simultaneous sends are answered in order', async (clients, { assert }) => {
  const client = await clients.open()
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

test('errors have a code, data and a message', async (clients, { assert, QuickIO }) => {
  const client = await clients.open()
  const answers = new Inbox()
  client.send('/clienttest/error/402', null, answers.put)
  assert.deepEqual(await answers.take('an answer'), ['you requested an error?', undefined, 402, '402s are fun!'])
  const error = await failure(client.send('/clienttest/error/500'))
  assert.ok(error instanceof Error && error instanceof QuickIO.Error)
  assert.deepEqual([error.code, error.data, error.message], [500, 'you requested an error?', '500s are fun!'])
})

test('unknown paths are answered with 404', async (clients, { assert }) => {
  const client = await clients.open()
  assert.equal((await failure(client.send('/nowhere/at/all', 1))).code, 404)
  assert.equal((await failure(client.on('/nowhere/at/all', () => {}))).code, 404)
})

test('normalizes paths in the same way as the server', async (clients, { assert }) => {
  const client = await clients.open()
  assert.equal(await client.send('//client@test///echo/', 7), 7)
  const room = newRoom()
  const events = new Inbox()
  await client.on(`/${room}/(new)>>/`, events.put)
  client.send(`${room}/new`, 1)
  assert.equal((await events.take('an event'))[0], 1)
})

test('chains of server callbacks', async (clients, { assert }) => {
  const client = await clients.open()
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

test('a reply can be awaited, and works once', async (clients, { assert }) => {
  const client = await clients.open()
  const answers = new Inbox()
  client.send('/clienttest/echo', 'a', answers.put)
  const [, reply] = await answers.take('an answer')
  assert.equal(await reply('b'), 'b')
  assert.equal((await failure(reply('c'))).code, 404)
})

test('a reply to an earlier connection is not sent', async (clients, { assert }) => {
  const client = await clients.open()
  const answers = new Inbox()
  client.send('/clienttest/echo', 'a', answers.put)
  const [, reply] = await answers.take('an answer')
  const opened = clients.next(client, '/open')
  client.reconnect()
  assert.equal((await failure(reply('while disconnected'))).code, -1)
  await opened
  assert.equal((await failure(reply('on another connection'))).code, -1)
})

test('delivers broadcasts while subscribed', async (clients, { assert }) => {
  const client = await clients.open()
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

test('one() handles one event', async (clients, { assert }) => {
  const client = await clients.open()
  const room = newRoom()
  const [once, always] = [new Inbox(), new Inbox()]
  await Promise.all([client.one(room, once.put), client.on(room, always.put)])
  for (const number of [1, 2, 3]) client.send(room, number)
  for (const number of [1, 2, 3]) assert.equal((await always.take('an event'))[0], number)
  assert.equal((await once.take('an event'))[0], 1)
  assert.equal(once.count, 0)
})

test('several handlers, one of which removes itself', async (clients, { assert }) => {
  const client = await clients.open()
  const room = newRoom()
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

test('events from one client to another, in order', async (clients, { assert }) => {
  const [sender, listener] = await Promise.all([clients.open(), clients.open()])
  const room = newRoom()
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

test('subscriptions with data for the application', async (clients, { assert }) => {
  const client = await clients.open()
  const events = new Inbox()
  await within(client.on('/clienttest/on-data', events.put, { extra: 123987 }), 'the subscription')
  assert.equal((await events.take('an event'))[0], true)
})

test('reports a refused subscription to onError, the promise or /error', async (clients, { assert }) => {
  const client = await clients.open()
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

test('a subscription waits for the decision of the application', async (clients, { assert }) => {
  const client = await clients.open()
  let subscribed = false
  const asked = client.on('/clienttest/in-progress', () => {}).then(() => { subscribed = true })
  const again = client.on('/clienttest/in-progress', () => {})
  await client.send('/qio/ping')
  assert.equal(subscribed, false)
  await client.send('/clienttest/in-progress')
  await within(Promise.all([asked, again]), 'the decision')
})

test('a pending subscription can be removed and requested again', async (clients, { assert }) => {
  const client = await clients.open()
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

test('answers heartbeats', async (clients, { assert }) => {
  const client = await clients.open()
  assert.equal(await within(client.send('/clienttest/heartbeat-challenge'), 'the answer'), null)
})

test('an answer that never comes: timeout and abort', async (clients, { assert }) => {
  const client = await clients.open()
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

test('ignores an event without a subscription', async (clients, { assert }) => {
  const client = await clients.open()
  const emitted = new Inbox()
  for (const path of ['/error', '/close']) client.on(path, emitted.put)
  assert.equal(await client.send('/clienttest/send-unsubscribed'), null)
  assert.equal(await client.send('/clienttest/echo', 'alive'), 'alive')
  assert.equal(emitted.count, 0)
})

test('reconnects after a malformed event', async (clients, { assert }) => {
  const client = await clients.open()
  const emitted = []
  for (const path of ['/error', '/close', '/open']) client.on(path, () => emitted.push(path))
  const opened = clients.next(client, '/open')
  const error = clients.next(client, '/error')
  client.send('/clienttest/send-invalid', null, null)
  assert.ok((await error).message.includes('this is no event'))
  await opened
  assert.ok(emitted.includes('/close'))
  assert.equal(await client.send('/clienttest/echo', 'alive'), 'alive')
})

test('reconnects with all subscriptions and the same transport', async (clients, context) => {
  const { assert, expectTransport } = context
  const client = await clients.open()
  const room = newRoom()
  const events = new Inbox()
  await Promise.all([client.on(room, events.put), client.on('/clienttest/broadcast', () => {})])
  const closed = clients.next(client, '/close')
  const opened = clients.next(client, '/open')
  client.send('/clienttest/close', null, null)
  assert.ok((await closed) instanceof Error)
  assert.equal(client.transport, null)
  assert.equal(await opened, expectTransport)
  client.send(room, 'back')
  assert.equal((await events.take('an event'))[0], 'back')
})

test('after a disconnect: callbacks fail, then subscriptions, the queue, /open', async (clients, { assert }) => {
  const client = await clients.open()
  const room = newRoom()
  const order = []
  const done = deferred()
  await client.on(room, (data) => {
    order.push(data)
    done.resolve()
  })
  client.send('/clienttest/drop-callback', null, (_data, _reply, code, message) => {
    order.push([code, message])
    client.send(room, 'queued') // reaches this client only if it has subscribed before
  })
  client.on('/open', () => order.push('/open'))
  client.on('/close', () => order.push('/close'))
  client.send('/clienttest/close', null, null)
  await within(done.promise, 'the queued event')
  assert.deepEqual(order, [[-1, 'disconnected'], '/close', '/open', 'queued'])
})

test('queues events in order until the connection opens', async (clients, { assert }) => {
  const client = clients.client()
  const answers = []
  const sent = []
  for (let number = 0; number < 100; number++) {
    sent.push(client.send('/clienttest/echo', number).then((data) => answers.push(data)))
  }
  await within(Promise.all(sent), 'the answers')
  assert.deepEqual(answers, Array.from({ length: 100 }, (_, number) => number))
})

test('subscribes before the connection opens', async (clients, { assert }) => {
  const client = clients.client()
  const events = new Inbox()
  await within(client.on('/clienttest/broadcast', events.put), 'the subscription')
  assert.equal((await events.take('a broadcast'))[0], 'broadcast event')
})

test('limits the queue; a queued event can be aborted', async (clients, { assert }) => {
  const client = clients.client({ queueMax: 2 })
  const controller = new AbortController()
  const [first, second, third] = ['a', 'b', 'c'].map((data) => {
    return client.send('/clienttest/echo', data, { signal: controller.signal })
  })
  assert.equal((await failure(third)).code, -4)
  controller.abort()
  assert.deepEqual([(await failure(first)).code, (await failure(second)).code], [-3, -3])
  assert.equal(await within(client.send('/clienttest/echo', 'd'), 'an answer'), 'd')
})

test('events that are sent before close arrive, in order', async (clients, { assert }) => {
  for (const [count, size] of [[100, 10], [100, 3000], [12, 30_000]]) {
    const [sender, listener] = await Promise.all([clients.open(), clients.open()])
    const room = newRoom()
    const events = new Inbox()
    await listener.on(room, events.put)
    for (let number = 0; number < count; number++) sender.send(room, [number, 'x'.repeat(size)], null)
    const closed = sender.close()
    assert.equal(sender.state, 'closed')
    for (let number = 0; number < count; number++) {
      const [[found, text]] = await events.take(`event ${number} of ${count}, ${size} bytes each`)
      assert.deepEqual([found, text.length], [number, size])
    }
    await within(closed, 'the end of the connection')
  }
})

test('events that are sent before the first connection arrive after close', async (clients, { assert }) => {
  const listener = await clients.open()
  const room = newRoom()
  const events = new Inbox()
  await listener.on(room, events.put)
  const sender = clients.client()
  for (let number = 0; number < 100; number++) sender.send(room, number, null)
  await within(sender.close(), 'the end of the connection')
  for (let number = 0; number < 100; number++) assert.equal((await events.take('an event'))[0], number)
})

test('an event that is larger than the limit fails alone', async (clients, { assert }) => {
  const client = await clients.open()
  const closes = new Inbox()
  client.on('/close', closes.put)
  const head = '/clienttest/echo:NN=""'.length // two digits: at most 99 callbacks are in use
  const [most, more] = ['é'.repeat((65_536 - head) / 2), 'é'.repeat((65_536 - head) / 2 + 1)]
  const answers = await Promise.all([
    client.send('/clienttest/echo', 'before'),
    failure(client.send('/clienttest/echo', more)),
    client.send('/clienttest/echo', most.slice(8)),
    failure(client.send('/clienttest/echo', 'x'.repeat(1_000_000))),
    failure(client.on('/clienttest/on-data', () => {}, { extra: more })),
    client.send('/clienttest/echo', 'after')
  ])
  assert.deepEqual(answers.map((answer) => answer?.code ?? answer.length), [6, -5, most.length - 8, -5, -5, 5])
  assert.equal(closes.count, 0)
})

test('close is permanent until reconnect', async (clients, { assert }) => {
  const client = await clients.open()
  const room = newRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  const open = client.send('/clienttest/drop-callback')
  const closed = clients.next(client, '/close')
  client.close()
  await closed
  assert.equal((await failure(open)).code, -1)
  assert.equal((await failure(client.send('/qio/ping'))).code, -1)
  assert.deepEqual([client.state, client.transport], ['closed', null])
  const opened = clients.next(client, '/open')
  client.reconnect()
  await opened
  client.send(room, 'again')
  assert.equal((await events.take('an event'))[0], 'again')
})

test('backs off from 100 ms, doubling up to 25.6 s', async (clients, { assert }) => {
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
  clients.client(options, 'ws://127.0.0.1:1')
  await clock.advance(100_000)
  const pauses = attempts.slice(1).map((at, number) => at - attempts[number])
  assert.deepEqual(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 25_600])
})

test('follows a move to another server', async (clients, { assert, control, expectTransport, url }) => {
  const second = await control.secondServer()
  const client = await clients.open()
  const room = newRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  const moved = clients.next(client, '/open')
  client.send('/clienttest/move', second, null)
  await moved
  const witness = await clients.open({}, second)
  await witness.send(room, 'at the second server')
  assert.equal((await events.take('an event'))[0], 'at the second server')
  const back = clients.next(client, '/open')
  client.send('/clienttest/move', String(url), null)
  assert.equal(await back, expectTransport)
}, ['secondServer'])

test('recovers from a move to an unreachable address', async (clients, { assert }) => {
  const client = await clients.open()
  const opened = clients.next(client, '/open')
  client.send('/clienttest/move', '127.0.0.1:1', null)
  await opened
  assert.equal(await client.send('/clienttest/echo', 'home'), 'home')
})

test('survives a restart of the server', async (clients, { assert, control, expectTransport }) => {
  const client = await clients.open()
  const room = newRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  const closed = clients.next(client, '/close')
  const opened = clients.next(client, '/open')
  await control.restart()
  await closed
  assert.equal(await opened, expectTransport)
  await clients.sendReliably(client, room, 'after the restart')
  assert.equal((await events.take('an event'))[0], 'after the restart')
}, ['restart'])

test('survives broken connections', async (clients, { assert, control, expectTransport }) => {
  const client = await clients.open()
  const room = newRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  await control.cut()
  await clients.sendReliably(client, room, 'after the cut')
  assert.equal((await events.take('an event'))[0], 'after the cut')
  assert.equal(client.transport, expectTransport)
}, ['cut'])

test('reconnects at once after a sleep', async (clients, { assert, control }) => {
  const client = await clients.open()
  const room = newRoom()
  const events = new Inbox()
  await client.on(room, events.put)
  await control.sleep()
  const opened = clients.next(client, '/open')
  await control.wake()
  await opened
  await clients.sendReliably(client, room, 'awake')
  assert.equal((await events.take('an event'))[0], 'awake')
}, ['sleep', 'wake'])

/** Returns a clock, based on that of the environment, whose timers wait while it is held. */
function heldClock({ options }) {
  const base = options.clock ?? { now: () => Date.now(), setTimeout, clearTimeout }
  let [held, due] = [false, []]
  return {
    now: () => base.now(),
    setTimeout: (fn, ms) => base.setTimeout(() => (held ? due.push(fn) : fn()), ms),
    clearTimeout: (timer) => base.clearTimeout(timer),
    hold() { held = true },
    release() {
      held = false
      for (const fn of due.splice(0)) fn()
    }
  }
}

/** A client that keeps what it receives, and what it is told about it. */
async function reader(clients, room, options) {
  const clock = heldClock(clients.env)
  const client = await clients.open({ clock })
  const it = { client, clock, events: new Inbox(), told: [] }
  client.on('/close', () => clock.hold())
  const handler = (data, _reply, _code, _message, position) => it.events.put(data, position)
  it.first = await within(client.on(room, handler, { onRecover: (recovery) => it.told.push(recovery), ...options }), 'the subscription')
  return it
}

/** Breaks the connection. A session over polls survives one broken request, but not its repetition. */
async function loseConnection(clients, { client }, control) {
  let isOver = false
  const closed = clients.next(client, '/close').then(() => { isOver = true })
  while (!isOver) {
    await control.cut()
    await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 50))])
  }
  await closed
}

test('what was missed while the connection was lost comes before what is new', async (clients, { assert, control }) => {
  const room = newRoom('/relay/kept')
  const it = await reader(clients, room, { history: 3 })
  let publisher = await clients.open()
  const expected = []
  const say = async (numbers) => {
    for (const number of numbers) {
      await clients.sendReliably(publisher, room, number)
      expected.push(number)
    }
  }
  await say([1, 2])
  for (const number of [1, 2]) assert.equal((await it.events.take('an event'))[0], number)
  const position = it.client.position(room)
  await loseConnection(clients, it, control)
  // The publisher has lost its connection too, and would send again what was handled without an answer.
  publisher = await clients.open()
  await say([3, 4, 5, 6, 7])
  it.clock.release()
  for (const number of [3, 4, 5, 6, 7]) assert.equal((await it.events.take('a missed event'))[0], number)
  await say([8])
  const [last, at] = await it.events.take('a new event')
  assert.equal(last, 8)
  const [epoch] = position.split('.')
  assert.deepEqual([position, at, it.client.position(room)], [`${epoch}.2`, `${epoch}.8`, `${epoch}.8`])
  assert.deepEqual(it.told.slice(1), [{ recovered: true, events: 5, position }])
  // Another page begins where this one has ended.
  const next = await reader(clients, room, { since: `${epoch}.6` })
  assert.deepEqual(next.first, { recovered: true, events: 2, position: `${epoch}.6` })
  for (const number of [7, 8]) assert.equal((await next.events.take('an event'))[0], number)
  assert.deepEqual(await publisher.history(room, { limit: 2, before: `${epoch}.5` }),
    [3, 4].map((number) => ({ position: `${epoch}.${number}`, data: number })))
}, ['keeps', 'cut'])

test('after a restart of the server the client knows that events may be missing', async (clients, { assert, control }) => {
  const room = newRoom('/relay/kept')
  const it = await reader(clients, room, { history: 3 })
  await clients.sendReliably(it.client, room, 'before')
  const [, before] = await it.events.take('an event')
  const closed = clients.next(it.client, '/close')
  await control.restart()
  await closed
  const publisher = await clients.open()
  for (const number of [1, 2, 3, 4]) await clients.sendReliably(publisher, room, number)
  it.clock.release()
  for (const number of [2, 3, 4]) assert.equal((await it.events.take('an event'))[0], number)
  assert.deepEqual(it.told.map(({ recovered, events }) => [recovered, events]), [[false, 0], [false, 3]])
  assert.ok(before.split('.')[0] !== it.client.position(room).split('.')[0], 'another epoch')
}, ['keeps', 'restart'])

test('handlers of one path get what each of them asks for', async (clients, { assert }) => {
  const room = newRoom('/relay/kept')
  const client = await clients.open()
  for (const number of [1, 2, 3, 4]) await client.send(room, number)
  const [plain, two, all] = [new Inbox(), new Inbox(), new Inbox()]
  await within(client.on(room, plain.put), 'a subscription')
  const first = await within(client.on(room, two.put, { history: 2 }), 'the last two events')
  const second = await within(client.on(room, all.put, { history: 100 }), 'all events')
  assert.deepEqual([first.events, second.events], [2, 4])
  await client.send(room, 5)
  for (const [inbox, expected] of [[plain, [5]], [two, [3, 4, 5]], [all, [1, 2, 3, 4, 5]]]) {
    for (const number of expected) assert.equal((await inbox.take('an event'))[0], number)
    assert.equal(inbox.count, 0)
  }
}, ['keeps'])

test('of a path that keeps no events, the client gets what is new', async (clients, { assert, control }) => {
  const room = newRoom()
  const it = await reader(clients, room, { history: 3 })
  assert.deepEqual(it.first, { recovered: false, events: 0, position: null })
  await clients.sendReliably(it.client, room, 'new')
  assert.deepEqual(await it.events.take('an event'), ['new', undefined])
  await loseConnection(clients, it, control)
  const opened = clients.next(it.client, '/open')
  it.clock.release()
  await opened
  // The first answer is that there are no events; the client subscribes without options then.
  for (let turn = 0; turn < 2; turn++) await it.client.send('/qio/ping')
  await clients.sendReliably(it.client, room, 'again')
  assert.equal((await it.events.take('an event'))[0], 'again')
  assert.deepEqual(it.told, [it.first, it.first])
}, ['keeps', 'cut'])
