// Exceptions: errors that answer a client, and errors in the use of this library.

'use strict'

const { encode } = require('./json.cjs')
const { TEXT_BYTES_MAX, checkSize } = require('./wire.cjs')

const OK = 200
const CODE_MAX = 65_535

/** Thrown by a function of the application to answer the client with an error. It is not logged. */
class Refusal extends Error {
  constructor(code, message = null, data = null) {
    checkCode(code)
    checkMessage(message)
    super(message ?? `code ${code}`)
    this.name = 'Refusal'
    this.code = code
    this.data = data
    // The client gets this as `err_msg`. The `message` of an Error cannot be null.
    this.text = message
    encode(data) // throws here, at the caller's mistake, if the data cannot be JSON
  }
}

/** Thrown when a client's data is not valid JSON. The client is answered 400. */
class BadData extends Refusal {
  constructor() {
    super(400, 'invalid JSON')
    this.name = 'BadData'
  }
}

/** Thrown when a request has already been answered. */
class AlreadyAnswered extends Error {
  constructor(message = 'the request has already been answered') {
    super(message)
    this.name = 'AlreadyAnswered'
  }
}

/** Thrown when a client will never reply: it did not reply in time, has disconnected, or sent invalid JSON.
 *
 * If a function does not catch it, its client is answered 500. It is not logged: clients that do not reply must not
 * fill the log. */
class Dropped extends Refusal {
  constructor() {
    super(500)
    this.name = 'Dropped'
    this.message = 'the client will never reply'
  }
}

/** Thrown when there is no server: the script is still loading or starting, or runs without a server. */
class NotRunning extends Error {
  constructor(message = 'there is no server: call this from a handler, hook, callback or timer that the server runs') {
    super(message)
    this.name = 'NotRunning'
  }
}

/** Throws if a number is not an error code. */
function checkCode(code) {
  if (!Number.isInteger(code)) throw new TypeError('an error code must be an integer')
  if (code < 1 || code > CODE_MAX || code === OK) {
    throw new RangeError(`${code} is not an error code: use 1 to ${CODE_MAX}, except ${OK}`)
  }
}

/** Throws if a value cannot be the message of an error. */
function checkMessage(message) {
  if (message === null) return
  if (typeof message !== 'string') throw new TypeError('the message must be a string or null')
  checkSize('the message', message, TEXT_BYTES_MAX)
}

/** Returns the options of a function. Throws if they are not an object, or one of them is unknown. */
function checkOptions(of, options, ...known) {
  if (options === undefined || options === null) return {}
  if (typeof options !== 'object') throw new TypeError(`the options of ${of} must be an object, not ${typeof options}`)
  for (const name of Object.keys(options)) {
    if (!known.includes(name)) throw new TypeError(`${of} has no option ${name}: use ${known.join(', ')}`)
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
