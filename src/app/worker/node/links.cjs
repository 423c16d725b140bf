// Links: the sockets that connect the worker with the server's shards.

'use strict'

const net = require('node:net')
const { NumberedMap } = require('./callbacks.cjs')
const { Clients } = require('./client.cjs')
const { FrameDecoder, FrameWriter, HAS_MESSAGE, ProtocolError, TO_SERVER } = require('./wire.cjs')
const { endWork, run } = require('./work.cjs')

const READ_BYTES = 256 * 1024
/** The most bytes handed to the kernel at once, so that its progress can be observed. */
const PIECE_BYTES_MAX = 256 * 1024
/** The most bytes that may wait for the server to read them. */
const UNSENT_BYTES_MAX = 64 * 1024 * 1024
/** A working server reads something within this time. */
const STALLED_SECONDS_MAX = 10

class Link {
  #socket
  #decoder
  #output
  #writer = new FrameWriter((bytes) => this.#output.write(bytes))
  #callbacks = new NumberedMap()
  #isFlushScheduled = false
  #flush = () => {
    this.#isFlushScheduled = false
    // While the kernel accepts nothing, frames are collected in the writer: a queue of many small pieces would need far
    // more memory.
    if (this.#output.unsentBytes === 0) this.#writer.flush()
  }

  /** Calls `on.frame(link, bytes, at, end)` for each frame, `on.ended(link)` at the end, and `on.failed(error)`, after
   * which it stops. */
  constructor(shard, fd, on) {
    this.shard = shard
    this.clients = new Clients(shard, (client) => this.put(TO_SERVER.WATCH, 0, 0, client))
    this.isEnded = false
    this.#decoder = new FrameDecoder((bytes, at, end) => on.frame(this, bytes, at, end))
    const buffer = Buffer.allocUnsafeSlow(READ_BYTES)
    const callback = (length) => {
      try {
        this.#decoder.feed(buffer, length)
      } catch (error) {
        on.failed(error)
        return false
      }
      return true
    }
    const onread = { buffer, callback }
    this.#socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true, onread })
    this.#output = new Output(this.#socket, this.#flush)
    this.#socket.on('error', (error) => {
      // After the end the server may also close the other direction. It does not need the remaining output then.
      if (this.isEnded) this.#output.close()
      else on.failed(error)
    })
    this.#socket.on('end', () => {
      this.isEnded = true
      if (this.#decoder.isPartial) return on.failed(new ProtocolError('the link ended in the middle of a frame'))
      // No reply can arrive, and the application may be waiting for one.
      for (const callback of this.#callbacks.takeAll()) drop(callback)
      on.ended(this)
    })
  }

  /** Throws if there is no room for data that the application wants to send. */
  checkRoom(data) {
    const unsent = this.#output.unsentBytes + this.#writer.used
    if (unsent + 3 * data.length <= UNSENT_BYTES_MAX || unsent + Buffer.byteLength(data) <= UNSENT_BYTES_MAX) return
    throw new RangeError('more than 64 MiB are waiting to be sent: use await between sends to let them be written')
  }

  /** Queues a frame. It is sent when the currently running function has returned. */
  put(type, flags, number, client, text = '', data = '', ms = 0) {
    this.#writer.put(type, flags, 0, 0, number, client, text, data === 'null' ? '' : data, ms)
    this.#scheduleFlush()
  }

  /** Queues the answer of a request, which ends the request. */
  answer(request, code, number, message, data) {
    const flags = message === null ? 0 : HAS_MESSAGE
    this.#writer.put(
      TO_SERVER.ANSWER, flags, code, request, number, null, message ?? '', data === 'null' ? '' : data, 0
    )
    this.#scheduleFlush()
    endWork()
  }

  /** Opens a callback, and returns its number for the frame that offers it. After the link's end no reply can arrive:
   * the callback is dropped and 0 returned. */
  offer(callback) {
    if (!this.isEnded) return this.#callbacks.add(callback)
    process.nextTick(drop, callback)
    return 0
  }

  /** Removes an open callback, and returns it. */
  takeCallback(number) {
    const callback = this.#callbacks.take(number)
    if (callback === undefined) throw new ProtocolError(`reply to or drop of callback ${number}, which is not open`)
    return callback
  }

  /** Handles the server's message that a callback will never get a reply. */
  drop(number) {
    drop(this.takeCallback(number))
  }

  /** Sends everything queued, ends this side, and calls `fn`. */
  close(fn) {
    this.#writer.flush()
    this.#output.end(fn)
  }

  /** Schedules one flush for all frames queued until then, before the process waits for I/O. */
  #scheduleFlush() {
    if (this.#isFlushScheduled) return
    this.#isFlushScheduled = true
    process.nextTick(this.#flush)
  }
}

/** The output of a socket, handed to the kernel piece by piece. */
class Output {
  #socket
  #onDrained
  #queue = []
  #queuedBytes = 0
  #acceptedPieces = 0
  #stallTimer = null
  #onEnded = null
  #isClosed = false
  #onAccepted = () => {
    this.#acceptedPieces++
    this.#writeMore()
    if (this.unsentBytes === 0) this.#onDrained()
  }

  /** `onDrained()` is called each time the kernel has accepted everything. */
  constructor(socket, onDrained) {
    this.#socket = socket
    this.#onDrained = onDrained
  }

  /** The number of bytes that the kernel has not accepted. */
  get unsentBytes() {
    return this.#queuedBytes + this.#socket.writableLength
  }

  /** Writes bytes. Returns whether the kernel has accepted all of them, so that the caller may reuse the buffer. */
  write(bytes) {
    if (this.#isClosed) return true
    if (bytes.length <= PIECE_BYTES_MAX && this.unsentBytes === 0) {
      this.#socket.write(bytes, this.#onAccepted)
      return this.#socket.writableLength === 0
    }
    this.#queue.push(bytes)
    this.#queuedBytes += bytes.length
    this.#writeMore()
    const { unsentBytes } = this
    if (unsentBytes > UNSENT_BYTES_MAX) this.#watchForStall()
    return unsentBytes === 0
  }

  /** Ends this side of the socket after everything written has been sent, and calls `fn`. */
  end(fn) {
    if (this.#isClosed) return fn()
    this.#onEnded = fn
    this.#writeMore()
  }

  /** Discards all output. Called when the server no longer reads. */
  close() {
    this.#isClosed = true
    this.#queue = []
    this.#queuedBytes = 0
    const onEnded = this.#onEnded
    this.#onEnded = null
    onEnded?.()
  }

  #writeMore() {
    while (this.#queue.length > 0 && this.#socket.writableLength === 0) {
      const [bytes] = this.#queue
      const piece = bytes.subarray(0, PIECE_BYTES_MAX)
      if (piece.length === bytes.length) this.#queue.shift()
      else this.#queue[0] = bytes.subarray(PIECE_BYTES_MAX)
      this.#queuedBytes -= piece.length
      this.#socket.write(piece, this.#onAccepted)
    }
    if (this.#queue.length > 0 || this.#onEnded === null) return
    this.#socket.end(this.#onEnded)
    this.#onEnded = null
  }

  /** Exits if the server reads nothing for too long. Runs of the timer are counted rather than the time: if the
   * application blocks the event loop for long, there is only one run, and nothing could have been sent meanwhile. */
  #watchForStall() {
    if (this.#stallTimer !== null) return
    let before = this.#acceptedPieces
    let seconds = 0
    this.#stallTimer = setInterval(() => {
      const { unsentBytes } = this
      seconds = before === this.#acceptedPieces ? seconds + 1 : 0
      before = this.#acceptedPieces
      if (unsentBytes <= UNSENT_BYTES_MAX) {
        clearInterval(this.#stallTimer)
        this.#stallTimer = null
      } else if (seconds >= STALLED_SECONDS_MAX) {
        const stalled = `the server has read nothing for ${seconds} s`
        process.stderr.write(`${stalled}, and ${unsentBytes} bytes of output are waiting; this worker exits\n`)
        process.exit(1)
      }
    }, 1000)
  }
}

function drop(callback) {
  if (callback.dropped !== undefined) run(callback.what, callback.dropped)
}

module.exports = { Link }
