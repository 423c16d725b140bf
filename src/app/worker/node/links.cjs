// A link: the socket that joins the worker with one shard of the server.

'use strict'

const net = require('node:net')
const { Numbered } = require('./callbacks.cjs')
const { Clients } = require('./client.cjs')
const { Frames, HAS_MESSAGE, Outbox, TO_SERVER, Violation } = require('./wire.cjs')
const { end, run } = require('./work.cjs')

const READ_BYTES = 256 * 1024
/** What is handed to the kernel at once, so that it can be seen how it takes it. */
const PIECE_BYTES_MAX = 256 * 1024
/** More than this must not wait to be sent. */
const UNWRITTEN_BYTES_MAX = 64 * 1024 * 1024
/** In so many seconds the server reads something while it is in its senses. */
const STALLED_SECONDS_MAX = 10

class Link {
  #socket
  #frames
  #output
  #outbox = new Outbox((bytes) => this.#output.write(bytes))
  #callbacks = new Numbered()
  #isFlushDue = false
  #flush = () => {
    this.#isFlushDue = false
    // While the kernel takes nothing, what comes is gathered: many small pieces in a queue would cost far more memory.
    if (this.#output.unwritten === 0) this.#outbox.flush()
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
    this.#output = new Output(this.#socket, this.#flush)
    this.#socket.on('error', (error) => {
      // Behind the end the server may close the rest, too: what is still said then nobody waits for.
      if (this.isEnded) this.#output.close()
      else on.broken(error)
    })
    this.#socket.on('end', () => {
      this.isEnded = true
      if (this.#frames.isPartial) return on.broken(new Violation('a link ended within a frame'))
      // Nobody can answer them any more, and somebody may wait.
      for (const callback of this.#callbacks.takeAll()) drop(callback)
      on.ended(this)
    })
  }

  /** Throws where data that the application would send is too much for what waits already. */
  checkRoom(data) {
    const waits = this.#output.unwritten + this.#outbox.used
    if (waits + 3 * data.length <= UNWRITTEN_BYTES_MAX || waits + Buffer.byteLength(data) <= UNWRITTEN_BYTES_MAX) return
    throw new RangeError('more than 64 MiB wait to be sent: give way, by await, before you send more')
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
    this.#output.end(fn)
  }

  /** Once for all that is put meanwhile, and before the process waits for anything. */
  #flushSoon() {
    if (this.#isFlushDue) return
    this.#isFlushDue = true
    process.nextTick(this.#flush)
  }
}

/** Writes to a socket, piece after piece. */
class Output {
  #socket
  #drained
  #queue = []
  #queuedBytes = 0
  #takenPieces = 0
  #watch = null
  #ended = null
  #isClosed = false
  #taken = () => {
    this.#takenPieces++
    this.#writeMore()
    if (this.unwritten === 0) this.#drained()
  }

  /** `drained()` is called each time that the kernel has taken everything. */
  constructor(socket, drained) {
    this.#socket = socket
    this.#drained = drained
  }

  /** Bytes that the kernel has not taken. */
  get unwritten() {
    return this.#queuedBytes + this.#socket.writableLength
  }

  /** Whether bytes that are lent may be overwritten at once: the kernel has taken all of them. */
  write(bytes) {
    if (this.#isClosed) return true
    if (bytes.length <= PIECE_BYTES_MAX && this.unwritten === 0) {
      this.#socket.write(bytes, this.#taken)
      return this.#socket.writableLength === 0
    }
    this.#queue.push(bytes)
    this.#queuedBytes += bytes.length
    this.#writeMore()
    const { unwritten } = this
    if (unwritten > UNWRITTEN_BYTES_MAX) this.#watchServer()
    return unwritten === 0
  }

  /** Ends this side behind what was written. */
  end(fn) {
    if (this.#isClosed) return fn()
    this.#ended = fn
    this.#writeMore()
  }

  /** Nobody reads any more. */
  close() {
    this.#isClosed = true
    this.#queue = []
    this.#queuedBytes = 0
    const ended = this.#ended
    this.#ended = null
    ended?.()
  }

  #writeMore() {
    while (this.#queue.length > 0 && this.#socket.writableLength === 0) {
      const [bytes] = this.#queue
      const piece = bytes.subarray(0, PIECE_BYTES_MAX)
      if (piece.length === bytes.length) this.#queue.shift()
      else this.#queue[0] = bytes.subarray(PIECE_BYTES_MAX)
      this.#queuedBytes -= piece.length
      this.#socket.write(piece, this.#taken)
    }
    if (this.#queue.length > 0 || this.#ended === null) return
    this.#socket.end(this.#ended)
    this.#ended = null
  }

  /** Gives the server up where it reads nothing. Turns are counted: an application that gives way to nobody for long
   * has but one turn, in which nothing could be taken. */
  #watchServer() {
    if (this.#watch !== null) return
    let before = this.#takenPieces
    let seconds = 0
    this.#watch = setInterval(() => {
      const { unwritten } = this
      seconds = before === this.#takenPieces ? seconds + 1 : 0
      before = this.#takenPieces
      if (unwritten <= UNWRITTEN_BYTES_MAX) {
        clearInterval(this.#watch)
        this.#watch = null
      } else if (seconds >= STALLED_SECONDS_MAX) {
        process.stderr.write(`the server does not read: ${unwritten} bytes wait for it\n`)
        process.exit(1)
      }
    }, 1000)
  }
}

function drop(callback) {
  if (callback.dropped !== undefined) run(callback.what, callback.dropped)
}

module.exports = { Link }
