// The frames of a link (docs/workers.md): a head of 40 bytes, a text, and data. Knows bytes, and no sockets.

'use strict'

const HEAD_BYTES = 40
/** Bytes that a frame's length does not count: its own. */
const LENGTH_BYTES = 4
/** What a server's frame cannot be longer than; more is no frame at all. */
const FRAME_BYTES_MAX = 2 ** 30
/** What this side says: the server takes frames of 16 MiB at most. */
const TEXT_BYTES_MAX = 64 * 1024
const DATA_BYTES_MAX = 16 * 1024 * 1024 - 2 * TEXT_BYTES_MAX
/** Output is gathered in pieces of this size. */
const CHUNK_BYTES = 64 * 1024
/** Of a frame that comes in pieces, this much is kept for the next one. */
const KEPT_BYTES_MAX = 64 * 1024

const FROM_SERVER = { EVENT: 1, ON: 2, OFF: 3, REPLY: 4, DROPPED: 5, TIMER: 6, GONE: 7 }
const TO_SERVER = { ANSWER: 1, BROADCAST: 2, SEND: 3, CLOSE: 4, MOVE: 5, TIMER: 6, WATCH: 7, CANCEL: 8 }
const WANTS_ANSWER = 1
const REPEATS = 1
const HAS_MESSAGE = 2

const TWO_TO_32 = 2 ** 32

/** The other side does not keep to what was agreed. */
class Violation extends Error {
  constructor(message) {
    super(message)
    this.name = 'Violation'
  }
}

function u32(bytes, at) {
  return ((bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]) >>> 0
}

/** Answers a text again. Throws where it has more bytes than that. */
function bounded(what, text, max) {
  if (text.length * 3 <= max) return text // a UTF-16 unit becomes three bytes at most
  const bytes = Buffer.byteLength(text)
  if (bytes > max) throw new RangeError(`${what} of ${bytes} bytes: ${max} is the most`)
  return text
}

/** Where the text of the frame at `at` ends, which is where its data begins. */
function endOfText(bytes, at, end) {
  const dataAt = at + HEAD_BYTES + u32(bytes, at + 28)
  if (dataAt > end) throw new Violation('a text is longer than its frame')
  return dataAt
}

function timeOf(bytes, at) {
  return u32(bytes, at + 32) * TWO_TO_32 + u32(bytes, at + 36)
}

/** Takes bytes in pieces of any size, and hands on each frame when it is complete. */
class Frames {
  #take
  /** The beginning of a frame whose end has not come; it grows with what comes, not by what a length promises. */
  #partial = Buffer.alloc(0)
  #have = 0

  /** `take(bytes, at, end)` must not keep the bytes: they are overwritten. */
  constructor(take) {
    this.#take = take
  }

  get isPartial() {
    return this.#have > 0
  }

  feed(bytes, end) {
    let at = 0
    while (this.#have > 0 && at < end) at += this.#complete(bytes, at, end)
    while (end - at >= LENGTH_BYTES) {
      const next = at + frameBytes(bytes, at)
      if (next > end) break
      this.#take(bytes, at, next)
      at = next
    }
    if (at < end) this.#keep(bytes, at, end)
  }

  /** Adds to the frame that has begun; answers how many bytes that took. */
  #complete(bytes, at, end) {
    const needs = this.#have < LENGTH_BYTES ? LENGTH_BYTES : frameBytes(this.#partial, 0)
    const taken = Math.min(needs - this.#have, end - at)
    this.#keep(bytes, at, at + taken)
    if (this.#have >= HEAD_BYTES && this.#have === frameBytes(this.#partial, 0)) {
      const frame = this.#partial
      const have = this.#have
      this.#have = 0
      if (frame.length > KEPT_BYTES_MAX) this.#partial = Buffer.alloc(0)
      this.#take(frame, 0, have)
    }
    return taken
  }

  #keep(bytes, at, end) {
    const have = this.#have + end - at
    if (have > this.#partial.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(have, 2 * this.#partial.length, 1024))
      this.#partial.copy(larger, 0, 0, this.#have)
      this.#partial = larger
    }
    bytes.copy(this.#partial, this.#have, at, end)
    this.#have = have
  }
}

function frameBytes(bytes, at) {
  const length = LENGTH_BYTES + u32(bytes, at)
  if (length < HEAD_BYTES || length > FRAME_BYTES_MAX) throw new Violation(`a frame of ${length} bytes`)
  return length
}

/** Gathers frames. They are handed to `write(bytes)`, which answers whether it needs the bytes no longer. */
class Outbox {
  #write
  #bytes = Buffer.allocUnsafeSlow(CHUNK_BYTES)
  #view = viewOf(this.#bytes)
  #used = 0

  constructor(write) {
    this.#write = write
  }

  /** Bytes that were not handed on yet. */
  get used() {
    return this.#used
  }

  put(type, flags, code, request, number, client, text, data, ms) {
    const most = HEAD_BYTES + 3 * (text.length + data.length) // a UTF-16 unit becomes three bytes at most
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
    const isFree = this.#write(this.#bytes.subarray(0, this.#used))
    this.#used = 0
    if (isFree) return
    this.#bytes = Buffer.allocUnsafeSlow(CHUNK_BYTES)
    this.#view = viewOf(this.#bytes)
  }
}

function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** Writes a frame, and answers where it ends. */
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

/** A call into Node costs more than a few dozen characters do here. */
const SHORT = 24

function putText(bytes, at, text) {
  const length = text.length
  if (length > SHORT) return at + bytes.write(text, at)
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
  HAS_MESSAGE,
  Frames,
  Outbox,
  Violation,
  bounded,
  u32,
  endOfText,
  timeOf
}
