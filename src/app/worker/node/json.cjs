// Encoding of values as JSON texts.

'use strict'

const { inspect } = require('node:util')
const { DATA_BYTES_MAX, checkSize } = require('./wire.cjs')

let textOf
let unchecked

/** A JSON text that is sent unchanged. */
class Json {
  #text

  constructor(text) {
    if (text === UNCHECKED) return
    if (typeof text !== 'string') throw new TypeError('a JSON text must be a string')
    JSON.parse(text)
    this.#text = checkSize('the data', text, DATA_BYTES_MAX)
  }

  get text() {
    return this.#text
  }

  toString() {
    return this.#text
  }

  /** Returns the parsed value, which `JSON.stringify` uses if this object is part of other data. */
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

/** Makes the constructor skip the validation. */
const UNCHECKED = Symbol('unchecked')

/** Returns a value as JSON text. Throws if it has no JSON form or is too long for a frame. NaN and infinities throw,
 * too; `JSON.stringify` would turn them into null. */
function encode(data) {
  if (data === undefined || data === null) return 'null'
  if (typeof data === 'object') {
    const text = textOf(data)
    if (text !== undefined) return checkSize('the data', text, DATA_BYTES_MAX)
    if (typeof data.then === 'function') throw new TypeError('a promise cannot be data: await it first')
  }
  const text = JSON.stringify(data)
  if (text === undefined) throw new TypeError(`${inspect(data, { depth: 0 })} cannot be JSON`)
  // NaN and infinities appear as null. Few texts contain null, so few values are walked a second time.
  if (text.includes('null')) JSON.stringify(data, checkNumber)
  return checkSize('the data', text, DATA_BYTES_MAX)
}

function checkNumber(_key, value) {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`${value} cannot be JSON`)
  return value
}

module.exports = { Json, encode, unchecked }
