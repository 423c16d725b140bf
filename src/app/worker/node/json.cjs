// From values to JSON texts. The other way is JSON.parse.

'use strict'

const { inspect } = require('node:util')
const { DATA_BYTES_MAX, bounded } = require('./wire.cjs')

let textOf
let unchecked

/** JSON text that is passed on as it is. */
class Json {
  #text

  constructor(text) {
    if (text === UNCHECKED) return
    if (typeof text !== 'string') throw new TypeError('JSON text is a string')
    JSON.parse(text)
    this.#text = bounded('data', text, DATA_BYTES_MAX)
  }

  get text() {
    return this.#text
  }

  toString() {
    return this.#text
  }

  /** Inside of other data it is what it says. */
  toJSON() {
    return JSON.parse(this.#text)
  }

  static {
    textOf = (data) => (#text in data ? data.#text : undefined)
    unchecked = (text) => {
      const json = new Json(UNCHECKED)
      json.#text = text
      return json
    }
  }
}

const UNCHECKED = Symbol('unchecked')

/** A value as JSON text. Throws where it cannot be any, NaN included: JSON.stringify would make it null. Throws, too,
 * where it is more than a frame takes. */
function encode(data) {
  if (data === undefined || data === null) return 'null'
  if (typeof data === 'object') {
    const text = textOf(data)
    if (text !== undefined) return bounded('data', text, DATA_BYTES_MAX)
    if (typeof data.then === 'function') throw new TypeError('a promise is no data: await it first')
  }
  const text = JSON.stringify(data)
  if (text === undefined) throw new TypeError(`${inspect(data, { depth: 0 })} cannot be JSON`)
  // Only numbers that are none become a null that was not there; few texts have any, so few are looked at again.
  if (text.includes('null')) JSON.stringify(data, checkNumber)
  return bounded('data', text, DATA_BYTES_MAX)
}

function checkNumber(_key, value) {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`${value} cannot be JSON`)
  return value
}

module.exports = { Json, encode, unchecked }
