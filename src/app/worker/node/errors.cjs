// What applications throw, and what is thrown at them.

'use strict'

const { encode } = require('./json.cjs')

const OK = 200
const CODE_MAX = 65_535

/** An error answer: thrown by a handler, it is what the client gets. It is no fault of the application's. */
class Refusal extends Error {
  constructor(code, message = null, data = null) {
    checkCode(code)
    if (message !== null && typeof message !== 'string') throw new TypeError('a message is a string, or null')
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

/** A callback will never be answered: its time was over, or its client has gone. Let through, it answers 500, and is not
 * logged: clients that say nothing must not fill the log. */
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

module.exports = { Refusal, BadData, AlreadyAnswered, Dropped, NotRunning, OK }
