// Callbacks offered to clients, and the numbers under which the server knows them.

'use strict'

const NUMBER_MAX = 2 ** 32 - 1

/** A map that assigns its keys: numbers from 1, of which none is in use twice. */
class NumberedMap {
  #entries = new Map()
  #last = 0

  /** Adds an entry, and returns its number. */
  add(entry) {
    do this.#last = this.#last === NUMBER_MAX ? 1 : this.#last + 1
    while (this.#entries.has(this.#last))
    this.#entries.set(this.#last, entry)
    return this.#last
  }

  get(number) {
    return this.#entries.get(number)
  }

  take(number) {
    const entry = this.#entries.get(number)
    this.#entries.delete(number)
    return entry
  }

  entries() {
    return [...this.#entries]
  }

  takeAll() {
    const entries = [...this.#entries.values()]
    this.#entries.clear()
    return entries
  }
}

/** A callback that is open: the client may reply to it, or the server drops it. */
class Callback {
  /** `onReply(reply)` handles the reply, `dropped` may be undefined, and `what` describes the callback in the log. */
  constructor(onReply, dropped, what) {
    this.onReply = onReply
    this.dropped = dropped
    this.what = what
  }
}

module.exports = { Callback, NumberedMap }
