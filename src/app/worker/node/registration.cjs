// Registered events, with their handlers and hooks.

'use strict'

/** A registered event. */
class Registration {
  #checkLoading
  #subscriptions
  #on
  #off

  constructor(path, { children, subscriptions, clientInfo }, handler, checkLoading) {
    this.path = path
    this.clientInfo = clientInfo
    this.children = children
    this.handler = handler
    this.#subscriptions = subscriptions
    this.#checkLoading = checkLoading
  }

  /** Sets the on-hook `fn(subscription)`, which returns whether the client may subscribe, or a promise of that. */
  on(fn) {
    this.#check(fn, this.#on, 'an on-hook')
    if (!this.#subscriptions) throw new Error(`${this.path} has subscriptions: false; it cannot have an on-hook`)
    this.#on = fn
    return this
  }

  /** Sets the off-hook `fn(unsubscribed)`, which is called for each subscription that has ended. */
  off(fn) {
    this.#check(fn, this.#off, 'an off-hook')
    this.#off = fn
    return this
  }

  get onHook() {
    return this.#on
  }

  get offHook() {
    return this.#off
  }

  #check(fn, present, what) {
    if (typeof fn !== 'function') throw new TypeError(`${what} must be a function`)
    if (present !== undefined) throw new Error(`${this.path} already has ${what}`)
    this.#checkLoading()
  }

  /** Returns the event's entry in the line `ready` (docs/workers.md). */
  toJSON() {
    const subscribers = this.#on === undefined ? 'everyone' : 'ask'
    return {
      path: this.path,
      children: this.children,
      handler: this.handler !== undefined,
      subscriptions: this.#subscriptions ? subscribers : 'nobody',
      off: this.#off !== undefined,
      options: this.#on !== undefined || undefined,
      client_info: this.clientInfo || undefined
    }
  }
}

module.exports = { Registration }
