// Asynchronous contexts, threads and processes of the application, and values that no text can show.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { ADA, NODE, RUNNER, ask, assertBytes, startApp, stop } from '../support/library.mjs'
import { TO_WORKER, Worker, answer, event, frame, makeFolder, refusal } from '../support/server.mjs'

const STORE = `
  import { AsyncLocalStorage } from 'node:async_hooks'
  const [own, ofScript, ofStart] = [new AsyncLocalStorage(), new AsyncLocalStorage(), new AsyncLocalStorage()]
  ofScript.enterWith('script')
  app.start(() => ofStart.enterWith('start'))
  const seen = []
  const all = () => [own.getStore() ?? null, ofScript.getStore() ?? null, ofStart.getStore() ?? null]`

describe('each function has an asynchronous context of its own', () => {
  const base = '[null,"script","start"]'
  const handlers = [
    ['plain', `() => { const found = all(); own.enterWith('leaked'); ofScript.enterWith('leaked'); return found }`],
    ['async', `async () => { const found = all(); own.enterWith('leaked'); ofStart.enterWith('leaked'); await null; return found }`]
  ]
  for (const [kind, handler] of handlers) {
    test(`also ${kind} handlers`, async () => {
      const worker = await startApp(`${STORE}\napp.event('/a', ${handler})`)
      for (const request of [1, 2, 3]) assertBytes(await ask(worker, { request }), answer(request, base))
      // Several events that arrive in one piece.
      worker.links[0].send(event({ request: 4, client: ADA }), event({ request: 5, client: ADA }))
      for (const request of [4, 5]) assertBytes(await worker.links[0].frame(), answer(request, base))
      await stop(worker)
    })
  }

  test('which what it calls has too', async () => {
    const worker = await startApp(`${STORE}
      app.event('/a', async () => {
        own.enterWith('mine')
        await new Promise((resolve) => setTimeout(resolve, 1))
        return all()
      })`)
    assertBytes(await ask(worker, {}), answer(1, '["mine","script","start"]'))
    await stop(worker)
  })

  test('also hooks, callbacks and timers', async () => {
    const worker = await startApp(`${STORE}
      const note = (what) => { seen.push([what, ...all()]); own.enterWith(what) }
      app.event('/a', () => {
        own.enterWith('handler')
        app.after(0, () => note('timer'))
        return new Answer(null, { callback: () => note('callback') })
      }).on(() => { note('on'); return true }).off(() => note('off'))
      app.gone(() => note('gone'))
      app.event('/seen', () => seen)
      app.event('/watch', ({ client }) => { client.data.x = 1 })`)
    const [link] = worker.links
    link.send(event({ request: 1, client: ADA }))
    const [timer, offered] = [await link.frame(), await link.frame()]
    link.send(
      frame(TO_WORKER.TIMER, { number: timer.readUInt32BE(12) }),
      frame(TO_WORKER.REPLY, { flags: 1, request: 2, number: offered.readUInt32BE(12), client: ADA }),
      frame(TO_WORKER.ON, { request: 3, client: ADA }),
      frame(TO_WORKER.OFF, { client: ADA }),
      event({ request: 4, number: 2, client: ADA }),
      frame(TO_WORKER.GONE, { client: ADA }),
      event({ request: 5, number: 1, client: ADA })
    )
    let last
    do last = await link.frame()
    while (last.readUInt32BE(8) !== 5)
    const seen = JSON.parse(last.subarray(40).toString())
    assert.deepEqual(seen.map(([what]) => what).sort(), ['callback', 'gone', 'off', 'on', 'timer'])
    for (const [what, ...stores] of seen) assert.deepEqual(stores, [null, 'script', 'start'], what)
    await stop(worker)
  })
})

describe('threads and forked processes', () => {
  const child = `
    import { app, Json, NotRunning } from 'quickio'
    import { parentPort } from 'node:worker_threads'
    const tell = (text) => (parentPort ? parentPort.postMessage(text) : process.send(text))
    try {
      app.broadcast('/a', new Json('1'))
    } catch (error) {
      tell(error instanceof NotRunning ? 'no server' : error.message)
    }`
  const starts = [
    ['thread', `new Worker(new URL('child.mjs', import.meta.url))`],
    ['thread with arguments of its own', `new Worker(new URL('child.mjs', import.meta.url), { execArgv: ['--no-warnings'] })`],
    ['process', `fork(new URL('child.mjs', import.meta.url))`]
  ]
  for (const [kind, start] of starts) {
    test(`find the package in a ${kind}`, async () => {
      const worker = await startApp(
        `import { Worker } from 'node:worker_threads'
        import { fork } from 'node:child_process'
        app.event('/a', () => new Promise((resolve) => {
          const child = ${start}
          child.on('message', resolve)
          child.on('error', (error) => resolve(error.stack))
        }))`,
        { files: { 'child.mjs': child } }
      )
      assertBytes(await ask(worker, {}), answer(1, '"no server"'))
      await stop(worker)
    })
  }
})

describe('values that no text can show', () => {
  const thrown = [
    `Object.assign(new Error('x'), { [Symbol.for('nodejs.util.inspect.custom')]() { throw new Error('y') } })`,
    `Object.defineProperty(new Error('x'), 'message', { get() { throw new Error('y') } })`,
    `Object.defineProperty(new Error('x'), 'stack', { get() { throw new Error('y') } })`,
    `Object.defineProperty(new Error('x'), 'name', { value: Symbol('z') })`,
    `new Proxy(new Error('x'), { getPrototypeOf() { throw new Error('y') }, get() { throw new Error('y') } })`,
    `{ toString() { throw new Error('y') }, [Symbol.for('nodejs.util.inspect.custom')]() { throw null } }`,
    `Object.create(null)`,
    `Object.assign(new Error('\\ud800'), { cause: '\\udc00\\0' })`
  ]
  for (const value of thrown) {
    test(`do not end the worker: ${value}`, async () => {
      const worker = await startApp(`
        app.event('/throw', () => { throw ${value} })
        app.event('/reject', async () => { throw ${value} })
        app.event('/forget', () => { Promise.reject(${value}) })
        app.event('/ok', () => 'ok').off(() => { throw ${value} })`)
      assertBytes(await ask(worker, {}), refusal(1, 500))
      assertBytes(await ask(worker, { request: 2, number: 1 }), refusal(2, 500))
      assertBytes(await ask(worker, { request: 3, number: 2 }), answer(3, ''))
      worker.links[0].send(frame(TO_WORKER.OFF, { number: 3, client: ADA }))
      assertBytes(await ask(worker, { request: 4, number: 3 }), answer(4, '"ok"'))
      await stop(worker, /error in the handler of \/throw: (.|\n)*error in a promise that nothing awaits: /)
    })
    test(`are reported as the failure of a start: ${value}`, async () => {
      const worker = new Worker(NODE, [RUNNER], join(makeFolder({ 'app.mjs': `throw ${value}` }), 'app.mjs'))
      const { failed } = await worker.line()
      assert.equal(typeof failed, 'string')
      assert.equal(await worker.exit(), 1)
    })
  }
})

test('texts from clients can be printed and logged, whatever they are', async () => {
  const worker = await startApp(`
    app.event('/a', ({ data }) => {
      console.log(data)
      console.error('%s', data)
      app.log('info', data)
      app.broadcast('/b', data)
      return data
    })`)
  for (const [nth, text] of ['"\\ud800"', '"\\u0000\\u001b[31m\\n\\r"', '"\\udc00\\ud800"'].entries()) {
    worker.links[0].send(event({ request: nth, client: ADA, data: text }))
    const { log, text: line } = await worker.line()
    assert.deepEqual([log, line], ['info', JSON.parse(text)])
  }
  worker.kill()
})
