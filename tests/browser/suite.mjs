// The library's suite in pages of a real server: over each transport with a direct connection, and in each mode through
// the proxy that mangles upgrades.

import { readFileSync } from 'node:fs'
import { group } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { TcpProxy } from '../js/support/proxy.mjs'
import { APPS, Server, file } from './support/server.mjs'

const SUITE = readFileSync(file('tests/js/suite.mjs'), 'utf8')

/** Loads the suite into a page. Resolves to the names of its tests, and the reasons to skip some of them. */
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
        await control.cut() // a machine that wakes up has lost its connections
        document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))
      }
    }
    globalThis.tests = suite({ QuickIO, url, expectTransport, options: { clock, ...options }, control })
    return globalThis.tests.map(({ name, skip }) => ({ name, skip }))
  }, [SUITE, env])
}

/** Returns the control functions of the suite, for pages that reach `server` through `proxy`. */
function controlOf(server, proxy, after) {
  let second = null
  return {
    keeps() {},
    restart: () => server.restart(),
    cut: () => proxy.cut(),
    sleep: () => proxy.freeze(),
    async secondServer() {
      if (!second) {
        second = await Server.start()
        after(() => second.stop())
      }
      return second.address
    }
  }
}

/** Runs the suite, or the tests with the given names, in a page. Opens a new page after every `testsEach` tests. */
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
  if (names && wanted.length !== names.length) throw new Error('a test of CORE is missing from the suite')
  for (const [ran, { name }] of wanted.entries()) {
    if (ran && ran % testsEach === 0) await renew()
    const passed = await test(name, () => page.evaluate((name) => {
      return globalThis.tests.find((test) => test.name === name).run()
    }, name))
    // State that a failed test leaves behind must not affect other tests.
    if (!passed) await renew()
  }
  await page.context().close()
}

export function plain(browser) {
  for (const transport of ['websocket', 'stream', 'poll']) {
    group(`suite, ${transport}`, async ({ test, after }) => {
      const server = await Server.start(`${APPS} --config ${file('tests/js/support/history.toml')}`)
      after(() => server.stop())
      const proxy = await TcpProxy.inFrontOf(server)
      after(() => proxy.end())
      const transports = transport === 'websocket' ? ['websocket', 'stream', 'poll'] : [transport]
      await runSuite(test, {
        newPage: () => blankPage(browser, proxy.url),
        env: { url: proxy.url, expectTransport: transport, options: { transports, pollDelay: 20 } },
        control: controlOf(server, proxy, after)
      })
    })
  }
}

const MODES = [
  'status-200', 'connection-removed', 'upgrade-removed', 'key-removed', 'key-changed', 'version-removed',
  'version-changed', 'protocol-removed', 'protocol-changed', 'answer-connection-removed', 'answer-upgrade-removed',
  'answer-protocol-removed', 'answer-protocol-changed', 'accept-removed', 'accept-changed', 'swallow', 'cut'
]

// The tests that `--core` runs in every mode.
const CORE = [
  'opens with the transport that works in this environment',
  'answers a ping, by callback and by promise',
  'chains of server callbacks',
  'delivers broadcasts while subscribed',
  'events from one client to another, in order',
  'reconnects with all subscriptions and the same transport',
  'queues events in order until the connection opens'
]

// After many failed WebSockets, Chromium delays new ones of the same page, eventually by seconds.
const MANGLED_TESTS_EACH = 8

export function mangled(browser, all) {
  for (const mode of ['swallow', 'rotate', 'none', ...MODES.filter((mode) => mode !== 'swallow')]) {
    group(`suite through the proxy, ${mode}`, async ({ test, after }) => {
      const server = await Server.mangling(mode === 'rotate' ? 'rotate' : 'none')
      after(() => server.stop())
      const origin = `http://${server.proxy}`
      // Only a timeout detects a swallowed handshake.
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
