// TLS: a page over https, with WebSockets over wss and event streams and polls over https.

import assert from 'node:assert/strict'
import { createHash, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { group } from './support/harness.mjs'
import { blankPage, launch } from './support/browser.mjs'
import { APPS, Server, file } from './support/server.mjs'

const CERTIFICATE = file('tests/certificates/server.pem')
/** Launches a browser that accepts the certificate of the tests, and no other of an unknown authority. */
function launchTrusting() {
  const key = new X509Certificate(readFileSync(CERTIFICATE)).publicKey.export({ type: 'spki', format: 'der' })
  const digest = createHash('sha256').update(key).digest('base64')
  return launch({ flags: [`--ignore-certificate-errors-spki-list=${digest}`] })
}

export function tls(browser) {
  group('TLS', async ({ test, after }) => {
    const server = await Server.secured(`${APPS} --admin 127.0.0.1:0`)
    after(() => server.stop())
    const trusting = await launchTrusting()
    after(() => trusting.close())
    const { url } = server

    await test('a browser that does not know the authority refuses the certificate', async () => {
      const page = await browser.newPage()
      await assert.rejects(page.goto(url), /ERR_CERT_AUTHORITY_INVALID/)
      await page.context().close()
    })

    await test('the connection uses TLS 1.3', async () => {
      const page = await trusting.newPage()
      const response = await page.goto(url)
      assert.equal((await response.securityDetails()).protocol, 'TLS 1.3')
      await page.context().close()
    })

    for (const transport of ['websocket', 'stream', 'poll']) {
      await test(`${transport} carries events`, async () => {
        const page = await blankPage(trusting, url)
        const found = await page.evaluate(async (transport) => {
          const client = new QuickIO(undefined, { transports: [transport], pollDelay: 20 })
          const found = { protocol: location.protocol, transports: [], events: [] }
          client.on('/transport', (used) => found.transports.push(used))
          await client.on(`/relay/${transport}`, (data) => found.events.push(data.length))
          for (const length of [1, 1000, 60_000]) await client.send(`/relay/${transport}`, 'x'.repeat(length))
          for (let turn = 0; found.events.length < 3 && turn < 500; turn++) {
            await new Promise((resolve) => setTimeout(resolve, 20))
          }
          client.close()
          return found
        }, transport)
        assert.deepEqual(found, { protocol: 'https:', transports: [transport], events: [1, 1000, 60_000] })
        await page.context().close()
      })
    }

    await test('all of it was TLS, and resumed sessions', async () => {
      const { counters } = await (await fetch(`http://${server.admin}/stats`)).json()
      assert.ok(counters.tls_handshakes >= 5, `${counters.tls_handshakes} handshakes`)
      assert.ok(counters.tls_resumed >= 1, `${counters.tls_resumed} resumed sessions`)
      assert.equal(counters.tls_bad_records, 0)
    })
  })
}
