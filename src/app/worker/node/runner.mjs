// Starts a worker: `node runner.mjs`, with the descriptor of the control socket in QUICKIO_WORKER.
//
// Versions of Node that are too old for the other files must be able to parse this one, in order to report that.

import { spawn } from 'child_process'
import fs from 'fs'
import * as module from 'module'
import { fileURLToPath } from 'url'
import { MessageChannel, receiveMessageOnPort } from 'worker_threads'

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
  require('./worker.cjs').start(CONTROL_FD, resolved)
} else {
  restartWithLoader()
}

/** Makes `quickio` resolve to this package. Returns a function that returns the URLs of all other modules resolved. */
function hookImport() {
  const esModule = new URL('./index.js', import.meta.url).href
  const commonJs = new URL('./index.cjs', import.meta.url).href
  const urls = []
  if (module.registerHooks) {
    const resolve = (specifier, context, next) => {
      if (specifier !== 'quickio') {
        const found = next(specifier, context)
        urls.push(found.url)
        return found
      }
      const isRequired = context.conditions.includes('require')
      return isRequired
        ? { url: commonJs, format: 'commonjs', shortCircuit: true }
        : { url: esModule, format: 'module', shortCircuit: true }
    }
    module.registerHooks({ resolve })
    return () => urls
  }
  hookRequire(fileURLToPath(commonJs))
  if (!module.register) {
    globalThis[Symbol.for('quickio.resolved')] = urls
    showWarnings()
    return () => urls
  }
  const { port1, port2 } = new MessageChannel()
  port1.unref()
  module.register(HOOKS, { data: { port: port2 }, transferList: [port2] })
  return () => {
    for (let message; (message = receiveMessageOnPort(port1)); ) urls.push(message.message)
    return urls
  }
}

function hookRequire(file) {
  const { Module } = module
  const resolveFilename = Module._resolveFilename
  Module._resolveFilename = function (request, ...rest) {
    return request === 'quickio' ? file : resolveFilename.call(this, request, ...rest)
  }
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

/** Prints the application's warnings. Node's own are off, because Node warns about the flag on each start. */
function showWarnings() {
  process.on('warning', ({ name, message }) => {
    if (!/loader/i.test(message)) process.stderr.write(`${name}: ${message}\n`)
  })
}
