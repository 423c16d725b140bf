// An event of the application's, as it is registered.

'use strict'

/** An event: who handles it, and who may subscribe to it. */
class Registration {
  #checkOpen
  #subscriptions
  #on
  #off

  constructor(path, { children, subscriptions }, handler, checkOpen) {
    this.path = path
    this.children = children
    this.handler = handler
    this.#subscriptions = subscriptions
    this.#checkOpen = checkOpen
  }

  /** `fn(subscription)` decides who may subscribe: true, false, or a promise of one. */
  on(fn) {
    this.#check(fn, this.#on)
    if (!this.#subscriptions) throw new Error(`nobody may subscribe to ${this.path}`)
    this.#on = fn
    return this
  }

  /** `fn(unsubscribed)` is told of each subscription that has ended. */
  off(fn) {
    this.#check(fn, this.#off)
    this.#off = fn
    return this
  }

  get onHook() {
    return this.#on
  }

  get offHook() {
    return this.#off
  }

  #check(fn, before) {
    if (typeof fn !== 'function') throw new TypeError('a hook is a function')
    if (before !== undefined) throw new Error(`${this.path} has that hook already`)
    this.#checkOpen()
  }

  /** As the server is told (docs/workers.md). */
  toJSON() {
    const asked = this.#on === undefined ? 'everyone' : 'ask'
    return {
      path: this.path,
      children: this.children,
      handler: this.handler !== undefined,
      subscriptions: this.#subscriptions ? asked : 'nobody',
      off: this.#off !== undefined
    }
  }
}

module.exports = { Registration }
