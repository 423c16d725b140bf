// The operator's page on the admin endpoint, with its own content security policy, which no test relaxes.

import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { group } from './support/harness.mjs'
import { APPS, Server, file } from './support/server.mjs'

const SHOTS = file('target/test-logs')
const VIEWS = { wide: { width: 1360, height: 900 }, narrow: { width: 375, height: 812 } }
const ADMIN = `${APPS} --admin 127.0.0.1:0 --outbox-bytes-max 64Mi`
const PASSWORD = 'correct horse battery'

/** Opens the operator's page in a tab of `context`. `complaints` collects the errors and warnings of the browser. */
async function open(context, server) {
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
  await tab.goto(`http://${server.admin}/`)
  return { tab, complaints }
}

const live = (tab) => tab.locator('#state[data-state=live]').waitFor()

/** Resolves when an element shows a number greater than `more`. */
const exceeds = (tab, id, more) => tab.waitForFunction(([id, more]) => {
  return parseFloat(document.getElementById(id).textContent.replaceAll(',', '')) > more
}, [id, more])

/** A client over raw TCP. It reads only while `isReading`. */
class RawClient {
  static async connect(server) {
    const client = new RawClient()
    client.socket = connect(server.port, '127.0.0.1')
    client.socket.on('error', () => {})
    await new Promise((resolve) => client.socket.once('connect', resolve))
    client.socket.write('/qio/ohai')
    await new Promise((resolve) => client.socket.once('data', resolve))
    client.socket.resume()
    return client
  }

  send(text) {
    const length = Buffer.alloc(8)
    length.writeBigUInt64BE(BigInt(Buffer.byteLength(text)))
    this.socket.write(Buffer.concat([length, Buffer.from(text)]))
  }

  /** Subscribes to a path, and resolves when the answer has come. */
  async subscribe(path) {
    const answered = new Promise((resolve) => this.socket.once('data', resolve))
    this.send(`/qio/on:1="${path}"`)
    await answered
  }

  get address() {
    return `127.0.0.1:${this.socket.localPort}`
  }
}

/** Returns a client that is subscribed to `path` and does not read, and has output waiting; and one that publishes. */
async function slowClient(server, path) {
  const [slow, publisher] = [await RawClient.connect(server), await RawClient.connect(server)]
  await slow.subscribe(path)
  slow.socket.pause()
  const text = 'x'.repeat(30_000)
  for (;;) {
    for (let n = 0; n < 50; n++) publisher.send(`${path}:0="${text}"`)
    const page = await (await fetch(`http://${server.admin}/clients?slowest=100`)).json()
    const found = page.clients.find(({ address, outbox_bytes: bytes }) => address === slow.address && bytes > 1_000_000)
    if (found) return { slow, publisher, id: found.id }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

/** Opens the demonstration page, which is a client that sends, subscribes and draws. */
async function demonstrate(context, server) {
  const tab = await context.newPage()
  await tab.goto(server.url)
  await tab.locator('#state[data-state=open]').waitFor()
  await tab.click('#pen')
  return tab
}

export function operator(browser) {
  group('operator', async ({ test, after }) => {
    const server = await Server.start(ADMIN)
    after(() => server.stop())

    await test('the numbers, charts and paths show what happens', async () => {
      const context = await browser.newContext()
      await demonstrate(context, server)
      const { tab, complaints } = await open(context, server)
      await live(tab)
      for (const id of ['now-clients', 'now-events', 'now-deliveries', 'now-p99', 'now-memory']) await exceeds(tab, id, 0)
      await tab.locator('#paths tbody th', { hasText: '/relay/' }).first().waitFor()
      assert.equal(await tab.locator('#shards tbody tr').count(), 2)
      const websockets = tab.locator('#transports tbody tr', { hasText: 'WebSocket' }).locator('td').last()
      assert.equal(await websockets.textContent(), '1')
      for (const id of ['chart-rates', 'chart-delivery', 'chart-clients', 'chart-memory']) {
        await tab.waitForFunction((id) => {
          return [...document.querySelectorAll(`#${id} path.line`)].some((line) => line.getAttribute('d').includes('L'))
        }, id)
      }
      assert.deepEqual(complaints, [])
      await context.close()
    })

    await test('the details of a client open by a click and by its id, and tell its end', async () => {
      const { slow, publisher, id } = await slowClient(server, '/relay/operator/slow')
      const context = await browser.newContext()
      const { tab, complaints } = await open(context, server)
      await tab.locator('#clients tbody button', { hasText: id }).click()
      const dialog = tab.locator('#client')
      for (const text of [slow.address, 'not authenticated', 'raw TCP', '/relay/operator/slow', 'Subscriptions: 1']) {
        await dialog.getByText(text).first().waitFor()
      }
      await tab.keyboard.press('Escape')
      await dialog.waitFor({ state: 'hidden' })
      assert.equal(await tab.evaluate(() => document.activeElement.textContent), id, 'the focus is where it was')
      assert.deepEqual(complaints, [])
      slow.socket.destroy()
      await tab.fill('#find-id', id)
      await tab.keyboard.press('Enter')
      await dialog.getByText('no such client').waitFor()
      await tab.click('#client-close')
      await dialog.waitFor({ state: 'hidden' })
      publisher.socket.destroy()
      await context.close()
    })

    await test('refusals are shown by their reason', async () => {
      const client = await RawClient.connect(server)
      const context = await browser.newContext()
      const { tab, complaints } = await open(context, server)
      await live(tab)
      for (let n = 0; n < 3; n++) client.send('/no/such/event:1=1')
      const row = tab.locator('#refusals tbody tr', { hasText: 'no application handles the path' })
      await tab.waitForFunction(() => {
        const rows = [...document.querySelectorAll('#refusals tbody tr')]
        return rows.some((row) => /no application handles.*3.*3/.test(row.textContent))
      })
      assert.equal(await row.count(), 1)
      assert.deepEqual(complaints, [])
      client.socket.destroy()
      await context.close()
    })

    await test('a chart is read with the keys, and the page can be paused', async () => {
      const context = await browser.newContext()
      const { tab, complaints } = await open(context, server)
      await live(tab)
      const plot = tab.locator('#chart-memory svg.plot')
      await tab.waitForFunction(() => document.querySelector('#chart-memory path.line').getAttribute('d').includes('L'))
      await plot.focus()
      await tab.keyboard.press('ArrowLeft')
      await tab.keyboard.press('ArrowLeft')
      assert.match(await plot.getAttribute('aria-label'), /^Memory, \d+ seconds ago: process [\d.]+ MiB/)
      await tab.click('#pause')
      await tab.locator('#state', { hasText: 'Paused' }).waitFor()
      await tab.waitForLoadState('networkidle')
      let requests = 0
      tab.on('request', () => { requests++ })
      await tab.waitForTimeout(3000)
      assert.equal(requests, 0)
      await tab.click('#pause')
      await tab.waitForRequest(/\/stats$/)
      assert.deepEqual(complaints, [])
      await context.close()
    })

    for (const width of [320, 375, 768, 1280]) {
      await test(`nothing is wider than a window of ${width} pixels`, async () => {
        const { slow, publisher } = await slowClient(server, `/relay/operator/${'long-'.repeat(20)}`)
        const context = await browser.newContext({ viewport: { width, height: 700 } })
        const { tab } = await open(context, server)
        await live(tab)
        await tab.locator('#clients tbody tr').first().waitFor()
        const widest = await tab.evaluate(() => document.documentElement.scrollWidth)
        assert.ok(widest <= width, `${widest} pixels`)
        await tab.locator('#clients tbody button').first().click()
        await tab.locator('#client .paths li').first().waitFor()
        assert.ok(await tab.evaluate(() => document.documentElement.scrollWidth) <= width)
        assert.ok(await tab.evaluate(() => document.getElementById('client').scrollWidth) <= width)
        slow.socket.destroy()
        publisher.socket.destroy()
        await context.close()
      })
    }
  })

  group('operator, password', async ({ test, after }) => {
    const folder = mkdtempSync(join(tmpdir(), 'quickio-operator-'))
    const path = join(folder, 'password')
    writeFileSync(path, `${PASSWORD}\n`, { mode: 0o600 })
    const server = await Server.start(`${ADMIN} --admin-password-file ${path}`)
    after(() => rmSync(folder, { recursive: true }))
    after(() => server.stop())

    await test('without the password nothing is shown', async () => {
      for (const httpCredentials of [undefined, { username: 'admin', password: 'wrong' }]) {
        const context = await browser.newContext({ httpCredentials })
        const tab = await context.newPage()
        const response = await tab.goto(`http://${server.admin}/`).catch((error) => error)
        const status = response instanceof Error ? 401 : response.status()
        assert.equal(status, 401, String(response))
        assert.equal(await tab.locator('#main').count(), 0)
        await context.close()
      }
    })

    await test('with the password the page works', async () => {
      const context = await browser.newContext({ httpCredentials: { username: 'admin', password: PASSWORD } })
      const { tab } = await open(context, server)
      await live(tab)
      await tab.locator('#refusals tbody th', { hasText: 'Admin logins failed' }).waitFor()
      await context.close()
    })
  })

  group('operator, the server ends', async ({ test }) => {
    await test('the page says that it has no answer', async () => {
      const server = await Server.start(ADMIN)
      const context = await browser.newContext()
      const { tab } = await open(context, server)
      await live(tab)
      await server.stop()
      await tab.locator('#state[data-state=lost]', { hasText: 'No answer' }).waitFor()
      await tab.locator('#problem', { hasText: 'The server does not answer.' }).waitFor()
      await context.close()
    })
  })

  group('operator, screenshots', async ({ test, after }) => {
    const server = await Server.start(ADMIN)
    after(() => server.stop())
    mkdirSync(SHOTS, { recursive: true })
    for (const [view, viewport] of Object.entries(VIEWS)) {
      for (const colorScheme of ['light', 'dark']) {
        await test(`target/test-logs/operator-${view}-${colorScheme}.png`, async () => {
          const context = await browser.newContext({ viewport, colorScheme })
          const other = await demonstrate(context, server)
          const { tab, complaints } = await open(context, server)
          await exceeds(tab, 'now-p99', 0)
          await tab.locator('#paths tbody tr').first().waitFor()
          const background = await tab.evaluate(() => getComputedStyle(document.body).backgroundColor)
          const [red] = background.match(/\d+/g).map(Number)
          assert.equal(red < 128, colorScheme === 'dark', `the background is ${background}`)
          await tab.screenshot({ path: `${SHOTS}/operator-${view}-${colorScheme}.png`, fullPage: true })
          assert.deepEqual(complaints, [])
          await other.close()
          await context.close()
        })
      }
    }
  })
}
