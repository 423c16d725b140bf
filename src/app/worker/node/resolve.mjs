// Makes `import 'quickio'` and `require('quickio')` find this package, for scripts in any folder.
//
// Versions of Node that are too old for the other files must be able to parse this one.

import * as module from 'module'
import { fileURLToPath } from 'url'
import * as threads from 'worker_threads'

const { MessageChannel, receiveMessageOnPort } = threads
const HOOKS = new URL('./hooks.mjs', import.meta.url).href
/** The module that threads and forked processes of the application load first. */
const CHILD = new URL('./child.mjs', import.meta.url).href

/** Makes `quickio` resolve to this package. Returns a function that returns the URLs of all other modules resolved. */
export function hookImport() {
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

/** Lets threads (`worker_threads`) and forked processes (`child_process.fork`) of this process find the package, too.
 * There is no server for them: the package has its types, and functions that need a server throw `NotRunning`. */
export function hookChildren() {
  if (!module.registerHooks && !module.register) return // this version has no --import
  // The default arguments of `fork`.
  process.execArgv = [...process.execArgv, '--import', CHILD]
  const { Worker } = threads.default
  threads.default.Worker = class extends Worker {
    constructor(file, options) {
      super(file, { ...options, execArgv: withHook(options?.execArgv ?? process.execArgv) })
    }
  }
  Object.defineProperty(threads.default.Worker, 'name', { value: 'Worker' })
  module.syncBuiltinESMExports()
}

function withHook(args) {
  return !Array.isArray(args) || args.includes(CHILD) ? args : [...args, '--import', CHILD]
}

/** Prints the application's warnings. Node's own are off, because Node warns about the flag on each start. */
function showWarnings() {
  process.on('warning', ({ name, message }) => {
    if (!/loader/i.test(message)) process.stderr.write(`${name}: ${message}\n`)
  })
}
