// Runs the JavaScript of docs/client.md against a server, and checks the figures in it.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { formatWithOptions } from 'node:util'
import { gzipSync } from 'node:zlib'
import { settled } from './suite.mjs'
import { LIBRARY, QuickIO, Server, WebSocket, file } from './support/server.mjs'

/** Runs a code block of the document unchanged, and returns the lines that it prints. */
async function runSnippet(code, address) {
  const clients = []
  class Client extends QuickIO {
    constructor(url, options) {
      assert.equal(url, 'wss://events.example.com')
      super(`ws://${address}`, { WebSocket, ...options })
      clients.push(this)
    }
  }
  const printed = []
  const console = { log: (...args) => printed.push(formatWithOptions({}, ...args)) }
  const require = (name) => ({ './quickio.js': { QuickIO: Client }, ws: { WebSocket } })[name]
  const own = /require\(/.test(code) ? {} : { QuickIO: Client }
  const names = { ...own, console, require }
  try {
    await new (async () => {}).constructor(...Object.keys(names), code)(...Object.values(names))
    await settled()
  } finally {
    clients.forEach((client) => client.close())
  }
  return printed
}

/** Returns the expected output of a code block: the comments at the ends of its lines. */
function expected(code) {
  return code.split('\n').flatMap((line) => {
    const [, comment] = line.match(/\S +\/\/ (.*)$/) ?? []
    return comment ? [comment] : []
  })
}

describe('docs/client.md', () => {
  const text = readFileSync(file('docs/client.md'), 'utf8')
  const snippets = []
  let section
  for (const [, heading, code] of text.matchAll(/^###? (.*)$|^```js\n([^]*?)^```$/gm)) {
    if (heading) section = heading
    else snippets.push({ section, code })
  }

  test('has examples', () => assert.ok(snippets.length >= 8))

  for (const { section, code } of snippets) {
    test(`the example of "${section}"`, { timeout: 30_000 }, async () => {
      const server = await Server.start()
      try {
        assert.deepEqual(await runSnippet(code, server.address), expected(code))
      } finally {
        await server.stop()
      }
    })
  }

  test('states the size of the library', () => {
    const size = Number(text.match(/([\d,]+) bytes, gzipped/)[1].replace(',', ''))
    const found = gzipSync(readFileSync(LIBRARY), { level: 9 }).length
    assert.ok(Math.abs(size - found) < 100, `${size} is not ${found}`)
  })
})
