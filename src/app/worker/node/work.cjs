// The count of requests and functions in progress, which have to finish before the worker ends; and reports of errors.

'use strict'

const { inspect } = require('node:util')
const { callInContext } = require('./context.cjs')

let inProgress = 0
let onIdle = null
/** Logs a text as one record. Replaced when there is a server. */
let logError = print

/** Counts work that has to finish before the worker ends. */
function beginWork() {
  inProgress++
}

/** Counts work that has finished. */
function endWork() {
  inProgress--
  if (onIdle !== null && inProgress === 0) onIdle()
}

/** Calls `fn` each time no work is in progress, and now if none is. */
function whenIdle(fn) {
  onIdle = fn
  if (inProgress === 0) fn()
}

/** Has reports of errors logged by a function, instead of printed on stderr. */
function logErrorsBy(log) {
  logError = log
}

/** Logs an error of the application with its stack and cause, as one record of the level `error`. */
function report(what, error) {
  logError(`error in ${what}: ${formatThrown(error)}`)
}

/** Returns what was thrown, with its stack and cause. The application may have made it unprintable. */
function formatThrown(error) {
  try {
    return error instanceof Error ? inspect(error) : `${inspect(error)} was thrown`
  } catch {
    // Its own functions have thrown, and are not called any more.
  }
  try {
    const text = inspect(error, { customInspect: false, getters: false })
    return typeof text === 'string' ? text : 'a value that cannot be printed was thrown'
  } catch {
    return 'a value that cannot be printed was thrown'
  }
}

function print(text) {
  process.stderr.write(`${text}\n`)
}

function isThenable(value) {
  return typeof value === 'object' && value !== null && typeof value.then === 'function'
}

/** Runs a function whose result is not used, and reports its exceptions. Returns a promise if it is asynchronous. */
function run(what, fn, ...args) {
  try {
    const result = callInContext(fn, ...args)
    if (!isThenable(result)) return undefined
    beginWork()
    return Promise.resolve(result)
      .catch((error) => report(what, error))
      .finally(endWork)
  } catch (error) {
    report(what, error)
  }
}

module.exports = { beginWork, endWork, whenIdle, report, formatThrown, print, isThenable, run, logErrorsBy }
