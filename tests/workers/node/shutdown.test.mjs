// The end of a worker: regular, by signals, and by errors of the server.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ADA,
  BOB,
  NODE,
  OLD_NODE,
  RUNNER,
  ask,
  assertBytes,
  expectFrames,
  latin1,
  startApp,
  startCommand,
  stop,
  withImports
} from '../support/library.mjs'
import { FROM_WORKER, TO_WORKER, answer, event, frame } from '../support/server.mjs'

describe('shutdown', () => {
  test('waits for work in progress and for stop hooks', async () => {
    const worker = await startApp(`
      const waiting = []
      app.event('/wait', async ({ data }) => {
        await new Promise((resolve) => waiting.push(resolve))
        app.broadcast('/x', data)
        return data
      })
      app.event('/free', async () => { setTimeout(() => waiting.splice(0).forEach((free) => free()), 50) })
        .off(async ({ client }) => {
          await new Promise((resolve) => setTimeout(resolve, 20))
          app.send(client, '/off')
        })
      app.every(1, () => {})
      app.stop(async () => { await null; console.log('stopped') })
      app.stop(() => { throw new Error('in stop') })
      app.stop(() => console.log('twice'))
      setInterval(() => {}, 1000)`)
    const [link, other] = worker.links
    link.send(event({ request: 1, client: ADA, data: '1' }))
    other.send(event({ request: 2, client: BOB, data: '2' }))
    link.send(frame(TO_WORKER.OFF, { number: 1, client: ADA }))
    link.end()
    other.send(event({ request: 3, number: 1, client: BOB }))
    await expectFrames(other, answer(3, ''))
    other.end()
    const rest = [...(await link.rest()), ...(await other.rest())].map(latin1).sort()
    const broadcasts = ['1', '2'].map((data) => frame(FROM_WORKER.BROADCAST, { text: '/x', data }))
    const off = frame(FROM_WORKER.SEND, { client: ADA, text: '/off' })
    assert.deepEqual(rest, [...broadcasts, off, answer(1, '1'), answer(2, '2')].map(latin1).sort())
    assert.equal(await worker.exit(), 0)
    assert.equal(worker.stdout, 'stopped\ntwice\n')
    assert.match(worker.stderr, /^error in a function of app\.stop: Error: in stop\n/)
  })

  test('is immediate if the control socket ends', async () => {
    const worker = await startApp(`app.event('/a', () => new Promise(() => {}))`)
    worker.links[0].send(event({ request: 1 }))
    worker.control.end()
    assert.equal(await worker.exit(), 'SIGKILL')
  })

  // If this process survived, it would keep stdout open, and the test would wait for it.
  const spawning = `
    import { spawn } from 'node:child_process'
    spawn('sleep', ['1000'], { stdio: 'inherit' })
    process.on('exit', () => console.log('exit'))
    app.event('/a', () => 1)`

  test('includes the processes that it has started if the server has disappeared', async () => {
    const worker = await startApp(spawning)
    worker.control.end()
    assert.equal(await worker.exit(), 'SIGKILL')
    assert.equal(worker.stdout, 'exit\n')
  })

  test('includes them with an old Node, which is started twice', async () => {
    const worker = await startCommand([process.execPath, '--import', OLD_NODE, RUNNER], withImports(spawning))
    worker.control.end()
    assert.equal(await worker.exit(), 'SIGKILL')
    assert.equal(worker.stdout, 'exit\n')
  })

  test('does not affect a process group that is not its own', async () => {
    const shell = ['sh', '-c', '"$@"; echo "code $?"', 'sh', NODE, RUNNER]
    const worker = await startCommand(shell, withImports(`app.event('/a', () => 1)`))
    worker.control.end()
    assert.equal(await worker.exit(), 0)
    assert.equal(worker.stdout, 'code 0\n')
  })

  const commands = [['', NODE, RUNNER], [' with an old Node', process.execPath, '--import', OLD_NODE, RUNNER]]
  for (const [what, ...command] of commands) {
    test(`is not caused by SIGINT or SIGTERM${what}`, async () => {
      const worker = await startCommand(command, withImports(`app.event('/a', () => 1)`))
      for (const signal of ['SIGINT', 'SIGTERM']) process.kill(-worker.process.pid, signal)
      worker.process.kill('SIGTERM')
      await new Promise((resolve) => setTimeout(resolve, 100))
      assertBytes(await ask(worker, {}), answer(1, '1'))
      await stop(worker)
    })
  }

  test('follows an uncaught exception', async () => {
    const worker = await startApp(`app.event('/a', () => { setTimeout(() => { throw new Error('loose') }) })`)
    assertBytes(await ask(worker, {}), answer(1, ''))
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /Error: loose/)
  })

  const protocolErrors = [
    ['a short frame', [Buffer.from('0000002301000000', 'hex')], /invalid frame of 39 bytes/],
    ['a long frame', [Buffer.from('7fffffff', 'hex')], /invalid frame of 2147483651 bytes/],
    ['an unknown frame type', [frame(9)], /unknown frame type 9/],
    ['an unknown event', [event({ number: 1 })], /event number 1, but only 1 events are registered/],
    ['a text longer than its frame', [Buffer.from(event().fill(255, 28, 32))], /a text is longer than its frame/],
    ['a client of another shard', [event({ client: [1, 0, 0] })], /a client of another shard/],
    ['an unknown callback', [frame(TO_WORKER.DROPPED, { number: 1 })], /callback 1, which is not open/]
  ]
  for (const [what, bytes, message] of protocolErrors) {
    test(`follows ${what}`, async () => {
      const worker = await startApp(`app.event('/a', () => 1)`)
      worker.links[0].send(...bytes)
      assert.equal(await worker.exit(), 1)
      assert.match(worker.stderr, message)
    })
  }

  test('follows an incomplete frame', async () => {
    const worker = await startApp(`app.event('/a', () => 1)`)
    worker.links[0].send(event().subarray(0, 20))
    worker.links[0].end()
    assert.equal(await worker.exit(), 1)
    assert.match(worker.stderr, /the link ended in the middle of a frame/)
  })
})
