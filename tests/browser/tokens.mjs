// Tokens of a page, whose server has signed them.

import assert from 'node:assert/strict'
import { settingsFile, tokenOf } from '../js/support/tokens.mjs'
import { group } from './support/harness.mjs'
import { blankPage } from './support/browser.mjs'
import { APPS, Server } from './support/server.mjs'

export function tokens(browser) {
  group('tokens', async ({ test, after }) => {
    const server = await Server.start(`${APPS} --config ${settingsFile()}`)
    after(() => server.stop())

    for (const transport of ['websocket', 'stream', 'poll']) {
      await test(`a page authenticates over ${transport}`, async () => {
        const page = await blankPage(browser, server.url)
        const given = [tokenOf('7', -60), tokenOf('7', 3600)]
        const found = await page.evaluate(async ({ transport, given }) => {
          let calls = 0
          const token = async () => given[calls++]
          const client = new QuickIO(undefined, { transports: [transport], token })
          const answer = await client.send('/clienttest/echo', 'hello')
          await client.close()
          return [answer, calls]
        }, { transport, given })
        assert.deepEqual(found, ['hello', 2])
        await page.context().close()
      })
    }
  })
}
