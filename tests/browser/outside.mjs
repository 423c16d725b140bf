// External events in pages of a real server: restarts of the server, connections that break, hang or are refused, moves
// to other servers, sleeping pages, pages of other origins.

import assert from 'node:assert/strict'
import { group, within } from './support/harness.mjs'
import { blankPage, launch } from './support/browser.mjs'
import { TcpProxy } from '../js/support/proxy.mjs'
import { APPS, Server } from './support/server.mjs'

const TRANSPORTS = ['websocket', 'stream', 'poll']
const DEADLINE_MS = 30_000

/** The values that a page reports, in order. */
class EventLog {
  all = []
  #waiting = new Set()

  /** Defines the function `report(name, data)` in a page, and returns the log of its calls. */
  static async of(page) {
    const log = new EventLog()
    await page.exposeFunction('report', (...entry) => log.put(entry))
    return log
  }

  put(entry) {
    this.all.push(entry)
    for (const check of this.#waiting) check()
  }

  count(name) {
    return this.all.filter(([entryName]) => entryName === name).length
  }

  /** Resolves to the data of the `number`th entry with this name. */
  async next(name, number = this.count(name) + 1) {
    const there = new Promise((resolve) => {
      const check = () => {
        const found = this.all.filter(([entryName]) => entryName === name)[number - 1]
        if (!found) return
        this.#waiting.delete(check)
        resolve(found[1])
      }
      this.#waiting.add(check)
      check()
    })
    const found = within(DEADLINE_MS, there, `${name}, number ${number}; the log has ${this.all.map(([entryName]) => entryName)}`)
    found.catch(() => {}) // a test that fails earlier never awaits it
    return found
  }
}

/** Opens a page of `origin` with one client of `url`, which reports its events. */
async function clientPage(browser, { origin, url, options, context, clock = false }) {
  const page = await blankPage(browser, origin, context)
  if (clock) await page.clock.install()
  const log = await EventLog.of(page)
  await page.evaluate(([url, options]) => {
    globalThis.client = new QuickIO(url, options)
    for (const path of ['/open', '/close', '/error', '/transport']) {
      client.on(path, (data) => report(path, data instanceof Error ? data.message : data))
    }
  }, [url ?? origin, { pollDelay: 20, ...options }])
  return { page, log }
}

/** Stops the clock of the page: from now on, only the test advances it. */
async function freezeClock(page) {
  for (let ahead = 1000; ; ahead *= 2) {
    const to = await page.evaluate((ahead) => Date.now() + ahead, ahead)
    const isPast = await page.clock.pauseAt(to).then(() => false, (error) => /to the past/.test(error.message))
    if (!isPast) return // otherwise the machine was too slow: try again with more time
  }
}

/** Makes the client send a ping: between two polls it would not notice that its connections are broken. */
async function sendPing(page) {
  await page.evaluate(() => client.send('/qio/ping', null, null))
}

/** Waits until a client that has failed `failed` times fails `attempts` more times. tests/js checks the exact pauses. */
async function expectBackoff(page, log, failed, attempts) {
  for (let wanted = failed + 1; wanted <= failed + attempts; wanted++) {
    for (let ms = 100; log.count('/error') < wanted; ms = Math.min(2 * ms, 3200)) await page.clock.runFor(ms)
  }
}

async function subscribe(page, room) {
  await page.evaluate((room) => client.on(room, (data) => report('event', data)), room)
}

const numbers = (from, to) => Array.from({ length: to - from }, (_, index) => from + index)
const events = (log) => log.all.filter(([name]) => name === 'event').map(([, data]) => data)

export function outside(browser) {
  for (const transport of TRANSPORTS) {
    group(`restarts and cuts, ${transport}`, (it) => restartsAndCuts(browser, transport, it))
  }
  group('silence and sleep', (it) => silenceAndSleep(browser, it))
  group('other origins', (it) => otherOrigins(browser, it))
  group('back-forward cache', (it) => backForwardCache(it))
  group('workers', (it) => workers(browser, it))
}

async function restartsAndCuts(browser, transport, { test, after }) {
  const server = await Server.start(`${APPS} --public-address first`)
  after(() => server.stop())
  const proxy = await TcpProxy.inFrontOf(server)
  after(() => proxy.end())
  const options = { transports: [transport] }

  await test('events sent while the server is down arrive once and in order when it is up again', async () => {
    const { page, log } = await clientPage(browser, { origin: server.url, options })
    await log.next('/open', 1)
    await subscribe(page, '/relay/restart')
    const closed = log.next('/close')
    await server.stop()
    await closed
    await page.evaluate(() => {
      for (let number = 0; number < 200; number++) client.send('/relay/restart', number, number % 2 ? null : ignored)
      function ignored(_data, _reply, code) { report('code', code) }
    })
    assert.notEqual(await page.evaluate(() => client.state), 'open')
    await server.start()
    await log.next('/open', 2)
    await log.next('event', 200)
    await log.next('code', 100)
    await page.evaluate(() => client.send('/qio/ping'))
    assert.deepEqual(events(log), numbers(0, 200))
    assert.ok(log.all.every(([name, data]) => name !== 'code' || data === 200))
    await page.context().close()
  })

  await test('broken connections under load: each callback is called once, no event arrives twice', async () => {
    const { page, log } = await clientPage(browser, { origin: proxy.url, options })
    await log.next('/open', 1)
    await subscribe(page, '/relay/cut')
    const sends = (from, to) => page.evaluate(([from, to]) => {
      for (let number = from; number < to; number++) {
        client.send('/relay/cut', number, (_data, _reply, code) => report('code', [number, code]))
      }
    }, [from, to])
    for (let round = 0; round < 5; round++) {
      await sends(round * 100, round * 100 + 100)
      proxy.cut()
    }
    await log.next('code', 500)
    // The client is connected and subscribed again: this event arrives after all others.
    let done = null
    while (done === null) {
      done = await page.evaluate(() => client.send('/relay/cut', 'end').then(() => true, () => null))
    }
    if (!events(log).includes('end')) await log.next('event')
    const codes = log.all.filter(([name]) => name === 'code').map(([, data]) => data)
    assert.deepEqual(codes.map(([number]) => number).sort((a, b) => a - b), numbers(0, 500))
    assert.deepEqual([...new Set(codes.map(([, code]) => code))].filter((code) => ![200, -1].includes(code)), [])
    const found = events(log).filter((data) => data !== 'end')
    assert.deepEqual(found, [...new Set(found)].sort((a, b) => a - b))
    await page.context().close()
  })

  await test('backs off while connections are refused, and reconnects when the network returns', async () => {
    const { page, log } = await clientPage(browser, { origin: proxy.url, options, clock: true })
    await log.next('/open', 1)
    await freezeClock(page)
    try {
      proxy.refuse()
      await sendPing(page)
      await log.next('/close', 1)
      await expectBackoff(page, log, 0, 6)
    } finally {
      proxy.allow()
    }
    await page.evaluate(() => dispatchEvent(new Event('online')))
    await log.next('/open', 2)
    await page.context().close()
  })

  await test('reconnects when the browser is online again', async () => {
    const { page, log } = await clientPage(browser, { origin: proxy.url, options, clock: true })
    await log.next('/open', 1)
    await subscribe(page, '/relay/offline')
    await freezeClock(page)
    const closed = log.next('/close')
    await page.context().setOffline(true)
    proxy.cut()
    await sendPing(page)
    await closed
    const failed = log.next('/error')
    await page.clock.runFor(100)
    await failed
    await page.evaluate(() => client.send('/relay/offline', 'kept', null))
    // The clock is stopped: only the browser's `online` event can trigger the reconnect.
    const opened = log.next('/open', 2)
    await page.context().setOffline(false)
    await opened
    assert.equal(await log.next('event', 1), 'kept')
    await page.context().close()
  })

  await test('moves to a server of another origin, and back when that server stops', async () => {
    const second = await Server.start(`${APPS} --public-address second`)
    const { page, log } = await clientPage(browser, { origin: server.url, options })
    await log.next('/open', 1)
    await subscribe(page, '/relay/moved')
    const moved = log.next('/open', 2)
    await page.evaluate((address) => client.send('/clienttest/move', address, null), second.address)
    await moved
    const hostname = () => page.evaluate(() => client.send('/qio/hostname'))
    assert.equal(await hostname(), 'second')
    await page.evaluate(() => client.send('/relay/moved', 'there', null))
    assert.equal(await log.next('event', 1), 'there')
    const home = log.next('/open', 3)
    await second.stop()
    await home
    assert.equal(await hostname(), 'first')
    await page.evaluate(() => client.send('/relay/moved', 'home', null))
    assert.equal(await log.next('event', 2), 'home')
    await page.context().close()
  })
}

async function silenceAndSleep(browser, { test, after }) {
  const server = await Server.start()
  after(() => server.stop())
  const proxy = await TcpProxy.inFrontOf(server)
  after(() => proxy.end())
  for (const transport of TRANSPORTS) {
    const options = { transports: [transport] }

    await test(`ends a silent connection after 65 s, ${transport}`, async () => {
      const { page, log } = await clientPage(browser, { origin: proxy.url, options, clock: true })
      await log.next('/open', 1)
      await subscribe(page, '/relay/silent')
      await freezeClock(page)
      proxy.freeze()
      const closed = log.next('/close')
      await page.clock.runFor(60_000)
      assert.equal(await page.evaluate(() => client.state), 'open')
      await page.clock.runFor(6_000)
      await closed
      proxy.cut() // otherwise Chromium would reuse its old connections for the next request
      await page.clock.resume()
      await log.next('/open', 2)
      await page.evaluate(() => client.send('/relay/silent', 'heard', null))
      assert.equal(await log.next('event', 1), 'heard')
      await page.context().close()
    })

    await test(`a tab reconnects at once after a sleep, ${transport}`, async () => {
      const { page, log } = await clientPage(browser, { origin: proxy.url, options, clock: true })
      await log.next('/open', 1)
      await subscribe(page, '/relay/asleep')
      const now = await page.evaluate(() => Date.now())
      await page.clock.pauseAt(now + 1000)
      const session = await page.context().newCDPSession(page)
      await session.send('Page.setWebLifecycleState', { state: 'frozen' })
      proxy.freeze()
      // Time has passed without a timer having fired.
      await page.clock.setSystemTime(now + 600_000)
      const opened = log.next('/open', 2)
      await session.send('Page.setWebLifecycleState', { state: 'active' })
      if (transport !== 'websocket') proxy.cut() // a machine that wakes up has lost its connections
      await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange', { bubbles: true })))
      await opened
      await page.evaluate(() => client.send('/relay/asleep', 'awake', null))
      assert.equal(await log.next('event', 1), 'awake')
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
  const proxy = await TcpProxy.inFrontOf(shut)
  after(() => proxy.end())

  for (const transport of TRANSPORTS) {
    const options = { transports: [transport] }

    await test(`connects from an allowed origin, ${transport}`, async () => {
      const { page, log } = await clientPage(browser, { origin: home.url, url: open.url, options })
      assert.equal(await log.next('/open', 1), transport)
      await subscribe(page, '/relay/cross')
      await page.evaluate(() => client.send('/relay/cross', { from: location.origin }, null))
      assert.deepEqual(await log.next('event', 1), { from: home.url })
      await page.context().close()
    })

    await test(`a refused origin causes errors and growing pauses, ${transport}`, async () => {
      const page = await blankPage(browser, home.url)
      await page.clock.install()
      await freezeClock(page)
      const log = await EventLog.of(page)
      const before = proxy.accepted
      await page.evaluate(([url, options]) => {
        globalThis.client = new QuickIO(url, options)
        for (const path of ['/open', '/error']) client.on(path, (data) => report(path, String(data)))
      }, [proxy.url, options])
      await log.next('/error', 1)
      const attempts = 5
      await expectBackoff(page, log, 1, attempts)
      assert.equal(log.count('/open'), 0)
      // Chromium may open a second connection for one request, and the clock may be one attempt ahead.
      assert.ok(proxy.accepted - before <= 4 * (attempts + 1), `${proxy.accepted - before} connections`)
      await page.context().close()
    })
  }

  await test('returns from a move to a server that refuses this origin', async () => {
    const { page, log } = await clientPage(browser, { origin: home.url })
    await log.next('/open', 1)
    const back = log.next('/open', 2)
    await page.evaluate((address) => client.send('/clienttest/move', address, null), shut.address)
    await back
    assert.equal(await page.evaluate(() => client.send('/qio/hostname')), 'home')
    await page.context().close()
  })
}

async function backForwardCache({ test, after }) {
  const server = await Server.start()
  after(() => server.stop())
  const elsewhere = await Server.start()
  after(() => elsewhere.stop())
  // The default of Chromium for users: pages are kept in the back-forward cache.
  const keeping = await launch({ ignoreDefaultArgs: ['--disable-back-forward-cache'] })
  after(() => keeping.close())

  for (const transport of TRANSPORTS) {
    await test(`reconnects when the browser restores a page from its cache, ${transport}`, async () => {
      const { page, log } = await clientPage(keeping, { origin: server.url, options: { transports: [transport] } })
      await log.next('/open', 1)
      await subscribe(page, '/relay/left')
      await page.evaluate(() => {
        addEventListener('pageshow', ({ persisted }) => report('shown', persisted))
      })
      const shown = log.next('shown')
      const opened = log.next('/open', 2)
      await page.goto(`${elsewhere.url}/blank`)
      await page.evaluate(() => { setTimeout(() => history.back()) })
      assert.equal(await shown, true, 'Chromium kept no page')
      await opened
      await page.evaluate(() => client.send('/relay/left', 'back', null))
      assert.equal(await log.next('event', 1), 'back')
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
        const received = await within(DEADLINE_MS, page.evaluate(([source, type]) => new Promise((resolve, reject) => {
          const worker = new Worker(URL.createObjectURL(new Blob([source], { type: 'text/javascript' })), { type })
          worker.onmessage = ({ data }) => resolve(data)
          worker.onerror = ({ message }) => reject(new Error(`the worker failed: ${message}`))
        }), [source, type]), 'an event from the worker')
        assert.deepEqual(received, [transport, 'by a worker'])
        await page.context().close()
      })
    }
  }
}
