// The browser, and pages of a server with the client library.

import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'

const PROGRAM = process.env.QUICKIO_CHROMIUM ?? '/usr/bin/chromium'
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'
]

/** Launches a browser with a temporary profile, and with `flags` besides those that every test needs. */
export function launch({ flags = [], ...options } = {}) {
  if (!existsSync(PROGRAM)) {
    throw new Error(`${PROGRAM} does not exist: install Debian's package chromium, or set QUICKIO_CHROMIUM to another browser`)
  }
  return chromium.launch({ executablePath: PROGRAM, headless: true, args: [...FLAGS, ...flags], ...options })
}

/**
 * Opens an otherwise empty page of the server at `url` that includes the library of that server. The default is a new
 * context, so that the page shares neither connections nor a renderer with another page.
 */
export async function blankPage(browser, url, context) {
  // The headers of this document forbid scripts, which `bypassCSP` ignores. A document provided by the test would not
  // need that, but Chromium counts the WebSockets of such pages as failed and delays new ones.
  const page = await (context ?? await browser.newContext({ bypassCSP: true })).newPage()
  await load(page, `${url}/quickio.d.ts`)
  await page.addScriptTag({ url: '/quickio.js' })
  return page
}

/**
 * Loads a document. On a machine that is busy, Chromium now and then does not load a new page at all. If the server
 * responds to another client meanwhile, the page is loaded once more.
 */
async function load(page, url) {
  try {
    await page.goto(url)
  } catch (error) {
    const response = await fetch(url, { signal: AbortSignal.timeout(5000) })
    if (!response.ok) throw error
    console.log(`Chromium did not load ${url}, to which the server responds; trying again (${error.message.split('\n')[0]})`)
    await page.goto(url)
  }
}
