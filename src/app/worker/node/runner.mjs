// Starts a worker: `node runner.mjs`, with the descriptor of the control socket in QUICKIO_WORKER.
//
// Versions of Node that are too old for the other files must be able to parse this one, in order to report that.

import { spawn } from 'child_process'
import fs from 'fs'
import * as module from 'module'
import { fileURLToPath } from 'url'
import { hookChildren, hookImport } from './resolve.mjs'

const CONTROL_FD = Number(process.env.QUICKIO_WORKER || NaN)
const NODE_MAJOR_MIN = 18
const HOOKS = new URL('./hooks.mjs', import.meta.url).href
const LOADER_FLAG = '--experimental-loader'

const require = module.createRequire(import.meta.url)

if (!Number.isInteger(CONTROL_FD)) {
  process.stderr.write('quickio: runner.mjs is started by the server; run `quickio --app FILE.mjs` instead\n')
  process.exit(2)
} else if (Number(process.versions.node.split('.')[0]) < NODE_MAJOR_MIN) {
  const needed = `Node ${NODE_MAJOR_MIN} or newer is needed, but ${process.execPath} is Node ${process.version}`
  fs.writeSync(CONTROL_FD, `${JSON.stringify({ failed: `${needed}; set \`node\` to a newer one` })}\n`)
  process.exit(1)
} else if (module.registerHooks || module.register || process.execArgv.includes(LOADER_FLAG)) {
  const resolved = hookImport()
  hookChildren()
  require('./worker.cjs').start(CONTROL_FD, resolved)
} else {
  restartWithLoader()
}

/** Starts Node again with a flag, which Node 18.0 to 18.18 and 20.0 to 20.5 need for module hooks. */
function restartWithLoader() {
  const stdio = [0, 1, 2]
  for (let fd = 3; isSocket(fd); fd++) stdio.push(fd)
  const args = ['--no-warnings', LOADER_FLAG, HOOKS, fileURLToPath(import.meta.url)]
  const child = spawn(process.execPath, [...process.execArgv, ...args], { stdio })
  for (const fd of stdio.slice(3)) fs.closeSync(fd) // only the child keeps the sockets open
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {}) // this process ends when the child does
  child.on('error', ({ message }) => {
    process.stderr.write(`${message}\n`)
    process.exit(1)
  })
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code)
    process.removeAllListeners('SIGTERM')
    process.kill(process.pid, signal)
  })
}

/** Returns whether a descriptor is a socket. The descriptors of Node itself follow the inherited ones, and are none. */
function isSocket(fd) {
  try {
    return fs.fstatSync(fd).isSocket()
  } catch {
    return false
  }
}
