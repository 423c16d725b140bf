// The library's suite, in pages of the real server: on its plain port by each transport, and through the proxy that
// mangles upgrades, in each mode.

import { readFileSync } from 'node:fs'
import { group } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { Wire } from '../js/support/wire.mjs'
import { Server, file } from './support/server.mjs'

const SUITE = readFileSync(file('tests/js/suite.mjs'), 'utf8')

/** Loads the suite into a page; resolves to its tests' names, and why those are skipped that are. */
async function load(page, env) {
  return page.evaluate(async ([source, { url, expectTransport, options, controls }]) => {
    const address = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }))
    const { suite } = await import(address)
    let slept = 0
    const clock = {
      now: () => Date.now() + slept,
      setTimeout: (fn, ms) => setTimeout(fn, ms),
      clearTimeout: (timer) => clearTimeout(timer)
    }
    const control = Object.fromEntries(controls.map((name) => [name, () => globalThis.controlled(name)]))
    if (control.sleep) {
      control.wake = async () => {
        slept += 600_000
        await control.cut() // a machine that wakes has lost its connections
        document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))
      }
    }
    globalThis.tests = suite({ QuickIO, url, expectTransport, options: { clock, ...options }, control })
    return globalThis.tests.map(({ name, skip }) => ({ name, skip }))
  }, [SUITE, env])
}

/** What tests of the suite want from outside, for pages that speak to `server` by way of `wire`. */
function controlOf(server, wire, after) {
  let second = null
  return {
    restart: () => server.restart(),
    cut: () => wire.cut(),
    sleep: () => wire.freeze(),
    async secondServer() {
      if (!second) {
        second = await Server.start()
        after(() => second.stop())
      }
      return second.address
    }
  }
}

/** Runs the suite, or the tests of these names, in a page; in a new one after every `testsEach` tests. */
async function runSuite(test, { newPage, env, control = {}, testsEach = Infinity, names = null }) {
  const begin = async () => {
    const page = await newPage()
    await page.exposeFunction('controlled', (name) => control[name]())
    return { page, tests: await load(page, { ...env, controls: Object.keys(control) }) }
  }
  let { page, tests } = await begin()
  const renew = async () => {
    await page.context().close()
    page = (await begin()).page
  }
  const wanted = tests.filter(({ name, skip }) => (names ? names.includes(name) : !skip))
  if (names && wanted.length !== names.length) throw new Error('the suite has no longer all of the core')
  for (const [ran, { name }] of wanted.entries()) {
    if (ran && ran % testsEach === 0) await renew()
    const passed = await test(name, () => page.evaluate((name) => {
      return globalThis.tests.find((test) => test.name === name).run()
    }, name))
    // Whatever it left must not fail the others.
    if (!passed) await renew()
  }
  await page.context().close()
}

export function plain(browser) {
  for (const transport of ['websocket', 'stream', 'poll']) {
    group(`suite, ${transport}`, async ({ test, after }) => {
      const server = await Server.start()
      after(() => server.stop())
      const wire = await Wire.to(server)
      after(() => wire.end())
      const transports = transport === 'websocket' ? ['websocket', 'stream', 'poll'] : [transport]
      await runSuite(test, {
        newPage: () => blankPage(browser, wire.url),
        env: { url: wire.url, expectTransport: transport, options: { transports, pollDelay: 20 } },
        control: controlOf(server, wire, after)
      })
    })
  }
}

const MODES = [
  'status-200', 'connection-removed', 'upgrade-removed', 'key-removed', 'key-changed', 'version-removed',
  'version-changed', 'protocol-removed', 'protocol-changed', 'answer-connection-removed', 'answer-upgrade-removed',
  'answer-protocol-removed', 'answer-protocol-changed', 'accept-removed', 'accept-changed', 'swallow', 'cut'
]

// What `--core` runs in every mode.
const CORE = [
  'opens, by the transport that works here',
  'a ping is answered, by callback and by promise',
  'chains of server callbacks',
  'broadcasts reach whoever subscribed, until they no longer are',
  'events from one client to another, in order',
  'a lost connection comes back with all subscriptions, by the same transport',
  'events are queued until there is a connection, and keep their order'
]

// Chromium lets a page's new WebSockets wait, for seconds in the end, when many before have failed.
const MANGLED_TESTS_EACH = 8

export function mangled(browser, all) {
  for (const mode of ['swallow', 'rotate', 'none', ...MODES.filter((mode) => mode !== 'swallow')]) {
    group(`suite through the proxy, ${mode}`, async ({ test, after }) => {
      const server = await Server.mangling(mode === 'rotate' ? 'rotate' : 'none')
      after(() => server.stop())
      const origin = `http://${server.proxy}`
      // That a handshake is swallowed only time can tell.
      const slow = mode === 'swallow' || mode === 'rotate'
      await runSuite(test, {
        newPage: () => blankPage(browser, origin),
        env: {
          url: mode === 'rotate' ? origin : `${origin}/?mangle=${mode}`,
          expectTransport: mode === 'none' ? 'websocket' : 'stream',
          options: slow ? { handshakeTimeout: 2500 } : {}
        },
        testsEach: MANGLED_TESTS_EACH,
        names: all || mode === 'rotate' || mode === 'none' ? null : CORE
      })
    })
  }
}
