// How a browser loads and caches the documents of the server.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { group, within } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { Server, file } from './support/server.mjs'

const PARTS = ['/', '/page.css', '/page.js', '/quickio.js']

/** Runs `load`. Resolves to the network status of each path, or null if a path was served from the cache. */
async function networkStatuses(session, paths, load) {
  const requests = new Map() // id => { path, answer, status }; the events of a request arrive in any order
  const request = (id) => requests.get(id) ?? requests.set(id, {}).get(id)
  const isSettled = (path) => {
    const found = [...requests.values()].filter((request) => request.path === path)
    return found.length && found.every(({ answer, status }) => answer && (status || !answer.hasExtraInfo))
  }
  let check
  const settled = new Promise((resolve) => {
    check = () => { if (paths.every(isSettled)) resolve() }
  })
  const handlers = {
    'Network.requestWillBeSent': ({ requestId, request: { url } }) => {
      request(requestId).path = new URL(url).search ? null : new URL(url).pathname // with a query: a request of the library itself
    },
    'Network.responseReceived': (answer) => { request(answer.requestId).answer = answer },
    'Network.responseReceivedExtraInfo': ({ requestId, statusCode }) => { request(requestId).status = statusCode }
  }
  const listeners = Object.entries(handlers).map(([name, handle]) => [name, (event) => {
    handle(event)
    check()
  }])
  for (const [name, listener] of listeners) session.on(name, listener)
  await load()
  const state = () => JSON.stringify([...requests.values()].map(({ path, status }) => [path, status]))
  await within(20_000, settled, 'all requests').catch((error) => { throw new Error(`${error.message}: ${state()}`) })
  for (const [name, listener] of listeners) session.off(name, listener)
  const all = [...requests.values()]
  return Object.fromEntries(paths.map((path) => [path, all.find((one) => one.path === path).status ?? null]))
}

export function documents(browser) {
  group('documents', async ({ test, after }) => {
    const [server, other] = [await Server.start(), await Server.start()]
    after(() => server.stop())
    after(() => other.stop())

    await test('a reload revalidates the page and uses the cached library without a request', async () => {
      const context = await browser.newContext()
      const page = await context.newPage()
      const session = await context.newCDPSession(page)
      await session.send('Network.enable')
      const load = async () => {
        const statuses = await networkStatuses(session, PARTS, () => page.goto(server.url))
        await page.goto('about:blank')
        return statuses
      }
      assert.deepEqual(await load(), { '/': 200, '/page.css': 200, '/page.js': 200, '/quickio.js': 200 })
      assert.deepEqual(await load(), { '/': 304, '/page.css': 304, '/page.js': 304, '/quickio.js': null })
      await context.close()
    })

    await test('revalidation of the library returns 304', async () => {
      const page = await blankPage(browser, server.url)
      await page.evaluate(() => import('/quickio.mjs'))
      const session = await page.context().newCDPSession(page)
      await session.send('Network.enable')
      const statuses = await networkStatuses(session, ['/quickio.js', '/quickio.mjs'], () => page.evaluate(async () => {
        for (const path of ['/quickio.js', '/quickio.mjs']) {
          const response = await fetch(path, { cache: 'no-cache' })
          await response.text()
        }
      }))
      assert.deepEqual(statuses, { '/quickio.js': 304, '/quickio.mjs': 304 })
      await page.context().close()
    })

    await test('a page of another origin can import the module and connect', async () => {
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

    await test('a page of another origin can include the script, whose server is the default', async () => {
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

    for (const path of ['README.md', 'docs/client.md']) {
      const blocks = [...readFileSync(file(path), 'utf8').matchAll(/^```html\n([^]*?)^```$/gm)].map(([, code]) => code)
      for (const [number, code] of blocks.entries()) {
        await test(`HTML example ${number} of ${path}`, async () => {
          const page = await (await browser.newContext()).newPage()
          const printed = []
          page.on('console', (message) => { if (message.type() === 'log') printed.push(message.text()) })
          page.on('pageerror', (error) => printed.push(error.message))
          // Each origin may include the library, so a document without an origin may, too.
          await page.setContent(code.replaceAll(/https:\/\/events\.example\.com|http:\/\/127\.0\.0\.1:8080/g, server.url))
          // A classic script shares its `qio` with the page. The module keeps its own, so another client is opened.
          const opened = await page.evaluate(async () => {
            const client = typeof qio === 'object' ? qio : new QuickIO()
            await client.send('/qio/ping')
            return client.state
          })
          assert.equal(opened, 'open')
          const logs = code.includes('console.log')
          for (let turn = 0; turn < 100 && printed.length < Number(logs); turn++) await new Promise((resolve) => setTimeout(resolve, 50))
          assert.equal(printed.length, Number(logs), printed.join('\n'))
          await page.context().close()
        })
      }
      await test(`${path} has HTML examples`, async () => assert.ok(blocks.length >= 1))
    }

    await test('an isolated page can load the library of another origin, but not the parts of its page', async () => {
      const isolated = await (await browser.newContext({ bypassCSP: true })).newPage()
      await isolated.goto(server.url)
      assert.equal(await isolated.evaluate(() => globalThis.crossOriginIsolated), true)
      await isolated.addScriptTag({ url: `${other.url}/quickio.js` })
      assert.equal(await isolated.evaluate(() => QuickIO.source), `${other.url}/quickio.js`)
      const part = isolated.addScriptTag({ url: `${other.url}/page.js` })
      await assert.rejects(part, 'another origin could load a part of the page')
      await isolated.context().close()
    })

    await test('an unknown path is answered with a 404 that lists the documents', async () => {
      const page = await (await browser.newContext()).newPage()
      const response = await page.goto(`${server.url}/nowhere`)
      assert.equal(response.status(), 404)
      assert.match(await response.text(), /quickio\.js/)
      await page.context().close()
    })
  })
}
