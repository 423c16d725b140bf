// The library's suite, in pages of the real server: on its plain port by each transport, and through the proxy that
// mangles upgrades, in each mode.

import { readFileSync } from 'node:fs'
import { group } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { Server, Wire, file } from './support/server.mjs'

const SUITE = readFileSync(file('tests/js/suite.mjs'), 'utf8')

/** Loads the suite into a page; resolves to its tests' names, and why those are skipped that are. */
async function load(page, env) {
  return page.evaluate(async ([source, { url, expectTransport, options, controls }]) => {
    const address = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }))
    const { suite } = await import(address)
    const control = Object.fromEntries(controls.map((name) => [name, () => globalThis.controlled(name)]))
    globalThis.tests = suite({ QuickIO, url, expectTransport, options, control })
    return globalThis.tests.map(({ name, skip }) => ({ name, skip }))
  }, [SUITE, env])
}

export function plain(browser) {
  for (const transport of ['websocket', 'stream', 'poll']) {
    group(`suite, ${transport}`, async ({ test, after }) => {
      const server = await Server.start()
      after(() => server.stop())
      const wire = await Wire.to(server)
      after(() => wire.end())
      const transports = transport === 'websocket' ? ['websocket', 'stream', 'poll'] : [transport]
      const page = await blankPage(browser, wire.url)
      const env = {
        url: wire.url,
        expectTransport: transport,
        options: { transports, pollDelay: 20 },
        controls: ['restart', 'cut']
      }
      const control = { restart: () => server.restart(), cut: () => wire.cut() }
      await page.exposeFunction('controlled', (name) => control[name]())
      for (const [index, { name, skip }] of (await load(page, env)).entries()) {
        if (skip) test.skip(name, skip)
        else await test(name, () => page.evaluate((index) => globalThis.tests[index].run(), index))
      }
    })
  }
}
