// Pages that are left: what a client still sends then, and after `close`.

import assert from 'node:assert/strict'
import { group, within } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { Server } from './support/server.mjs'

const DEADLINE_MS = 30_000
const TRANSPORTS = ['websocket', 'stream', 'poll']

/** Subscribes a page to a room. Returns a function that resolves to the first `count` events. */
async function listen(browser, url, room) {
  const page = await blankPage(browser, url)
  await page.evaluate(async (room) => {
    globalThis.client = new QuickIO()
    globalThis.found = []
    await client.on(room, ([number, text]) => found.push([number, text.length]))
  }, room)
  return {
    page,
    first: (count) => within(DEADLINE_MS, page.evaluate(async (count) => {
      for (let turn = 0; found.length < count && turn < 1000; turn++) await new Promise((resolve) => setTimeout(resolve, 20))
      return found
    }, count))
  }
}

const numbered = (count, size) => Array.from({ length: count }, (_, number) => [number, size])

export function leaving(browser) {
  for (const transport of TRANSPORTS) {
    group(`leaving, ${transport}`, async ({ test, after }) => {
      const server = await Server.start()
      after(() => server.stop())
      const elsewhere = await Server.start()
      after(() => elsewhere.stop())

      /** Opens a page with a client, leaves it, and returns what the room received. */
      async function leave(room, count, size, sendWhen) {
        const listener = await listen(browser, server.url, room)
        const page = await blankPage(browser, server.url)
        await page.evaluate(async ([transport, room, count, size, sendWhen]) => {
          globalThis.send = () => {
            for (let number = 0; number < count; number++) client.send(room, [number, 'x'.repeat(size)], null)
          }
          // Before the library's own listener.
          if (sendWhen === 'pagehide') addEventListener('pagehide', send)
          globalThis.client = new QuickIO(undefined, { transports: [transport] })
          await client.send('/qio/ping')
        }, [transport, room, count, size, sendWhen])
        if (sendWhen !== 'pagehide') await page.evaluate(() => send())
        if (sendWhen === 'await close') await page.evaluate(() => client.close())
        if (sendWhen === 'close') await page.evaluate(() => { client.close() })
        await page.goto(`${elsewhere.url}/quickio.d.ts`)
        const found = await listener.first(count)
        await page.context().close()
        await listener.page.context().close()
        return found
      }

      await test('a page that awaits `close` before it is left loses nothing', async () => {
        assert.deepEqual(await leave('/relay/awaited', 100, 1000, 'await close'), numbered(100, 1000))
      })

      // A WebSocket ends with its connection, which the browser breaks off.
      if (transport === 'websocket') return

      // Chromium does not deliver them over streams.
      if (transport === 'poll') await test('events that are sent while the page is left arrive in order, up to 64 KiB', async () => {
        assert.deepEqual(await leave('/relay/leaving', 50, 1000, 'pagehide'), numbered(50, 1000))
      })

      await test('events before `close` arrive if the page is left at once', async () => {
        assert.deepEqual(await leave('/relay/closed', 50, 1000, 'close'), numbered(50, 1000))
      })
    })
  }
}
