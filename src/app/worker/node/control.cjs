// The control socket: one JSON object a line, in both directions.

'use strict'

const fs = require('node:fs')
const net = require('node:net')
const { Violation } = require('./wire.cjs')

const LINE_BYTES_MAX = 1024 * 1024
const LINE_FEED = 10

class Control {
  #fd
  #socket
  #pieces = []
  #bytes = 0

  /** `on.line(object)`, `on.ended()`, and `on.broken(error)`, after which nothing more comes. */
  constructor(fd, on) {
    this.#fd = fd
    this.#socket = new net.Socket({ fd, readable: true, writable: true })
    this.#socket.on('data', (bytes) => {
      try {
        for (const line of this.#lines(bytes)) on.line(parse(line))
      } catch (error) {
        this.#socket.pause()
        on.broken(error)
      }
    })
    this.#socket.on('error', on.ended)
    this.#socket.on('end', on.ended)
  }

  /** `sent()` is called when the line is on its way. */
  send(object, sent) {
    this.#socket.write(lineOf(object), sent)
  }

  /** For a process that ends now, and can wait for nothing. */
  sendLast(object) {
    try {
      if (this.#socket.writableLength === 0) fs.writeSync(this.#fd, lineOf(object))
    } catch {
      // The server sees that the process has ended.
    }
  }

  *#lines(bytes) {
    let at = 0
    for (let end; (end = bytes.indexOf(LINE_FEED, at)) >= 0; at = end + 1) {
      this.#pieces.push(bytes.subarray(at, end))
      const line = Buffer.concat(this.#pieces).toString()
      this.#pieces = []
      this.#bytes = 0
      yield line
    }
    if (at === bytes.length) return
    this.#bytes += bytes.length - at
    if (this.#bytes > LINE_BYTES_MAX) throw new Violation('a line of the control socket is too long')
    this.#pieces.push(bytes.subarray(at))
  }
}

function parse(line) {
  try {
    const object = JSON.parse(line)
    if (typeof object === 'object' && object !== null) return object
  } catch {
    // Said below.
  }
  throw new Violation(`a line of the control socket is no JSON object: ${line.slice(0, 200)}`)
}

function lineOf(object) {
  return `${JSON.stringify(object)}\n`
}

module.exports = { Control }
