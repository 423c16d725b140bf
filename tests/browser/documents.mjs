// The documents of the server, as a browser gets and keeps them.

import assert from 'node:assert/strict'
import { group } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { Server } from './support/server.mjs'

/** Loads a page; resolves to what came over the network for each path: a status, or null where nothing was asked. */
async function loads(session, load) {
  const paths = new Map()
  const statuses = {}
  const asked = ({ requestId, request }) => {
    const { pathname, search } = new URL(request.url)
    if (search) return // of the library's own
    paths.set(requestId, pathname)
    statuses[pathname] ??= null
  }
  const answered = ({ requestId, statusCode }) => {
    if (paths.has(requestId)) statuses[paths.get(requestId)] = statusCode
  }
  session.on('Network.requestWillBeSent', asked)
  session.on('Network.responseReceivedExtraInfo', answered)
  await load()
  session.off('Network.requestWillBeSent', asked)
  session.off('Network.responseReceivedExtraInfo', answered)
  return statuses
}

export function documents(browser) {
  group('documents', async ({ test, after }) => {
    const [server, other] = [await Server.start(), await Server.start()]
    after(() => server.stop())
    after(() => other.stop())

    await test('loaded again: what must be fresh is asked for and unchanged, the library is not asked for', async () => {
      const context = await browser.newContext()
      const page = await context.newPage()
      const session = await context.newCDPSession(page)
      await session.send('Network.enable')
      const load = () => loads(session, async () => {
        await page.goto(server.url, { waitUntil: 'networkidle' })
        await page.goto('about:blank')
      })
      const first = await load()
      assert.deepEqual(first, {
        '/': 200, '/page.css': 200, '/page.js': 200, '/quickio.js': 200, '/favicon.svg': first['/favicon.svg']
      })
      const second = await load()
      assert.deepEqual(second, {
        '/': 304, '/page.css': 304, '/page.js': 304, '/quickio.js': null, '/favicon.svg': second['/favicon.svg']
      })
      await context.close()
    })

    await test('the library is asked for when it is to be revalidated, and is unchanged', async () => {
      const page = await blankPage(browser, server.url)
      const session = await page.context().newCDPSession(page)
      await session.send('Network.enable')
      const statuses = await loads(session, () => page.evaluate(async () => {
        for (const path of ['/quickio.js', '/quickio.mjs', '/quickio.mjs']) {
          const response = await fetch(path, { cache: 'no-cache' })
          await response.text()
        }
      }))
      assert.deepEqual(statuses, { '/quickio.js': 304, '/quickio.mjs': 304 })
      await page.context().close()
    })

    await test('a page of another origin imports the module, and connects', async () => {
      const page = await blankPage(browser, other.url)
      const found = await page.evaluate(async (url) => {
        delete globalThis.QuickIO
        const module = await import(`${url}/quickio.mjs`)
        const client = new module.default(url)
        const answer = await client.send('/clienttest/echo', 'by a module')
        return [module.default === module.QuickIO, location.origin, client.transport, answer]
      }, server.url)
      assert.deepEqual(found, [true, other.url, 'websocket', 'by a module'])
      await page.context().close()
    })

    await test('a page of another origin includes the script, whose server is then the default', async () => {
      const page = await blankPage(browser, other.url)
      await page.addScriptTag({ url: `${server.url}/quickio.js` })
      const opened = await page.evaluate(async () => {
        const client = new QuickIO()
        await new Promise((resolve) => client.on('/open', resolve))
        return performance.getEntriesByType('resource').map(({ name }) => name).concat(QuickIO.source)
      })
      assert.equal(opened.at(-1), `${server.url}/quickio.js`)
      await page.context().close()
    })

    await test('an isolated page takes the library of another origin, and nothing that is not for others', async () => {
      const isolated = await (await browser.newContext({ bypassCSP: true })).newPage()
      await isolated.goto(server.url)
      assert.equal(await isolated.evaluate(() => globalThis.crossOriginIsolated), true)
      await isolated.addScriptTag({ url: `${other.url}/quickio.js` })
      assert.equal(await isolated.evaluate(() => QuickIO.source), `${other.url}/quickio.js`)
      const part = isolated.addScriptTag({ url: `${other.url}/page.js` })
      await assert.rejects(part, 'a part of the page was given to another origin')
      await isolated.context().close()
    })

    await test('what does not exist is a 404 that says what does', async () => {
      const page = await (await browser.newContext()).newPage()
      const response = await page.goto(`${server.url}/nowhere`)
      assert.equal(response.status(), 404)
      assert.match(await response.text(), /quickio\.js/)
      await page.context().close()
    })
  })
}
