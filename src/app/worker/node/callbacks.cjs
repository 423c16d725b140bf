// The callbacks that a link has offered to clients, each until it comes back: as a reply, or dropped.

'use strict'

const NUMBER_MAX = 2 ** 32 - 1

/** Numbers from 1, none twice at a time. */
class Numbered {
  #entries = new Map()
  #last = 0

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

/** What is to be run when a callback comes back. */
class Callback {
  constructor(run, dropped, what) {
    this.run = run
    this.dropped = dropped
    this.what = what
  }
}

module.exports = { Callback, Numbered }
