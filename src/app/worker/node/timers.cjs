// The application's timers. They go by the server's clock, so that tests can move it.

'use strict'

const { Numbered } = require('./callbacks.cjs')
const { run } = require('./work.cjs')
const { REPEATS, TO_SERVER } = require('./wire.cjs')

/** A timer that is set. */
class Timer {
  #cancel

  constructor(cancel) {
    this.#cancel = cancel
  }

  /** It fires no more. */
  cancel() {
    this.#cancel()
  }
}

/** All timers of the worker. They are set over its first link. */
class Timers {
  #set = new Numbered()
  #link = null

  set(ms, repeats, fn) {
    const entry = { ms, repeats, fn, isRunning: false }
    const number = this.#set.add(entry)
    if (this.#link !== null) this.#send(number, entry)
    return new Timer(() => this.#cancel(number, entry))
  }

  /** Those that repeat are set by the worker's `ready`. */
  inReady() {
    return this.#set.entries().filter(([, entry]) => entry.repeats).map(([timer, { ms }]) => ({ timer, ms }))
  }

  /** Sets the others, which were wanted before there was a link. */
  begin(link) {
    this.#link = link
    for (const [number, entry] of this.#set.entries()) if (!entry.repeats) this.#send(number, entry)
  }

  /** One that is not known was cancelled while it was on its way. */
  fire(number) {
    const entry = this.#set.get(number)
    if (entry === undefined || entry.isRunning) return
    if (!entry.repeats) this.#set.take(number)
    entry.isRunning = true
    const running = run('a timer', entry.fn)
    if (running === undefined) entry.isRunning = false
    else running.then(() => (entry.isRunning = false))
  }

  #send(number, { ms, repeats }) {
    this.#link.put(TO_SERVER.TIMER, repeats ? REPEATS : 0, number, null, '', '', ms)
  }

  #cancel(number, entry) {
    if (this.#set.get(number) !== entry) return
    this.#set.take(number)
    if (this.#link !== null) this.#link.put(TO_SERVER.CANCEL, 0, number, null)
  }
}

module.exports = { Timer, Timers }
