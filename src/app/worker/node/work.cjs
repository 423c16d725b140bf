// What is under way, so that a worker that is to end knows when it may; and what is said of functions that fail.

'use strict'

const { inspect } = require('node:util')

let underWay = 0
let idle = null

/** Something has begun that is to be finished before the worker ends. */
function begin() {
  underWay++
}

function end() {
  underWay--
  if (idle !== null && underWay === 0) idle()
}

/** Calls `fn` each time that nothing is under way, and now if that is so. */
function whenIdle(fn) {
  idle = fn
  if (underWay === 0) fn()
}

/** An error of the application's own goes to the server's log, with its stack, and what caused it. */
function report(what, error) {
  say(what, error instanceof Error ? inspect(error) : `${inspect(error)} was thrown`)
}

function say(what, text) {
  process.stderr.write(`${what}: ${text}\n`)
}

function isThenable(value) {
  return typeof value === 'object' && value !== null && typeof value.then === 'function'
}

/** Runs a function that nobody waits for, and reports what it throws. Answers a promise where it is not done then. */
function run(what, fn, ...args) {
  try {
    const result = fn(...args)
    if (!isThenable(result)) return undefined
    begin()
    return Promise.resolve(result)
      .catch((error) => report(what, error))
      .finally(end)
  } catch (error) {
    report(what, error)
  }
}

module.exports = { begin, end, whenIdle, report, say, isThenable, run }
