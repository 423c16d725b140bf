// The control socket: one JSON object per line, in both directions.

'use strict'

const fs = require('node:fs')
const net = require('node:net')
const { ProtocolError } = require('./wire.cjs')

const LINE_BYTES_MAX = 1024 * 1024
const LINE_FEED = 10

class Control {
  #fd
  #socket
  #pieces = []
  #bytes = 0

  /** Calls `on.line(object)` for each line, `on.ended()` at the end, and `on.failed(error)`, after which it stops. */
  constructor(fd, on) {
    this.#fd = fd
    this.#socket = new net.Socket({ fd, readable: true, writable: true })
    this.#socket.on('data', (bytes) => {
      try {
        for (const line of this.#lines(bytes)) on.line(parse(line))
      } catch (error) {
        this.#socket.pause()
        on.failed(error)
      }
    })
    this.#socket.on('error', on.ended)
    this.#socket.on('end', on.ended)
  }

  /** Sends a line. `sent()` is called when the kernel has accepted it. */
  send(object, sent) {
    this.#socket.write(formatLine(object), sent)
  }

  /** Sends a line synchronously, for a process that is exiting. */
  sendLast(object) {
    try {
      if (this.#socket.writableLength === 0) fs.writeSync(this.#fd, formatLine(object))
    } catch {
      // The server notices that the process has exited.
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
    if (this.#bytes > LINE_BYTES_MAX) {
      throw new ProtocolError(`a line of the control socket is longer than ${LINE_BYTES_MAX} bytes`)
    }
    this.#pieces.push(bytes.subarray(at))
  }
}

function parse(line) {
  try {
    const object = JSON.parse(line)
    if (typeof object === 'object' && object !== null) return object
  } catch {
    // Reported below.
  }
  throw new ProtocolError(`a line of the control socket is not a JSON object: ${line.slice(0, 200)}`)
}

function formatLine(object) {
  return `${JSON.stringify(object)}\n`
}

module.exports = { Control }
