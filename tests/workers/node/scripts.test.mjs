// Scripts: loading, failures while loading, self-tests, and use without a server.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { answer, event, start, startFile, startReady } from '../support/server.mjs'

const PACKAGE = new URL('../../../src/app/worker/node/', import.meta.url)
const CHAT = fileURLToPath(new URL('../../../examples/chat.mjs', import.meta.url))

const NODE = process.env.QUICKIO_TEST_NODE ?? process.execPath
const [major, minor] = execFileSync(NODE, ['--version'], { encoding: 'utf8' }).slice(1).split('.').map(Number)
const detectsSyntax = major > 22 || (major === 22 && minor >= 7) || (major === 20 && minor >= 19)

async function expectAnswer(source, wanted, options) {
  const worker = await startReady(source, options)
  worker.links[0].send(event({ request: 1 }))
  assert.deepEqual((await worker.links[0].frame()).toString(), answer(1, wanted).toString())
  assert.equal(await worker.stop(), 0)
  return worker
}

describe('a script', () => {
  test('imports the package', async () => {
    const source = `import { app } from 'quickio'\napp.event('/a', () => process.argv[1].endsWith('/app.mjs'))`
    const worker = await expectAnswer(source, 'true')
    assert.equal(worker.stderr, '')
  })

  for (const name of ['app.js', 'app.cjs']) {
    test(`requires it: ${name}`, async () => {
      const source = `const { app } = require('quickio')\napp.event('/a', () => __filename.endsWith('${name}'))`
      const worker = await expectAnswer(source, 'true', { name })
      assert.equal(worker.stderr, '')
    })
  }

  test('may use both, and consist of several files', async () => {
    const source = `
      import * as imported from 'quickio'
      import { createRequire } from 'node:module'
      const require = createRequire(import.meta.url)
      const other = require('./lib/other.cjs')
      const names = Object.keys(imported)
      imported.app.event('/a', async () => {
        const others = [other.quickio, await other.late(), require('quickio')]
        return others.every((its) => names.every((name) => its[name] === imported[name])) && names.length
      })`
    const files = { 'lib/other.cjs': `exports.quickio = require('quickio'); exports.late = () => import('quickio')` }
    const worker = await expectAnswer(source, '18', { files })
    assert.deepEqual(worker.manifest.files.map((file) => file.split('/').pop()), ['app.mjs', 'other.cjs'])
    assert.equal(worker.stderr, '')
  })

  test('gets this package even if another one has the same name', async () => {
    const files = { 'node_modules/quickio/index.js': 'throw new Error("the wrong one")' }
    const source = `const { app } = require('quickio')
      app.event('/a', async () => (await import('quickio')).app === app)`
    await expectAnswer(source, 'true', { name: 'app.cjs', files })
  })

  test('is an ES module if package.json declares it', async () => {
    const files = { 'package.json': '{"type":"module"}' }
    await expectAnswer(`import { app } from 'quickio'\napp.event('/a', () => 1)`, '1', { name: 'app.js', files })
  })

  test('is an ES module because of its syntax', { skip: !detectsSyntax }, async () => {
    await expectAnswer(`import { app } from 'quickio'\napp.event('/a', () => 1)`, '1', { name: 'app.js' })
  })

  test('may have spaces in its path, and await something', async () => {
    const source = `import { app } from 'quickio'
      await new Promise((resolve) => setTimeout(resolve, 20))
      app.event('/a', () => 1)`
    await expectAnswer(source, '1', { name: 'my äpp #1.mjs' })
  })

  test('may register nothing', async () => {
    const worker = await startReady('')
    assert.deepEqual(worker.manifest.events, [])
    assert.equal(await worker.stop(), 0)
  })
})

describe('a script that fails', () => {
  const wait = 'await new Promise(() => {})'
  const START = `app.start(async () => { throw new Error('no database') })`
  const imports = `import { app } from 'quickio'\n`
  const scripts = [
    ['app.mjs', 'const a = 1\nconst b = )', /^SyntaxError: Unexpected .*\(app\.mjs, line 2\)$/, /const b = \)/],
    ['app.cjs', 'const a = 1\nconst b = )', /^SyntaxError: Unexpected .*\(app\.cjs, line 2\)$/, /const b = \)/],
    ['app.mjs', '\n\nthrow new TypeError("boom")', /^TypeError: boom \(app\.mjs, line 3\)$/, /TypeError: boom\n +at /],
    ['app.cjs', '\n\nthrow new TypeError("boom")', /^TypeError: boom \(app\.cjs, line 3\)$/, /TypeError: boom\n +at /],
    ['app.mjs', '\nawait Promise.reject(new Error("no"))', /^Error: no \(app\.mjs, line 2\)$/, /Error: no/],
    ['app.mjs', 'throw "text"', /^'text' was thrown$/, /'text' was thrown/],
    ['app.mjs', 'import "./missing.mjs"', /^Error: Cannot find module '.*missing\.mjs'/, /missing/],
    ['app.mjs', 'process.exit(3)', /^the script called exit\(3\); only the server may end a worker$/, /^$/],
    ['app.mjs', 'process.exit()', /^the script called exit\(0\); only the server may end a worker$/, /^$/],
    ['app.mjs', `setTimeout(() => loose())\n${wait}`, /^ReferenceError: loose.*\(app\.mjs, line 1\)$/, /loose/],
    ['app.mjs', `Promise.reject(new Error('loose'))\n${wait}`, /^Error: loose \(app\.mjs, line 1\)$/, /loose/],
    ['app.mjs', imports + START, /^Error: no database \(app\.mjs, line 2\)$/, /Error: no database/],
    ['app.mjs', `${imports}app.event('/qio/x')`, /^RangeError: \/qio\/x is .*\(app\.mjs, line 2\)$/, /RangeError/]
  ]
  for (const [name, source, failed, stderr] of scripts) {
    test(`${name}: ${source}`, async () => {
      const worker = start(source, { name })
      assert.match((await worker.line()).failed, failed)
      assert.equal(await worker.exit(), 1)
      assert.match(worker.stderr, stderr)
    })
  }

  test('is reported with the file of an imported module', async () => {
    const worker = start('import "./other.mjs"', { files: { 'other.mjs': '\n\nlet let = 1' } })
    assert.match((await worker.line()).failed, /^SyntaxError: .*\((other|app)\.mjs, line \d\)$/)
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /other\.mjs:3/)
  })

  test('is reported if it does not exist', async () => {
    const worker = startFile('/nonexistent/app.mjs')
    assert.match((await worker.line()).failed, /Cannot find module '\/nonexistent\/app\.mjs'/)
    assert.equal(await worker.exit(), 1)
  })

  test('is not loaded if the hello has another version', async () => {
    const worker = start('', { hello: { version: 2 } })
    const ours = 'this library uses version 1; use the library that comes with the server'
    assert.deepEqual(await worker.line(), {
      failed: `the server uses version 2 of the worker protocol, but ${ours}`
    })
    assert.equal(await worker.exit(), 1)
  })
})

describe('a self-test', () => {
  const TEST = { links: 0, hello: { test: true } }

  test('runs without links and without start', async () => {
    const worker = await startReady(`
      import { app, NotRunning } from 'quickio'
      app.event('/a', () => 1)
      app.start(() => { throw new Error('not for a test') })
      app.selfTest(async () => { await null; console.log('tested') })
      app.selfTest(() => {
        try {
          app.broadcast('/a')
        } catch (error) {
          if (!(error instanceof NotRunning)) throw error
        }
      })`, TEST)
    assert.equal(worker.manifest.events.length, 1)
    assert.deepEqual(await worker.line(), { tested: true })
    assert.equal(await worker.exit(), 0)
    assert.equal(worker.stdout, 'tested\n')
  })

  test('reports why it fails', async () => {
    const source = `import { app } from 'quickio'\napp.selfTest(async () => { throw new Error('broken') })`
    const worker = await startReady(source, TEST)
    const { failed, files } = await worker.line()
    assert.deepEqual([failed, files.length > 0], ['Error: broken (app.mjs, line 2)', true])
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /^Error: broken\n/)
  })

  test('of the chat example passes', async () => {
    const worker = startFile(CHAT, TEST)
    const paths = (await worker.ready()).events.map(({ path }) => path)
    assert.deepEqual(paths, ['/chat/room', '/chat/history', '/chat/tell', '/chat/stats'])
    assert.deepEqual(await worker.line(), { tested: true })
    assert.equal(await worker.exit(), 0)
  })
})

describe('without a server', () => {
  const quickio = createRequire(import.meta.url)(fileURLToPath(new URL('index.cjs', PACKAGE)))
  const { app, Answer, AlreadyAnswered, BadData, Client, Json, NotRunning, Refusal } = quickio

  test('import and require return the same objects', async () => {
    const imported = await import(new URL('index.js', PACKAGE))
    assert.deepEqual(Object.keys(imported).sort(), Object.keys(quickio).sort())
    for (const name of Object.keys(imported)) assert.equal(imported[name], quickio[name])
  })

  test('handlers can be called', () => {
    const registration = app.event('/unit//test/', { children: true }, ({ data }) => data + 1).on(() => true)
    assert.deepEqual([registration.path, registration.children], ['/unit/test', true])
    assert.equal(registration.handler({ data: 1 }), 2)
    assert.equal(registration.onHook(), true)
    assert.deepEqual([app.name, app.instance, app.instances, app.settings, app.now()], ['', 0, 1, {}, 0])
    app.after(1, () => {}).cancel()
  })

  test('nothing can be sent', () => {
    assert.throws(() => app.broadcast('/a', 1), NotRunning)
    assert.throws(() => new Client(), TypeError)
  })

  test('mistakes throw at once', async () => {
    app.event('/taken')
    const cyclic = {}
    cyclic.self = cyclic
    const mistakes = [
      [() => app.event('no-slash'), RangeError],
      [() => app.event('/'), RangeError],
      [() => app.event('/!?'), RangeError],
      [() => app.event(`/${'x'.repeat(1024)}`), RangeError],
      [() => app.event(5), TypeError],
      [() => app.event('/taken/'), RangeError],
      [() => app.event('/qio'), RangeError],
      [() => app.event('/qio/x'), RangeError],
      [() => app.event('/x', {}, 5), TypeError],
      [() => app.event('/x', { children: 1 }), TypeError],
      [() => app.event('/x', 5), TypeError, /the options of event must be an object, not number/],
      [() => app.event('/x', () => {}, {}), TypeError, /the options of event must be an object, not function/],
      [() => app.event('/x', { child: true }), TypeError, /event has no option child: use children, /],
      [() => app.event('/no', { subscriptions: false }).on(() => true), Error],
      [() => app.event('/two').on(() => true).on(() => true), Error],
      [() => app.event('/three').off(1), TypeError],
      [() => app.broadcast('x'), RangeError],
      [() => app.broadcast('/x', NaN), TypeError],
      [() => app.broadcast('/x', { a: -Infinity }), TypeError],
      [() => app.broadcast('/x', cyclic), TypeError],
      [() => app.broadcast('/x', Promise.resolve(1)), TypeError],
      [() => app.send({}, '/x', 1), TypeError],
      [() => app.send(undefined, '/x', 1, { callback: 1 }), TypeError],
      [() => app.send(undefined, '/x', 1, { dropped() {} }), TypeError],
      [() => app.send({}, '/x', 1, () => {}), TypeError, /the options of send must be an object, not function/],
      [() => app.send({}, '/x', 1, { calback() {} }), TypeError, /send has no option calback/],
      [() => app.broadcast('/x', 'x'.repeat(16 * 1024 * 1024)), RangeError, /the data has 16777218 bytes/],
      [() => app.broadcast('/x', 'é'.repeat(8 * 1024 * 1024)), RangeError, /the data has 16777218 bytes/],
      [() => app.close('0.1.2'), TypeError],
      [() => app.move({}, ''), TypeError],
      [() => app.move({}, 'é'.repeat(32 * 1024 + 1)), RangeError, /the address has 65538 bytes; at most 65536/],
      [() => app.after('1', () => {}), TypeError],
      [() => app.after(-1, () => {}), RangeError],
      [() => app.after(NaN, () => {}), RangeError],
      [() => app.after(10 * 365 * 24 * 3600 + 1, () => {}), RangeError],
      [() => app.every(0, () => {}), RangeError],
      [() => app.every(1), TypeError],
      [() => app.log('loud', 'x'), RangeError],
      [() => app.start(), TypeError],
      [() => app.gone(1), TypeError],
      [() => new Answer(1, { callback: 1 }), TypeError],
      [() => new Answer(1, () => {}), TypeError, /the options of Answer must be an object, not function/],
      [() => new Answer(1, { dropped() {} }), TypeError, /Answer has no option dropped/],
      [() => new Json(`"${'x'.repeat(16 * 1024 * 1024)}"`), RangeError, /the data has 16777218 bytes/],
      [() => new Refusal(404, 'x'.repeat(64 * 1024 + 1)), RangeError, /the message has 65537 bytes; at most 65536/],
      [() => new Json('{'), SyntaxError],
      [() => new Json(1), TypeError],
      [() => new Refusal(200, 'x'), RangeError],
      [() => new Refusal(0), RangeError],
      [() => new Refusal(65536), RangeError],
      [() => new Refusal('404'), TypeError],
      [() => new Refusal(404, 5), TypeError],
      [() => new Refusal(404, 'x', NaN), TypeError]
    ]
    for (const [mistake, error, message = /./] of mistakes) {
      const isExpected = (thrown) => thrown instanceof error && message.test(thrown.message)
      assert.throws(mistake, isExpected, String(mistake))
    }
    await assert.rejects(app.ask({}, '/x'), TypeError)
    assert.ok(new BadData() instanceof Refusal)
    assert.ok(new AlreadyAnswered() instanceof Error)
  })

  test('the runner reports that the server starts it', () => {
    const env = { PATH: process.env.PATH }
    const runner = fileURLToPath(new URL('runner.mjs', PACKAGE))
    const run = () => execFileSync(process.execPath, [runner], { env, stdio: 'pipe' })
    assert.throws(run, ({ status, stderr }) => status === 2 && /is started by the server/.test(stderr))
  })
})
