// A link: the socket that joins the worker with one shard of the server.

'use strict'

const net = require('node:net')
const { Numbered } = require('./callbacks.cjs')
const { Clients } = require('./client.cjs')
const { Frames, HAS_MESSAGE, Outbox, TO_SERVER, Violation } = require('./wire.cjs')
const { end, run } = require('./work.cjs')

const READ_BYTES = 256 * 1024
/** More than this the server does not leave unread while it is in its senses. */
const UNWRITTEN_BYTES_MAX = 64 * 1024 * 1024

class Link {
  #socket
  #frames
  #outbox = new Outbox((bytes) => this.#write(bytes))
  #callbacks = new Numbered()
  #isFlushDue = false
  #flush = () => {
    this.#isFlushDue = false
    // While the kernel takes nothing, what comes is gathered: many small pieces in a queue would cost far more memory.
    if (this.#socket.writableLength === 0) this.#outbox.flush()
  }

  /** `on.frame(link, bytes, at, end)`, `on.ended(link)`, and `on.broken(error)`, after which nothing more comes. */
  constructor(shard, fd, on) {
    this.shard = shard
    this.clients = new Clients(shard, (client) => this.put(TO_SERVER.WATCH, 0, 0, client))
    this.isEnded = false
    this.#frames = new Frames((bytes, at, end) => on.frame(this, bytes, at, end))
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
    const callback = (length) => {
      try {
        this.#frames.feed(buffer, length)
      } catch (error) {
        on.broken(error)
        return false
      }
      return true
    }
    const onread = { buffer, callback }
    this.#socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true, onread })
    this.#socket.on('error', on.broken)
    this.#socket.on('end', () => {
      this.isEnded = true
      if (this.#frames.isPartial) return on.broken(new Violation('a link ended within a frame'))
      // Nobody can answer them any more, and somebody may wait.
      for (const callback of this.#callbacks.takeAll()) drop(callback)
      on.ended(this)
    })
  }

  /** Queues a frame. It is on its way when the function that is running now has returned. */
  put(type, flags, number, client, text = '', data = '', ms = 0) {
    this.#outbox.put(type, flags, 0, 0, number, client, text, data === 'null' ? '' : data, ms)
    this.#flushSoon()
  }

  /** Ends a request. */
  answer(request, code, number, message, data) {
    const flags = message === null ? 0 : HAS_MESSAGE
    this.#outbox.put(
      TO_SERVER.ANSWER, flags, code, request, number, null, message ?? '', data === 'null' ? '' : data, 0
    )
    this.#flushSoon()
    end()
  }

  /** The number of a callback, for the frame that offers it; 0 where its answer could not come any more. */
  offer(callback) {
    if (!this.isEnded) return this.#callbacks.add(callback)
    process.nextTick(drop, callback)
    return 0
  }

  /** A callback has come back. */
  redeem(number) {
    const callback = this.#callbacks.take(number)
    if (callback === undefined) throw new Violation(`callback ${number} is not open`)
    return callback
  }

  drop(number) {
    drop(this.redeem(number))
  }

  /** Sends what is queued, ends this side, and calls `fn`. */
  close(fn) {
    this.#outbox.flush()
    this.#socket.end(fn)
  }

  /** Once for all that is put meanwhile, and before the process waits for anything. */
  #flushSoon() {
    if (this.#isFlushDue) return
    this.#isFlushDue = true
    process.nextTick(this.#flush)
  }

  /** Whether bytes that are lent may be overwritten at once: the kernel has taken all of them. */
  #write(bytes) {
    this.#socket.write(bytes, this.#flush)
    const unwritten = this.#socket.writableLength
    if (unwritten > UNWRITTEN_BYTES_MAX) {
      process.stderr.write(`the server does not read: ${unwritten} bytes wait for it\n`)
      process.exit(1)
    }
    return unwritten === 0
  }
}

function drop(callback) {
  if (callback.dropped !== undefined) run(callback.what, callback.dropped)
}

module.exports = { Link }
