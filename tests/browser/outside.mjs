// What befalls a client from outside, in pages of the real server: servers that restart, connections that break, hang
// or are refused, servers that send their clients elsewhere, pages that sleep, pages of other origins.

import assert from 'node:assert/strict'
import { group, within } from './support/harness.mjs'
import { blankPage, launch } from './support/browser.mjs'
import { Wire } from '../js/support/wire.mjs'
import { APPS, Server } from './support/server.mjs'

const TRANSPORTS = ['websocket', 'stream', 'poll']
const DEADLINE_MS = 30_000

/** What a page tells, one after the other. */
class Told {
  all = []
  #waiting = new Set()

  static async by(page) {
    const told = new Told()
    await page.exposeFunction('tell', (...said) => told.put(said))
    return told
  }

  put(said) {
    this.all.push(said)
    for (const check of this.#waiting) check()
  }

  count(name) {
    return this.all.filter(([said]) => said === name).length
  }

  /** The data of the `number`th that was told under this name. */
  async next(name, number = this.count(name) + 1) {
    const there = new Promise((resolve) => {
      const check = () => {
        const found = this.all.filter(([said]) => said === name)[number - 1]
        if (!found) return
        this.#waiting.delete(check)
        resolve(found[1])
      }
      this.#waiting.add(check)
      check()
    })
    const found = within(DEADLINE_MS, there, `${name}, number ${number}; there were ${this.all.map(([said]) => said)}`)
    found.catch(() => {}) // a test that fails earlier does not wait for it
    return found
  }
}

/** A page of `origin` with one client in it, of `url`, that tells what happens to it. */
async function clientPage(browser, { origin, url, options, context, clock = false }) {
  const page = await blankPage(browser, origin, context)
  if (clock) await page.clock.install()
  const told = await Told.by(page)
  await page.evaluate(([url, options]) => {
    globalThis.client = new QuickIO(url, options)
    for (const path of ['/open', '/close', '/error', '/transport']) {
      client.on(path, (data) => tell(path, data instanceof Error ? data.message : data))
    }
  }, [url ?? origin, { pollDelay: 20, ...options }])
  return { page, told }
}

/** Stops the page's clock: from now on only the test moves it. */
async function holdStill(page) {
  for (let ahead = 1000; ; ahead *= 2) {
    const to = await page.evaluate((ahead) => Date.now() + ahead, ahead)
    const isPast = await page.clock.pauseAt(to).then(() => false, (error) => /to the past/.test(error.message))
    if (!isPast) return // otherwise the machine was slower than that
  }
}

/** Has the client say something: between two polls it would not find out that its connections are gone. */
async function say(page) {
  await page.evaluate(() => client.send('/qio/ping', null, null))
}

/** A client that has failed `failed` times fails so many times more. How long it waits, tests/js says to the millisecond. */
async function backsOff(page, told, failed, attempts) {
  for (let wanted = failed + 1; wanted <= failed + attempts; wanted++) {
    for (let ms = 100; told.count('/error') < wanted; ms = Math.min(2 * ms, 3200)) await page.clock.runFor(ms)
  }
}

async function subscribe(page, room) {
  await page.evaluate((room) => client.on(room, (data) => tell('event', data)), room)
}

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => from + index)
const events = (told) => told.all.filter(([name]) => name === 'event').map(([, data]) => data)

export function outside(browser) {
  for (const transport of TRANSPORTS) {
    group(`restarts and cuts, ${transport}`, (it) => restartsAndCuts(browser, transport, it))
  }
  group('silence and sleep', (it) => silenceAndSleep(browser, it))
  group('other origins', (it) => otherOrigins(browser, it))
  group('pages that are left', (it) => pagesThatAreLeft(it))
  group('workers', (it) => workers(browser, it))
}

async function restartsAndCuts(browser, transport, { test, after }) {
  const server = await Server.start(`${APPS} --public-address first`)
  after(() => server.stop())
  const wire = await Wire.to(server)
  after(() => wire.end())
  const options = { transports: [transport] }

  await test('what is sent while the server is down comes when it is up, in order and once', async () => {
    const { page, told } = await clientPage(browser, { origin: server.url, options })
    await told.next('/open', 1)
    await subscribe(page, '/relay/restart')
    const closed = told.next('/close')
    await server.stop()
    await closed
    await page.evaluate(() => {
      for (let number = 0; number < 200; number++) client.send('/relay/restart', number, number % 2 ? null : ignored)
      function ignored(_data, _reply, code) { tell('code', code) }
    })
    assert.notEqual(await page.evaluate(() => client.state), 'open')
    await server.start()
    await told.next('/open', 2)
    await told.next('event', 200)
    await told.next('code', 100)
    await page.evaluate(() => client.send('/qio/ping'))
    assert.deepEqual(events(told), numbers(0, 200))
    assert.ok(told.all.every(([name, data]) => name !== 'code' || data === 200))
    await page.context().close()
  })

  await test('connections that are cut amid traffic: each callback is called once, and nothing comes twice', async () => {
    const { page, told } = await clientPage(browser, { origin: wire.url, options })
    await told.next('/open', 1)
    await subscribe(page, '/relay/cut')
    const sends = (from, to) => page.evaluate(([from, to]) => {
      for (let number = from; number < to; number++) {
        client.send('/relay/cut', number, (_data, _reply, code) => tell('code', [number, code]))
      }
    }, [from, to])
    for (let round = 0; round < 5; round++) {
      await sends(round * 100, round * 100 + 100)
      wire.cut()
    }
    await told.next('code', 500)
    // The client has its connection and its subscription again: this comes after whatever came.
    let done = null
    while (done === null) {
      done = await page.evaluate(() => client.send('/relay/cut', 'end').then(() => true, () => null))
    }
    if (!events(told).includes('end')) await told.next('event')
    const codes = told.all.filter(([name]) => name === 'code').map(([, data]) => data)
    assert.deepEqual(codes.map(([number]) => number).sort((a, b) => a - b), numbers(0, 500))
    assert.deepEqual([...new Set(codes.map(([, code]) => code))].filter((code) => ![200, -1].includes(code)), [])
    const found = events(told).filter((data) => data !== 'end')
    assert.deepEqual(found, [...new Set(found)].sort((a, b) => a - b))
    await page.context().close()
  })

  await test('while nobody takes connections it backs off, and is back when the network is', async () => {
    const { page, told } = await clientPage(browser, { origin: wire.url, options, clock: true })
    await told.next('/open', 1)
    await holdStill(page)
    try {
      wire.refuse()
      await say(page)
      await told.next('/close', 1)
      await backsOff(page, told, 0, 6)
    } finally {
      wire.allow()
    }
    await page.evaluate(() => dispatchEvent(new Event('online')))
    await told.next('/open', 2)
    await page.context().close()
  })

  await test('offline and online again', async () => {
    const { page, told } = await clientPage(browser, { origin: wire.url, options, clock: true })
    await told.next('/open', 1)
    await subscribe(page, '/relay/offline')
    await holdStill(page)
    const closed = told.next('/close')
    await page.context().setOffline(true)
    wire.cut()
    await say(page)
    await closed
    const failed = told.next('/error')
    await page.clock.runFor(100)
    await failed
    await page.evaluate(() => client.send('/relay/offline', 'kept', null))
    // The clock stands still: it is the browser's word that brings it back.
    const opened = told.next('/open', 2)
    await page.context().setOffline(false)
    await opened
    assert.equal(await told.next('event', 1), 'kept')
    await page.context().close()
  })

  await test('moves to a server of another origin, and home when that one is gone', async () => {
    const second = await Server.start(`${APPS} --public-address second`)
    const { page, told } = await clientPage(browser, { origin: server.url, options })
    await told.next('/open', 1)
    await subscribe(page, '/relay/moved')
    const moved = told.next('/open', 2)
    await page.evaluate((address) => client.send('/clienttest/move', address, null), second.address)
    await moved
    const hostname = () => page.evaluate(() => client.send('/qio/hostname'))
    assert.equal(await hostname(), 'second')
    await page.evaluate(() => client.send('/relay/moved', 'there', null))
    assert.equal(await told.next('event', 1), 'there')
    const home = told.next('/open', 3)
    await second.stop()
    await home
    assert.equal(await hostname(), 'first')
    await page.evaluate(() => client.send('/relay/moved', 'home', null))
    assert.equal(await told.next('event', 2), 'home')
    await page.context().close()
  })
}

async function silenceAndSleep(browser, { test, after }) {
  const server = await Server.start()
  after(() => server.stop())
  const wire = await Wire.to(server)
  after(() => wire.end())
  for (const transport of TRANSPORTS) {
    const options = { transports: [transport] }

    await test(`a connection that went silent is given up after 65 s, ${transport}`, async () => {
      const { page, told } = await clientPage(browser, { origin: wire.url, options, clock: true })
      await told.next('/open', 1)
      await subscribe(page, '/relay/silent')
      await holdStill(page)
      wire.freeze()
      const closed = told.next('/close')
      await page.clock.runFor(60_000)
      assert.equal(await page.evaluate(() => client.state), 'open')
      await page.clock.runFor(6_000)
      await closed
      wire.cut() // else Chromium would try its old connections for the next request
      await page.clock.resume()
      await told.next('/open', 2)
      await page.evaluate(() => client.send('/relay/silent', 'heard', null))
      assert.equal(await told.next('event', 1), 'heard')
      await page.context().close()
    })

    await test(`a tab that slept connects anew when it wakes, without waiting, ${transport}`, async () => {
      const { page, told } = await clientPage(browser, { origin: wire.url, options, clock: true })
      await told.next('/open', 1)
      await subscribe(page, '/relay/asleep')
      const now = await page.evaluate(() => Date.now())
      await page.clock.pauseAt(now + 1000)
      const session = await page.context().newCDPSession(page)
      await session.send('Page.setWebLifecycleState', { state: 'frozen' })
      wire.freeze()
      // Time has gone on, and no timer ran.
      await page.clock.setSystemTime(now + 600_000)
      const opened = told.next('/open', 2)
      await session.send('Page.setWebLifecycleState', { state: 'active' })
      if (transport !== 'websocket') wire.cut() // a machine that wakes has lost its connections
      await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange', { bubbles: true })))
      await opened
      await page.evaluate(() => client.send('/relay/asleep', 'awake', null))
      assert.equal(await told.next('event', 1), 'awake')
      await page.context().close()
    })
  }
}

async function otherOrigins(browser, { test, after }) {
  const home = await Server.start(`${APPS} --public-address home`)
  after(() => home.stop())
  const open = await Server.start(`--app relay --origin ${home.url}`)
  after(() => open.stop())
  const shut = await Server.start('--app relay --origin https://example.com')
  after(() => shut.stop())
  const wire = await Wire.to(shut)
  after(() => wire.end())

  for (const transport of TRANSPORTS) {
    const options = { transports: [transport] }

    await test(`an origin that is allowed, ${transport}`, async () => {
      const { page, told } = await clientPage(browser, { origin: home.url, url: open.url, options })
      assert.equal(await told.next('/open', 1), transport)
      await subscribe(page, '/relay/cross')
      await page.evaluate(() => client.send('/relay/cross', { from: location.origin }, null))
      assert.deepEqual(await told.next('event', 1), { from: home.url })
      await page.context().close()
    })

    await test(`an origin that is refused: errors, and longer and longer pauses, ${transport}`, async () => {
      const page = await blankPage(browser, home.url)
      await page.clock.install()
      await holdStill(page)
      const told = await Told.by(page)
      const before = wire.taken
      await page.evaluate(([url, options]) => {
        globalThis.client = new QuickIO(url, options)
        for (const path of ['/open', '/error']) client.on(path, (data) => tell(path, String(data)))
      }, [wire.url, options])
      await told.next('/error', 1)
      const attempts = 5
      await backsOff(page, told, 1, attempts)
      assert.equal(told.count('/open'), 0)
      // Chromium may open a second connection for a request that it sends once, and the clock may run an attempt ahead.
      assert.ok(wire.taken - before <= 4 * (attempts + 1), `${wire.taken - before} connections`)
      await page.context().close()
    })
  }

  await test('a move to a server that refuses this origin ends at home', async () => {
    const { page, told } = await clientPage(browser, { origin: home.url })
    await told.next('/open', 1)
    const back = told.next('/open', 2)
    await page.evaluate((address) => client.send('/clienttest/move', address, null), shut.address)
    await back
    assert.equal(await page.evaluate(() => client.send('/qio/hostname')), 'home')
    await page.context().close()
  })
}

async function pagesThatAreLeft({ test, after }) {
  const server = await Server.start()
  after(() => server.stop())
  const elsewhere = await Server.start()
  after(() => elsewhere.stop())
  // As people have it: pages that are left are kept for those who come back.
  const keeping = await launch({ ignoreDefaultArgs: ['--disable-back-forward-cache'] })
  after(() => keeping.close())

  for (const transport of TRANSPORTS) {
    await test(`a page that is left and come back to connects anew, ${transport}`, async () => {
      const { page, told } = await clientPage(keeping, { origin: server.url, options: { transports: [transport] } })
      await told.next('/open', 1)
      await subscribe(page, '/relay/left')
      await page.evaluate(() => {
        addEventListener('pageshow', ({ persisted }) => tell('shown', persisted))
      })
      const shown = told.next('shown')
      const opened = told.next('/open', 2)
      await page.goto(`${elsewhere.url}/blank`)
      await page.evaluate(() => { setTimeout(() => history.back()) })
      assert.equal(await shown, true, 'Chromium kept no page')
      await opened
      await page.evaluate(() => client.send('/relay/left', 'back', null))
      assert.equal(await told.next('event', 1), 'back')
      await page.context().close()
    })
  }
}

async function workers(browser, { test, after }) {
  const server = await Server.start()
  after(() => server.stop())
  for (const [kind, type, load] of [
    ['a classic worker', 'classic', `importScripts('URL/quickio.js')`],
    ['a module worker', 'module', `import 'URL/quickio.mjs'`]
  ]) {
    for (const transport of TRANSPORTS) {
      await test(`${kind}, ${transport}`, async () => {
        const page = await blankPage(browser, server.url)
        const source = `${load.replace('URL', server.url)}
          const client = new QuickIO('${server.url}', { transports: ['${transport}'] })
          client.on('/relay/worker', (data) => postMessage([client.transport, data]))
          client.send('/relay/worker', 'by a worker', null)`
        const said = await within(DEADLINE_MS, page.evaluate(([source, type]) => new Promise((resolve, reject) => {
          const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })), { type })
          worker.onmessage = ({ data }) => resolve(data)
          worker.onerror = ({ message }) => reject(new Error(`the worker failed: ${message}`))
        }), [source, type]), 'an event of the worker')
        assert.deepEqual(said, [transport, 'by a worker'])
        await page.context().close()
      })
    }
  }
}
