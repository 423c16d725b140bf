// The frames of the links, as docs/workers.md specifies them: a head of 40 bytes, a text, and data. A decoder and an
// encoder, without I/O.

'use strict'

const HEAD_BYTES = 40
/** The size of the length field, which the length does not include. */
const LENGTH_BYTES = 4
/** Far longer than any frame of the server. A greater length is a protocol error. */
const FRAME_BYTES_MAX = 2 ** 30
/** The longest text and data to send, together below the 16 MiB that the server accepts in a frame. */
const TEXT_BYTES_MAX = 64 * 1024
const DATA_BYTES_MAX = 16 * 1024 * 1024 - 2 * TEXT_BYTES_MAX
/** The size of the buffer in which output is collected. */
const CHUNK_BYTES = 64 * 1024
/** The largest buffer that is kept after an incomplete frame has been completed. */
const KEPT_BYTES_MAX = 64 * 1024

const FROM_SERVER = { EVENT: 1, ON: 2, OFF: 3, REPLY: 4, DROPPED: 5, TIMER: 6, GONE: 7 }
const TO_SERVER = { ANSWER: 1, BROADCAST: 2, SEND: 3, CLOSE: 4, MOVE: 5, TIMER: 6, WATCH: 7, CANCEL: 8 }
const WANTS_ANSWER = 1
const HAS_INFO = 4
const HAS_OPTIONS = 8
const REPEATS = 1
const HAS_MESSAGE = 2

const TWO_TO_32 = 2 ** 32

/** Thrown when the server breaks the protocol. The worker cannot continue. */
class ProtocolError extends Error {
  constructor(message) {
    super(message)
    this.name = 'ProtocolError'
  }
}

function u32(bytes, at) {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0
}

/** Returns a text. Throws if it has more than `max` bytes. */
function checkSize(what, text, max) {
  if (text.length * 3 <= max) return text // a UTF-16 unit becomes at most three bytes
  const bytes = Buffer.byteLength(text)
  if (bytes > max) throw new RangeError(`${what} has ${bytes} bytes; at most ${max} are allowed`)
  return text
}

/** Returns the position of the end of a frame's text, where its data begins. */
function endOfText(bytes, at, end) {
  const dataAt = at + HEAD_BYTES + u32(bytes, at + 28)
  if (dataAt > end) throw new ProtocolError('a text is longer than its frame')
  return dataAt
}

function timeOf(bytes, at) {
  return u32(bytes, at + 32) * TWO_TO_32 + u32(bytes, at + 36)
}

/** A decoder that accepts bytes in pieces of any size, and passes on each complete frame. */
class FrameDecoder {
  #onFrame
  /** The beginning of an incomplete frame. The buffer grows with the bytes received, not with the announced length. */
  #partial = Buffer.alloc(0)
  #partialBytes = 0

  /** `onFrame(bytes, at, end)` must not keep the bytes, which are overwritten later. */
  constructor(onFrame) {
    this.#onFrame = onFrame
  }

  get isPartial() {
    return this.#partialBytes > 0
  }

  feed(bytes, end) {
    let at = 0
    while (this.#partialBytes > 0 && at < end) at += this.#continuePartial(bytes, at, end)
    while (end - at >= LENGTH_BYTES) {
      const next = at + frameBytes(bytes, at)
      if (next > end) break
      this.#onFrame(bytes, at, next)
      at = next
    }
    if (at < end) this.#keep(bytes, at, end)
  }

  /** Adds bytes to the incomplete frame, and returns how many it has used. */
  #continuePartial(bytes, at, end) {
    const needed = this.#partialBytes < LENGTH_BYTES ? LENGTH_BYTES : frameBytes(this.#partial, 0)
    const used = Math.min(needed - this.#partialBytes, end - at)
    this.#keep(bytes, at, at + used)
    if (this.#partialBytes >= HEAD_BYTES && this.#partialBytes === frameBytes(this.#partial, 0)) {
      const frame = this.#partial
      const length = this.#partialBytes
      this.#partialBytes = 0
      if (frame.length > KEPT_BYTES_MAX) this.#partial = Buffer.alloc(0)
      this.#onFrame(frame, 0, length)
    }
    return used
  }

  #keep(bytes, at, end) {
    const length = this.#partialBytes + end - at
    if (length > this.#partial.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(length, 2 * this.#partial.length, 1024))
      this.#partial.copy(larger, 0, 0, this.#partialBytes)
      this.#partial = larger
    }
    bytes.copy(this.#partial, this.#partialBytes, at, end)
    this.#partialBytes = length
  }
}

/** Returns the size of a frame, including its length field. */
function frameBytes(bytes, at) {
  const length = LENGTH_BYTES + u32(bytes, at)
  if (length < HEAD_BYTES || length > FRAME_BYTES_MAX) throw new ProtocolError(`invalid frame of ${length} bytes`)
  return length
}

/** An encoder that collects frames in a buffer, and passes the buffer to `write(bytes)`. That function returns whether
 * the buffer may be reused. */
class FrameWriter {
  #write
  #bytes = Buffer.allocUnsafeSlow(CHUNK_BYTES)
  #view = viewOf(this.#bytes)
  #used = 0

  constructor(write) {
    this.#write = write
  }

  /** The number of collected bytes. */
  get used() {
    return this.#used
  }

  put(type, flags, code, request, number, client, text, data, ms) {
    const most = HEAD_BYTES + 3 * (text.length + data.length) // a UTF-16 unit becomes at most three bytes
    if (most > CHUNK_BYTES - this.#used) {
      this.flush()
      if (most > CHUNK_BYTES) return this.#putLarge(type, flags, code, request, number, client, text, data, ms)
    }
    this.#used = encode(
      this.#bytes, this.#view, this.#used, type, flags, code, request, number, client, text, data, ms
    )
  }

  #putLarge(type, flags, code, request, number, client, text, data, ms) {
    const bytes = Buffer.allocUnsafeSlow(HEAD_BYTES + Buffer.byteLength(text) + Buffer.byteLength(data))
    encode(bytes, viewOf(bytes), 0, type, flags, code, request, number, client, text, data, ms)
    this.#write(bytes)
  }

  flush() {
    if (this.#used === 0) return
    const isReusable = this.#write(this.#bytes.subarray(0, this.#used))
    this.#used = 0
    if (isReusable) return
    this.#bytes = Buffer.allocUnsafeSlow(CHUNK_BYTES)
    this.#view = viewOf(this.#bytes)
  }
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** Writes a frame, and returns the position of its end. */
function encode(bytes, view, at, type, flags, code, request, number, client, text, data, ms) {
  const dataAt = putText(bytes, at + HEAD_BYTES, text)
  const end = putText(bytes, dataAt, data)
  view.setUint32(at, end - at - LENGTH_BYTES)
  view.setUint32(at + 4, (type << 24) | (flags << 16) | code)
  view.setUint32(at + 8, request)
  view.setUint32(at + 12, number)
  view.setUint32(at + 16, client === null ? 0 : client.shard)
  view.setUint32(at + 20, client === null ? 0 : client.slot)
  view.setUint32(at + 24, client === null ? 0 : client.generation)
  view.setUint32(at + 28, dataAt - at - HEAD_BYTES)
  view.setUint32(at + 32, ms / TWO_TO_32)
  view.setUint32(at + 36, ms)
  return end
}

/** The longest text that is copied character by character, which for so few is faster than a call into Node. */
const SHORT_TEXT_MAX = 24

function putText(bytes, at, text) {
  const length = text.length
  if (length > SHORT_TEXT_MAX) return at + bytes.write(text, at)
  for (let nth = 0; nth < length; nth++) {
    const unit = text.charCodeAt(nth)
    if (unit > 0x7f) return at + bytes.write(text, at)
    bytes[at + nth] = unit
  }
  return at + length
}

module.exports = {
  FROM_SERVER,
  TO_SERVER,
  HEAD_BYTES,
  TEXT_BYTES_MAX,
  DATA_BYTES_MAX,
  WANTS_ANSWER,
  REPEATS,
  HAS_INFO,
  HAS_OPTIONS,
  HAS_MESSAGE,
  FrameDecoder,
  FrameWriter,
  ProtocolError,
  checkSize,
  u32,
  endOfText,
  timeOf
}
