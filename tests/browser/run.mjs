// Tests of the client library, the page and the operator's page in a real browser, Debian's Chromium.
//
//     node tests/browser/run.mjs [--core] [TEXT]
//
// Runs the groups of tests whose names contain TEXT. With `--core`, most modes of the proxy run only a core of the
// library's suite, which saves a minute. Needs `npm ci` in tests/browser, /usr/bin/chromium (or QUICKIO_CHROMIUM), and a
// server: QUICKIO_BINARY, or target/debug/quickio of `cargo build`. Screenshots are written to target/test-logs. The
// last line has the numbers of passed and failed tests.

import { compression } from './compression.mjs'
import { documents } from './documents.mjs'
import { leaving } from './leaving.mjs'
import { operator } from './operator.mjs'
import { outside } from './outside.mjs'
import { page } from './page.mjs'
import { mangled, plain } from './suite.mjs'
import { launch } from './support/browser.mjs'
import { tls } from './tls.mjs'
import { runGroups, within } from './support/harness.mjs'
import { Server } from './support/server.mjs'
import { tokens } from './tokens.mjs'

const RUN_MS = 10 * 60_000 // the tests take a few minutes; a hanging browser must not block the caller

const all = !process.argv.includes('--core')
const text = process.argv.slice(2).find((argument) => !argument.startsWith('--'))
process.on('exit', Server.killAll)

const browser = await launch()
for (const part of [plain, mangled, outside, leaving, page, operator, documents, compression, tls, tokens]) part(browser, all)
let timedOut = 0
const results = await within(RUN_MS, runGroups(text), 'the tests').catch((error) => {
  console.log(`FAILED   ${error.message}`)
  timedOut = 1
})
const { passed, failed } = results ?? { passed: 0, failed: 0 }
await within(10_000, browser.close(), 'the browser').catch((error) => console.log(error.message))
console.log(`browser: ${passed} passed, ${failed + timedOut} failed`)
process.exit(failed + timedOut ? 1 : 0)
