// Runs the JavaScript of docs/client.md as programs against a server, compiles its TypeScript, and checks the figures in
// it. tests/browser/documents.mjs runs its HTML.

import assert from 'node:assert/strict'
import { execFile, execFileSync } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { HISTORY, LIBRARY, Server, file } from './support/server.mjs'

const run = promisify(execFile)

// The parts of the page of an example: the classic script, and the browser's WebSocket.
const PAGE = `
import { createRequire } from 'node:module'
import { WebSocket } from 'ws'
globalThis.WebSocket = WebSocket
globalThis.QuickIO = createRequire(import.meta.url)('./quickio.js')
`

// Runs an ES module until it has printed as many lines as expected, and a little longer. Most examples close no client,
// which would keep the process alive.
const RUNNER = `
const [path, wanted] = process.argv.slice(2)
let printed = 0
const log = console.log
console.log = (...args) => {
  printed++
  log(...args)
}
await import(path)
while (printed < wanted) await new Promise((resolve) => setTimeout(resolve, 10))
await new Promise((resolve) => setTimeout(resolve, 100))
process.exit()
`

/** Returns the expected output of a code block: the comments at the ends of its lines. */
function expected(code) {
  return code.split('\n').flatMap((line) => {
    const [, comment] = line.match(/\S +\/\/ (.*)$/) ?? []
    return comment ? [comment] : []
  })
}

describe('docs/client.md', () => {
  const text = readFileSync(file('docs/client.md'), 'utf8')
  const examples = []
  let section
  for (const [, heading, language, code] of text.matchAll(/^###? (.*)$|^```(js|ts)\n([^]*?)^```$/gm)) {
    if (heading) section = heading
    else examples.push({ section, language, code, number: examples.length })
  }
  const folder = mkdtempSync(join(tmpdir(), 'quickio-docs-'))
  let server

  const write = (name, content) => writeFileSync(join(folder, name), content)

  before(async () => {
    server = await Server.start({ settings: HISTORY })
    cpSync(LIBRARY, join(folder, 'quickio.js'))
    write('quickio.mjs', await (await fetch(`http://${server.address}/quickio.mjs`)).text())
    execFileSync(process.execPath, [file('scripts/package.mjs'), join(folder, 'node_modules/quickio-client')])
    symlinkSync(file('tests/clients/node/node_modules/ws'), join(folder, 'node_modules/ws'))
    write('page.mjs', PAGE)
    write('runner.mjs', RUNNER)
  })

  after(async () => {
    await server.stop()
    rmSync(folder, { recursive: true })
  })

  test('has examples', () => assert.ok(examples.length >= 12))

  for (const { section, language, code, number } of examples) {
    test(`example ${number}, of "${section}"`, { timeout: 60_000 }, async () => {
      if (language === 'ts') {
        write('example.mts', code)
        const tsc = file('tests/clients/node/node_modules/.bin/tsc')
        const flags = ['--module', 'nodenext', '--target', 'es2022', '--strict', '--noEmit', '--lib', 'es2022,dom']
        return run(tsc, [...flags, 'example.mts'], { cwd: folder }).catch(({ stdout }) => assert.fail(stdout))
      }
      const isCommonJs = /\brequire\(/.test(code)
      const name = `./example${number}.${isCommonJs ? 'cjs' : 'mjs'}`
      write(name, code.replaceAll('wss://events.example.com', `ws://${server.address}`))
      const lines = expected(code)
      const own = /^import .*QuickIO/m.test(code) ? [] : ['--import', './page.mjs']
      const args = isCommonJs ? [name] : [...own, 'runner.mjs', name, lines.length]
      const { stdout } = await run(process.execPath, args, { cwd: folder, timeout: 30_000 })
      assert.deepEqual(stdout.split('\n').filter(Boolean), lines)
    })
  }

  test('states the size of the library', () => {
    const size = Number(text.match(/([\d,]+) bytes, gzipped/)[1].replace(',', ''))
    const found = gzipSync(readFileSync(LIBRARY), { level: 9 }).length
    assert.ok(Math.abs(size - found) < 100, `${size} is not ${found}`)
  })
})
