// Tests of a running server with a Node client, the package `ws`.
//
// The server has two shards, the applications relay and clienttest, and a clock that only these tests advance.
// QUICKIO_ADDRESS is its address (HOST:PORT), QUICKIO_ADMIN the address of its statistics endpoint, and QUICKIO_PID its
// process id, to which the last test sends SIGTERM.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import WebSocket from 'ws'

const ADDRESS = process.env.QUICKIO_ADDRESS
const ADMIN = process.env.QUICKIO_ADMIN
const DEADLINE_MS = 20_000 // the time limit for everything that a test awaits

/** A connection. Stores everything that it receives until a test takes it. */
class Client {
  #lastId = 0
  #waiting = []
  answers = []
  events = []
  texts = []
  pongs = []
  closed = null
  refused = null

  constructor({ path = '/', protocols = ['quickio'], ...options } = {}) {
    this.socket = new WebSocket(`ws://${ADDRESS}${path}`, protocols, options)
    this.socket.on('message', (data) => this.#receive(data.toString()))
    this.socket.on('pong', (data) => this.#record(() => this.pongs.push(data.toString())))
    this.socket.on('close', (code, reason) => this.#record(() => { this.closed = { code, reason: reason.toString() } }))
    this.socket.on('unexpected-response', (_, response) => this.#record(() => { this.refused = response.statusCode }))
    this.socket.on('error', () => {}) // `close` follows
  }

  /** Creates a client and completes its handshake. */
  static async open(options) {
    const client = new Client(options)
    await client.upgraded()
    client.socket.send('/qio/ohai')
    assert.equal(await client.text(), '/qio/ohai')
    return client
  }

  async upgraded() {
    if (this.socket.readyState !== WebSocket.OPEN) {
      await new Promise((resolve, reject) => this.socket.once('open', resolve).once('error', reject))
    }
  }

  #receive(text) {
    const [, path, callback, data] = text.match(/^([^:]*):(\d+)=(.*)$/s) ?? []
    const answered = path?.match(/^\/qio\/callback\/(\d+)$/)
    this.#record(() => {
      if (answered) this.answers.push({ id: Number(answered[1]), callback: Number(callback), ...JSON.parse(data) })
      else if (path) this.events.push({ path, callback: Number(callback), data: JSON.parse(data) })
      else this.texts.push(text)
    })
  }

  #record(update) {
    update()
    for (const check of this.#waiting.splice(0)) check()
  }

  /** Waits until `find` returns something. */
  async until(find, what) {
    let timer
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`timed out waiting for ${what}`)), DEADLINE_MS)
    })
    try {
      for (;;) {
        const found = find()
        if (found !== undefined && found !== null) return found
        await Promise.race([new Promise((resolve) => this.#waiting.push(resolve)), late])
      }
    } finally {
      clearTimeout(timer)
    }
  }

  text() { return this.until(() => this.texts.shift(), 'a text') }
  event() { return this.until(() => this.events.shift(), 'an event') }
  ended() { return this.until(() => this.closed, 'the end') }

  answer(id) {
    return this.until(() => {
      const at = this.answers.findIndex((answer) => answer.id === id)
      return at < 0 ? undefined : this.answers.splice(at, 1)[0]
    }, `the answer to ${id}`)
  }

  tell(path, data, callback = 0) { this.socket.send(`${path}:${callback}=${data}`) }

  request(path, data = 'null') {
    this.tell(path, data, ++this.#lastId)
    return this.answer(this.#lastId)
  }

  async close() {
    this.socket.close()
    await this.ended()
  }
}

async function stats() {
  return (await fetch(`http://${ADMIN}/stats`)).json()
}

/** Advances the clock of the server. */
async function advance(ms) {
  const response = await fetch(`http://${ADMIN}/clock?advance=${ms}`, { method: 'POST' })
  assert.ok(response.ok)
}

/** Opens at least `count` clients, and more until every shard has one. */
async function spread(count) {
  const clients = await Promise.all(Array.from({ length: count }, () => Client.open()))
  while (!(await stats()).shards.every((shard) => shard.gauges.clients > 0)) {
    assert.ok(clients.length < count + 100, 'a shard gets no connections')
    clients.push(await Client.open())
  }
  return clients
}

test('negotiates the subprotocol', async () => {
  for (const [protocols, chosen] of [[['quickio'], 'quickio'], [['chat', 'quickio'], 'quickio'], [[], '']]) {
    const client = await Client.open({ protocols, path: '/any/path?and=query' })
    assert.equal(client.socket.protocol, chosen)
    await client.close()
  }
})

test('compresses messages for those who offer it', async () => {
  const room = '/relay/compressed'
  const clients = [
    await Client.open({ perMessageDeflate: { threshold: 0 } }),
    await Client.open({ perMessageDeflate: { serverMaxWindowBits: 9, clientMaxWindowBits: 10 } }),
    await Client.open({ perMessageDeflate: false })
  ]
  const extensions = clients.map(({ socket }) => socket.extensions)
  assert.deepEqual(extensions, ['permessage-deflate', 'permessage-deflate', ''])
  for (const client of clients) assert.equal((await client.request('/qio/on', `"${room}"`)).code, 200)
  for (const size of [10, 300, 2000, 60_000]) {
    const data = Array.from({ length: size / 10 }, (_, number) => number * 7919)
    clients[0].tell(room, JSON.stringify(data))
    for (const client of clients) assert.deepEqual((await client.event()).data, data)
    for (const client of clients) {
      assert.deepEqual((await client.request('/clienttest/echo', JSON.stringify(data))).data, data)
    }
  }
  await Promise.all(clients.map((client) => client.close()))
})

test('refuses an unknown subprotocol', async () => {
  const client = new Client({ protocols: ['chat'] })
  assert.equal(await client.until(() => client.refused, 'a refusal'), 400)
  client.socket.terminate()
})

test('requires ohai as the first message', async () => {
  const client = new Client()
  await client.upgraded()
  client.socket.send('/qio/ping:1=null')
  assert.deepEqual(await client.ended(), { code: 1002, reason: 'invalid handshake' })
})

test('answers events', async () => {
  const client = await Client.open()
  assert.deepEqual(await client.request('/qio/ping'), { id: 1, callback: 0, code: 200, data: null })
  assert.deepEqual(await client.request('/nowhere'), { id: 2, callback: 0, code: 404, data: null, err_msg: null })
  assert.equal((await client.request('/clienttest/error/402')).err_msg, '402s are fun!')
  const text = 'é水🐌'.repeat(3000)
  assert.equal((await client.request('/clienttest/echo', JSON.stringify(text))).data, text)
  await client.close()
})

test('accepts pings between fragments', async () => {
  const client = await Client.open()
  client.socket.send('/qio/pi', { fin: false })
  client.socket.ping('in between')
  client.socket.send('', { fin: false })
  client.socket.send('ng:9=', { fin: true })
  assert.equal((await client.answer(9)).code, 200)
  assert.deepEqual(client.pongs, ['in between'])
  await client.close()
})

test('chains of server callbacks', async () => {
  const client = await Client.open()
  let answer = await client.request('/clienttest/echo', '0')
  const first = answer.callback
  for (let step = 1; step < 30; step++) {
    answer = await client.request(`/qio/callback/${answer.callback}`, String(step))
    assert.deepEqual([answer.code, answer.data], [200, step])
  }
  answer = await client.request(`/qio/callback/${first}`)
  assert.deepEqual([answer.code, answer.err_msg], [404, "callback doesn't exist"])
  await client.close()
})

test('delivers broadcasts to subscribers once and in order', async () => {
  const clients = await spread(12)
  const listeners = clients.filter((_, number) => number % 2 === 0)
  await Promise.all(listeners.map((client) => client.request('/qio/on', '"/relay/node"')))
  const count = 50
  for (let number = 0; number < count; number++) {
    clients.forEach((client, sender) => client.tell('/relay/node', JSON.stringify([sender, number])))
  }
  for (const client of listeners) {
    const found = clients.map(() => [])
    for (let event = 0; event < count * clients.length; event++) {
      const { path, data: [sender, number] } = await client.event()
      assert.equal(path, '/relay/node')
      found[sender].push(number)
    }
    const inOrder = Array.from({ length: count }, (_, number) => number)
    assert.deepEqual(found, clients.map(() => inOrder))
  }
  await Promise.all(listeners.map((client) => client.request('/qio/off', '"/relay/node"')))
  await clients[1].request('/relay/node', '1')
  for (const client of clients) {
    await client.request('/qio/ping')
    assert.deepEqual(client.events, [])
  }
  await Promise.all(clients.map((client) => client.close()))
})

test('keeps a subscription pending until the application decides', async () => {
  const client = await Client.open()
  client.tell('/qio/on', '"/clienttest/in-progress"', 100)
  assert.equal((await client.request('/qio/on', '"/clienttest/in-progress"')).code, 202)
  await client.request('/clienttest/in-progress')
  assert.equal((await client.answer(100)).code, 200)
  await client.close()
})

test('ends connections whose handshake or message takes too long', async () => {
  const late = new Client()
  await late.upgraded()
  const slow = await Client.open()
  slow.socket.send('/qio/pi', { fin: false })
  slow.socket.ping('the server has the fragment')
  await slow.until(() => slow.pongs[0], 'a pong')
  await advance(10_001)
  assert.deepEqual(await late.ended(), { code: 1008, reason: 'client timeout' })
  assert.deepEqual(await slow.ended(), { code: 1008, reason: 'client timeout' })
})

test('sends heartbeats', async () => {
  const client = await Client.open()
  for (let minute = 0; minute < 3; minute++) {
    await advance(60_000)
    assert.deepEqual(await client.event(), { path: '/qio/heartbeat', callback: 0, data: null })
  }
  await client.close()
})

test('close codes', async () => {
  const closes = [
    ['no event', 1002, 'invalid event format'],
    [Buffer.from('binary'), 1003],
    [`/qio/ping:1=${'x'.repeat(100_000)}`, 1009]
  ]
  for (const [message, code, reason] of closes) {
    const client = await Client.open()
    client.socket.send(message)
    const closed = await client.ended()
    assert.equal(closed.code, code)
    if (reason) assert.equal(closed.reason, reason)
  }
})

test('rejects an unmasked frame', async () => {
  const client = await Client.open()
  client.socket.send('/qio/ping:1=null', { mask: false })
  assert.deepEqual(await client.ended(), { code: 1002, reason: 'client must mask data' })
})

test('rejects invalid UTF-8', async () => {
  const client = await Client.open()
  client.socket.send(Buffer.from([0x2f, 0x3a, 0x31, 0x3d, 0xff]), { binary: false })
  assert.equal((await client.ended()).code, 1007)
})

test('echoes the close code', async () => {
  for (const code of [1000, 1001, 3000, 4999]) {
    const client = await Client.open()
    client.socket.close(code, 'bye')
    assert.equal((await client.ended()).code, code)
  }
})

test('closes on request of the application', async () => {
  const client = await Client.open()
  client.tell('/clienttest/close', 'null')
  assert.equal((await client.ended()).code, 1000)
})

test('shutdown closes connections with 1001', async () => {
  const clients = await spread(6)
  process.kill(Number(process.env.QUICKIO_PID), 'SIGTERM')
  for (const client of clients) assert.equal((await client.ended()).code, 1001)
})
