// The application's timers. They use the server's clock, which tests can control.

'use strict'

const { NumberedMap } = require('./callbacks.cjs')
const { run } = require('./work.cjs')
const { REPEATS, TO_SERVER } = require('./wire.cjs')

/** A timer that has been set. */
class Timer {
  #cancel

  constructor(cancel) {
    this.#cancel = cancel
  }

  /** Prevents all further runs. */
  cancel() {
    this.#cancel()
  }
}

/** All timers of the worker. They are set on its first link. */
class Timers {
  #timers = new NumberedMap()
  #link = null

  set(ms, repeats, fn) {
    const entry = { ms, repeats, fn, isRunning: false }
    const number = this.#timers.add(entry)
    if (this.#link !== null) this.#send(number, entry)
    return new Timer(() => this.#cancel(number, entry))
  }

  /** Returns the repeating timers as the line `ready` announces them. */
  toReady() {
    return this.#timers.entries().filter(([, entry]) => entry.repeats).map(([timer, { ms }]) => ({ timer, ms }))
  }

  /** Connects the timers to the server. Sends those that do not repeat; `ready` has announced the others. */
  connect(link) {
    this.#link = link
    for (const [number, entry] of this.#timers.entries()) if (!entry.repeats) this.#send(number, entry)
  }

  /** Runs a timer that is due. A timer that was cancelled after the server sent the frame is ignored. */
  fire(number) {
    const entry = this.#timers.get(number)
    if (entry === undefined || entry.isRunning) return
    if (!entry.repeats) this.#timers.take(number)
    entry.isRunning = true
    const running = run('a timer', entry.fn)
    if (running === undefined) entry.isRunning = false
    else running.then(() => (entry.isRunning = false))
  }

  #send(number, { ms, repeats }) {
    this.#link.put(TO_SERVER.TIMER, repeats ? REPEATS : 0, number, null, '', '', ms)
  }

  #cancel(number, entry) {
    if (this.#timers.get(number) !== entry) return
    this.#timers.take(number)
    if (this.#link !== null) this.#link.put(TO_SERVER.CANCEL, 0, number, null)
  }
}

module.exports = { Timer, Timers }
