// What applications throw, and what is thrown at them.

'use strict'

const { encode } = require('./json.cjs')
const { TEXT_BYTES_MAX, bounded } = require('./wire.cjs')

const OK = 200
const CODE_MAX = 65_535

/** An error answer: thrown by a handler, it is what the client gets. It is no fault of the application's. */
class Refusal extends Error {
  constructor(code, message = null, data = null) {
    checkCode(code)
    checkMessage(message)
    super(message ?? `code ${code}`)
    this.name = 'Refusal'
    this.code = code
    this.data = data
    // What the client gets as `err_msg`; an Error's own message cannot be null.
    this.text = message
    encode(data) // what cannot be JSON is the caller's mistake, and is told here
  }
}

/** What a client sent is no JSON. */
class BadData extends Refusal {
  constructor() {
    super(400, 'invalid JSON')
    this.name = 'BadData'
  }
}

/** It was answered before. */
class AlreadyAnswered extends Error {
  constructor(message = 'it was answered before') {
    super(message)
    this.name = 'AlreadyAnswered'
  }
}

/** A callback will never be answered: its time was over, its client has gone, or has answered what is no JSON. Let
 * through, it answers 500, and is not logged: clients that say nothing must not fill the log. */
class Dropped extends Refusal {
  constructor() {
    super(500)
    this.name = 'Dropped'
    this.message = 'it will never be answered'
  }
}

/** There is no server to send anything to: not yet, or not at all. */
class NotRunning extends Error {
  constructor(message = 'the application is not running in a server (yet)') {
    super(message)
    this.name = 'NotRunning'
  }
}

/** Throws where a number is no code of an error. */
function checkCode(code) {
  if (!Number.isInteger(code)) throw new TypeError('a code is a whole number')
  if (code < 1 || code > CODE_MAX || code === OK) {
    throw new RangeError(`the code of an error is 1 to ${CODE_MAX}, but not ${OK}: ${code}`)
  }
}

/** Throws where something cannot be the message of an error. */
function checkMessage(message) {
  if (message === null) return
  if (typeof message !== 'string') throw new TypeError('a message is a string, or null')
  bounded('a message', message, TEXT_BYTES_MAX)
}

/** Answers options. Throws where they are none, or one of them is none that is known. */
function checkOptions(of, options, ...known) {
  if (options === undefined || options === null) return {}
  if (typeof options !== 'object') throw new TypeError(`the options of ${of} are an object, not a ${typeof options}`)
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw new TypeError(`${of} has no option ${name}: there is ${known.join(', ')}`)
  }
  return options
}

module.exports = {
  Refusal,
  BadData,
  AlreadyAnswered,
  Dropped,
  NotRunning,
  OK,
  checkCode,
  checkMessage,
  checkOptions
}
