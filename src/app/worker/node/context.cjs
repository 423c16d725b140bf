// Asynchronous contexts (`AsyncLocalStorage`): each function that the server causes to run has one of its own.

'use strict'

const { AsyncResource } = require('node:async_hooks')

/** The context of the script and of its start functions. Null until the application serves events. */
let base = null

/** Makes the present context the one in which every function begins. */
function keepContext() {
  base = new AsyncResource('quickio', { requireManualDestroy: true })
}

/** Calls a function in a new context, which has what the script and its start functions have set. What the function
 * sets with `enterWith` is seen by what it calls, and by no other function. */
function callInContext(fn, ...args) {
  if (base === null) return fn(...args)
  // A resource that is used twice keeps what the first function has set.
  const resource = base.runInAsyncScope(makeResource)
  return resource.runInAsyncScope(fn, undefined, ...args)
}

const makeResource = () => new AsyncResource('quickio.call', { requireManualDestroy: true })

module.exports = { callInContext, keepContext }
