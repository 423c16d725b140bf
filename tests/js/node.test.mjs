// The client library in Node: the ways to load it, and its whole suite over each transport, against a server that this
// file starts.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, describe, test } from 'node:test'
import vm from 'node:vm'
import { suite } from './suite.mjs'
import { HISTORY, LIBRARY, QuickIO, Server, WebSocket, modes } from './support/server.mjs'
import { TcpProxy } from './support/proxy.mjs'
import { settingsFile, tokenOf } from './support/tokens.mjs'

describe('the file', () => {
  const source = readFileSync(LIBRARY, 'utf8')

  test('is a classic script that defines one global and knows its address', () => {
    const currentScript = { src: 'https://cdn.example:8443/quickio.js' }
    const scope = { document: { currentScript }, URL, queueMicrotask, fetch() {}, setTimeout, clearTimeout }
    const before = Object.keys(scope)
    vm.createContext(scope)
    vm.runInContext(source, scope)
    assert.deepEqual(Object.keys(scope).filter((name) => !before.includes(name)), ['QuickIO'])
    scope.sockets = []
    vm.runInContext(`
      class Socket { constructor(url) { sockets.push(url) } close() {} }
      client = new QuickIO(undefined, { WebSocket: Socket })
      client.reconnect()
      client.close()`, scope)
    assert.deepEqual([...scope.sockets], ['wss://cdn.example:8443/'])
  })

  test('is an ES module if an export is appended', async () => {
    const text = `${source}\nexport const QuickIO = globalThis.QuickIO; export default QuickIO;`
    const module = await import(`data:text/javascript,${encodeURIComponent(text)}`)
    assert.equal(module.default, module.QuickIO)
    assert.equal(typeof module.QuickIO.prototype.send, 'function')
  })

  test('runs in React Native, which has no streams, no TextEncoder, and a URL that throws', async () => {
    const urls = []
    class NoUrl { constructor() { throw new Error('not implemented') } }
    const fetch = async (url, { body }) => {
      urls.push(url)
      return { status: 200, text: async () => (body ? '/qio/callback/1:0={"code":200,"data":"a"}' : new Promise(() => {})) }
    }
    const crypto = { getRandomValues: (bytes) => bytes.fill(7) }
    const scope = { URL: NoUrl, fetch, crypto, queueMicrotask, setTimeout, clearTimeout, AbortController }
    vm.createContext(scope)
    vm.runInContext(source, scope)
    const run = (code) => vm.runInContext(`new Promise((resolve) => { ${code} })`, scope)
    const open = `client = new QuickIO('https://a.example/b?c=1', { WebSocket: null }); client.on('/open', resolve)`
    assert.equal(await run(open), 'poll')
    assert.equal(urls[0], `https://a.example/b?c=1&sid=${'07'.repeat(16)}&connect=true&seq=1`)
    vm.runInContext('client.close(); delete globalThis.crypto', scope)
    const failed = await run(`client = new QuickIO('a.example'); client.on('/error', ({ message }) => resolve(message))`)
    assert.equal(failed, 'poll: crypto.getRandomValues is missing')
    vm.runInContext('client.close()', scope)
    assert.throws(() => vm.runInContext(`new QuickIO('a.example', { transports: ['stream'] })`, scope), /no usable transport/)
  })

  test('is a CommonJS module', async () => {
    assert.equal(QuickIO.QuickIO, QuickIO)
    assert.equal(QuickIO.default, QuickIO)
    const module = await import(LIBRARY)
    assert.equal(module.QuickIO, QuickIO)
    assert.equal(module.default, QuickIO)
  })
})

for (const transport of ['websocket', 'stream', 'poll']) {
  const server = await Server.start({ settings: HISTORY })
  const proxy = await TcpProxy.inFrontOf(server)
  describe(`the suite over ${transport}`, () => {
    const others = []
    const page = new EventTarget()
    let slept = 0
    after(async () => {
      await proxy.end()
      for (const { process } of [server, ...others]) process.kill('SIGTERM')
      for (const { ended } of [server, ...others]) assert.deepEqual(await ended, { code: 0, signal: null })
    })
    const env = {
      QuickIO,
      assert,
      url: `http://${proxy.address}`,
      expectTransport: transport,
      options: {
        WebSocket,
        transports: transport === 'websocket' ? ['websocket', 'stream', 'poll'] : [transport],
        pollDelay: 20,
        page,
        clock: {
          now: () => Date.now() + slept,
          setTimeout: (fn, ms) => setTimeout(fn, ms),
          clearTimeout: (timer) => clearTimeout(timer)
        }
      },
      control: {
        keeps() {},
        restart: () => server.restart(),
        cut: () => proxy.cut(),
        sleep: () => proxy.freeze(),
        wake() {
          slept += 600_000
          proxy.cut() // otherwise Node would reuse its old connections for the next request
          page.dispatchEvent(new Event('visibilitychange'))
        },
        async secondServer() {
          others.push(await Server.start())
          return others.at(-1).address
        }
      }
    }
    for (const { name, skip, run } of suite(env)) test(name, { skip: skip ?? false, timeout: 120_000 }, run)
  })
}

const mangled = await Server.start({ mangled: true })
describe('behind a proxy that breaks WebSocket', () => {
  after(() => mangled.stop())

  for (const mode of modes()) {
    const wanted = mode === 'none' ? 'websocket' : 'stream'
    test(`${mode}: ${wanted}`, { timeout: 30_000 }, async () => {
      const handshakeTimeout = mode === 'swallow' ? 500 : 5000 // the only mode that needs a timeout
      const client = new QuickIO(`ws://${mangled.proxy}/?mangle=${mode}`, { WebSocket, handshakeTimeout })
      try {
        for (let turn = 0; turn < 2; turn++) {
          assert.equal(await new Promise((resolve) => client.one('/open', resolve)), wanted)
          assert.equal(await client.send('/clienttest/echo', mode), mode)
          await new Promise((resolve) => client.one('/clienttest/broadcast', resolve))
          client.send('/clienttest/close', null, null)
        }
      } finally {
        client.close()
      }
    })
  }
})

describe('tokens', async () => {
  const server = await Server.start({ settings: settingsFile() })
  after(() => server.stop())

  for (const transport of ['websocket', 'stream', 'poll']) {
    test(`over ${transport}, the client authenticates, also before its token expires`, async () => {
      const users = []
      // The first token was in a cache for too long. The second expires soon, and the third does not.
      const tokens = [-60, 8, 3600]
      const token = async () => tokenOf(`user-${users.push(transport)}`.replace(/-.*/, '-1'), tokens[users.length - 1])
      const qio = new QuickIO(`ws://${server.address}`, { WebSocket, transports: [transport], token, random: () => 1 })
      const errors = []
      qio.on('/error', (error) => errors.push(error))
      qio.on('/close', (error) => errors.push(error))
      await qio.on('/relay/room', () => {})
      assert.deepEqual(await qio.send('/clienttest/echo', [1]), [1])
      assert.equal(users.length, 2)
      while (users.length < 3) await new Promise((resolve) => setTimeout(resolve, 100))
      assert.deepEqual(await qio.send('/clienttest/echo', [2]), [2])
      assert.deepEqual(errors, [])
      await qio.close()
    })
  }
})
