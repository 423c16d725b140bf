// The browser, and pages of a server that have the client library in them.

import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'

const PROGRAM = process.env.QUICKIO_CHROMIUM ?? '/usr/bin/chromium'
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'
]

/** A browser with a profile of its own, which goes with it. */
export function launch(options = {}) {
  if (!existsSync(PROGRAM)) {
    throw new Error(`there is no ${PROGRAM}: install Debian's package chromium, or name another one in QUICKIO_CHROMIUM`)
  }
  return chromium.launch({ executablePath: PROGRAM, headless: true, args: FLAGS, ...options })
}

/**
 * A page of the server at `url` that does nothing by itself, with the library that is served there. Without `context` it is in one of its
 * own: so it shares neither connections nor a renderer with another one.
 */
export async function blankPage(browser, url, context) {
  // The headers of this document say that no script shall run in it. A document that the test brought along
  // would do without that, but Chromium counts the WebSockets of such pages as failed, and lets new ones wait.
  const page = await (context ?? await browser.newContext({ bypassCSP: true })).newPage()
  await page.goto(`${url}/quickio.d.ts`)
  await page.addScriptTag({ url: '/quickio.js' })
  return page
}
