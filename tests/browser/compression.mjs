// Compression of WebSocket messages, which the browser offers without being asked.

import assert from 'node:assert/strict'
import { group } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { APPS, Server } from './support/server.mjs'

export function compression(browser) {
  for (const [name, flags, extensions] of [
    ['on', '--compression', 'permessage-deflate'],
    ['off', '', '']
  ]) {
    group(`compression, ${name}`, async ({ test, after }) => {
      const server = await Server.start(`${APPS} --admin 127.0.0.1:0 ${flags}`)
      after(() => server.stop())

      await test('the browser and the server negotiate it', async () => {
        const page = await blankPage(browser, server.url)
        const negotiated = await page.evaluate(async () => {
          const socket = new WebSocket(`ws://${location.host}/`, ['quickio'])
          await new Promise((resolve, reject) => { [socket.onopen, socket.onerror] = [resolve, reject] })
          socket.close()
          return socket.extensions.split(';')[0]
        })
        assert.equal(negotiated, extensions)
        await page.context().close()
      })

      await test('messages of all lengths arrive', async () => {
        const page = await blankPage(browser, server.url)
        const counts = [0, 20, 60, 300, 12_000]
        const found = await page.evaluate(async (counts) => {
          const client = new QuickIO(undefined, { transports: ['websocket'] })
          const found = []
          await client.on('/relay/room', (data) => found.push(data))
          for (const length of counts) {
            const data = Array.from({ length }, (_, number) => number * 7919 % 1000)
            await client.send('/relay/room', data)
            const echoed = await client.send('/clienttest/echo', data)
            if (JSON.stringify(echoed) !== JSON.stringify(data)) throw new Error(`${length} numbers came back changed`)
          }
          for (let turn = 0; found.length < counts.length && turn < 500; turn++) {
            await new Promise((resolve) => setTimeout(resolve, 20))
          }
          client.close()
          return found.map((data) => data.length)
        }, counts)
        assert.deepEqual(found, counts)
        const { counters } = await (await fetch(`http://${server.admin}/stats`)).json()
        assert.equal(counters.messages_inflated > 0, name === 'on', 'messages of the browser are compressed')
        assert.equal(counters.messages_compressed > 0, name === 'on', 'messages of the server are compressed')
        await page.context().close()
      })
    })
  }
}
