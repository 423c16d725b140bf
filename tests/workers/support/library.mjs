// Helpers of the suites, mostly of those for the JavaScript library. Frames are compared byte for byte.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker, event, makeFolder, startReady } from './server.mjs'

/** Clients: shard, slot and generation. */
export const ADA = [0, 7, 3]
export const BOB = [1, 9, 0xffffffff]

export const RUNNER = fileURLToPath(new URL('../../../src/app/worker/node/runner.mjs', import.meta.url))
export const NODE = process.env.QUICKIO_TEST_NODE ?? process.execPath
/** A module for `--import` that makes Node behave like a version that needs a flag for module hooks. */
export const OLD_NODE = `data:text/javascript,${encodeURIComponent(`
  import module from 'node:module'
  module.register = module.registerHooks = undefined
  module.syncBuiltinESMExports()`)}`

/** Returns a script with the usual imports. */
export const withImports = (text) => `import { app, Answer, Json, NEVER, Refusal, Dropped } from 'quickio'\n${text}`

/** Starts a script with the usual imports, and waits until it is ready. */
export const startApp = (text, options) => startReady(withImports(text), options)

/** Starts a script with another command than the usual one, and waits until it is ready. */
export async function startCommand([command, ...args], source) {
  const worker = new Worker(command, args, join(makeFolder({ 'app.mjs': source }), 'app.mjs'))
  await worker.ready()
  return worker
}

/** Sends an event on link 0, and returns the next frame. */
export async function ask(worker, rest) {
  worker.links[0].send(event({ request: 1, client: ADA, ...rest }))
  return worker.links[0].frame()
}

/** Ends a worker, which has to exit with 0. Its stderr must be the given text, or match the given pattern. */
export async function stop(worker, stderr = '') {
  assert.equal(await worker.stop(), 0, worker.stderr)
  if (stderr instanceof RegExp) assert.match(worker.stderr, stderr)
  else assert.equal(worker.stderr, stderr)
}

/** Frames as text with one character for each byte, which is easier to read in a failure than a Buffer. */
export const latin1 = (bytes) => bytes.toString('latin1')

export const assertBytes = (got, ...wanted) => assert.deepEqual(latin1(got), latin1(Buffer.concat(wanted)))

/** Asserts that these are the next frames of a link. */
export async function expectFrames(link, ...frames) {
  for (const wanted of frames) assertBytes(await link.frame(), wanted)
}
