// The page at `/`, as users see it: with its own content security policy, which no test relaxes.

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { blankPage } from './support/browser.mjs'
import { group } from './support/harness.mjs'
import { Server, file } from './support/server.mjs'

const NAMES = { websocket: 'WebSocket', stream: 'Event stream', poll: 'Long polling' }
const SHOTS = file('target/test-logs')
const VIEWS = { wide: { width: 1280, height: 900 }, narrow: { width: 375, height: 812 } }

/** Opens the page in a tab of `context`. `complaints` collects the errors and warnings of the browser. */
async function open(context, url) {
  const tab = await context.newPage()
  const complaints = []
  tab.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
  })
  tab.on('pageerror', (error) => complaints.push(String(error)))
  await tab.addInitScript(() => {
    addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
      console.error(`policy: ${violatedDirective} ${blockedURI}`)
    })
  })
  await tab.goto(url)
  return { tab, complaints }
}

const connected = (tab, name) => tab.locator('#state[data-state=open]', { hasText: name }).waitFor()

/** Returns the number that a counter shows. */
const number = async (tab, id) => Number((await tab.locator(id).textContent()).replace(/\D/g, ''))

/** Returns whether something is drawn on the board. Reads a copy, because the board's canvas is optimized for drawing. */
const isDrawnOn = () => {
  const canvas = document.getElementById('board-canvas')
  if (!canvas.width) return false
  const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true })
  copy.drawImage(canvas, 0, 0)
  return copy.getImageData(0, 0, canvas.width, canvas.height).data.some((part) => part !== 0)
}

export function page(browser) {
  group('page', async ({ test, after }) => {
    const server = await Server.start()
    after(() => server.stop())

    for (const [transport, name] of Object.entries(NAMES)) {
      await test(`two tabs, ${transport}: drawings and messages of one tab appear in the other, as text`, async () => {
        const context = await browser.newContext()
        const [one, two] = [await open(context, `${server.url}/#${transport}`), await open(context, `${server.url}/#${transport}`)]
        await Promise.all([one, two].map(({ tab }) => connected(tab, name)))
        await Promise.all([one, two].map(({ tab }) => tab.locator('#tabs li').nth(1).waitFor()))
        await one.tab.click('#pen')
        await two.tab.waitForFunction(isDrawnOn)
        await two.tab.locator('#board-hint').waitFor({ state: 'hidden' })
        const text = '<img src=x onerror="alert(1)"><b>bold</b> & &amp; 🐌'
        await one.tab.fill('#text', text)
        await one.tab.click('#send')
        for (const { tab } of [one, two]) {
          await tab.locator('#messages .said', { hasText: 'bold' }).waitFor()
          assert.equal(await tab.locator('#messages .said').last().textContent(), text)
          assert.equal(await tab.locator('#messages img, #messages b').count(), 0)
          await tab.waitForFunction(() => Number(document.getElementById('count-events').textContent) > 30)
          await tab.waitForFunction(() => {
            return [...document.querySelectorAll('[data-figure=p50]')].every(({ textContent }) => / ms$/.test(textContent))
          })
          assert.deepEqual([await number(tab, '#count-disorder'), await number(tab, '#count-missed')], [0, 0])
        }
        await two.tab.goto('about:blank')
        await one.tab.locator('#tabs li').nth(1).waitFor({ state: 'detached' })
        assert.deepEqual([...one.complaints, ...two.complaints], [])
        await context.close()
      })
    }

    await test('a click selects the transport, and a reload keeps it', async () => {
      const context = await browser.newContext()
      const { tab, complaints } = await open(context, server.url)
      await connected(tab, 'WebSocket')
      for (const [transport, name] of Object.entries(NAMES).reverse()) {
        await tab.locator(`[name=transport][value=${transport}]`).check()
        await connected(tab, name)
        assert.equal(new URL(tab.url()).hash, `#${transport}`)
        await tab.reload()
        await connected(tab, name)
        assert.equal(await tab.locator('[name=transport]:checked').getAttribute('value'), transport)
      }
      assert.deepEqual(complaints, [])
      await context.close()
    })

    await test('the page shows a restart of the server and reconnects', async () => {
      const own = await Server.start()
      const context = await browser.newContext()
      const { tab } = await open(context, own.url)
      await connected(tab, 'WebSocket')
      await own.stop()
      await tab.locator('#state:not([data-state=open])').waitFor()
      await own.start()
      await connected(tab, 'WebSocket')
      assert.match(await tab.locator('#fact-reconnects').textContent(), /^once$/i)
      await context.close()
      await own.stop()
    })

    await test('without the application relay, the page explains how to enable it', async () => {
      const bare = await Server.start('--app clienttest')
      const context = await browser.newContext()
      const { tab, complaints } = await open(context, bare.url)
      await connected(tab, 'WebSocket')
      await tab.locator('#board-missing').waitFor()
      assert.equal(await tab.locator('#pen').isDisabled(), true)
      assert.deepEqual(complaints, [])
      await context.close()
      await bare.stop()
    })

    await test('an example on the page works unchanged', async () => {
      const context = await browser.newContext({ permissions: ['clipboard-read', 'clipboard-write'] })
      const { tab, complaints } = await open(context, server.url)
      await connected(tab, 'WebSocket')
      const example = await tab.locator('#snippet-module').textContent()
      await tab.locator('[data-copy=snippet-module]').click()
      await tab.locator('#copied', { hasText: 'Copied' }).waitFor()
      assert.deepEqual(complaints, [])
      await context.close()
      const elsewhere = await Server.start()
      const other = await blankPage(browser, elsewhere.url)
      const logged = other.waitForEvent('console', (message) => message.type() === 'log')
      await other.addScriptTag({ type: 'module', content: example })
      assert.equal((await logged).text(), 'hello')
      await other.context().close()
      await elsewhere.stop()
    })

    for (const width of [320, 375, 768, 1280]) {
      await test(`nothing is wider than a window of ${width} pixels`, async () => {
        const context = await browser.newContext({ viewport: { width, height: 700 } })
        const { tab } = await open(context, server.url)
        await connected(tab, 'WebSocket')
        const widest = await tab.evaluate(() => document.documentElement.scrollWidth)
        assert.ok(widest <= width, `${widest} pixels`)
        await tab.evaluate(() => scrollTo(10_000, 0))
        assert.equal(await tab.evaluate(() => scrollX), 0)
        await context.close()
      })
    }
  })

  group('page, screenshots', async ({ test, after }) => {
    const server = await Server.start()
    after(() => server.stop())
    mkdirSync(SHOTS, { recursive: true })
    for (const [view, viewport] of Object.entries(VIEWS)) {
      for (const colorScheme of ['light', 'dark']) {
        await test(`target/test-logs/page-${view}-${colorScheme}.png`, async () => {
          const context = await browser.newContext({ viewport, colorScheme })
          const { tab, complaints } = await open(context, server.url)
          const other = await open(context, `${server.url}/#poll`)
          await connected(tab, 'WebSocket')
          await other.tab.fill('#text', 'Hello from another tab')
          await other.tab.click('#pen')
          await other.tab.click('#send')
          await tab.locator('#messages .said').waitFor()
          await tab.waitForFunction(isDrawnOn)
          await tab.waitForFunction(() => Number(document.getElementById('count-events').textContent) > 30)
          const background = await tab.evaluate(() => getComputedStyle(document.body).backgroundColor)
          const [red] = background.match(/\d+/g).map(Number)
          assert.equal(red < 128, colorScheme === 'dark', `the background is ${background}`)
          await tab.screenshot({ path: `${SHOTS}/page-${view}-${colorScheme}.png`, fullPage: true })
          assert.deepEqual([...complaints, ...other.complaints], [])
          await context.close()
        })
      }
    }
  })
}
