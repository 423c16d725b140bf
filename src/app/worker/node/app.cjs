// The application, as described in docs/applications.md.

'use strict'

const { Callback } = require('./callbacks.cjs')
const { Client } = require('./client.cjs')
const { Dropped, NotRunning, checkOptions } = require('./errors.cjs')
const { encode } = require('./json.cjs')
const { clean, hash } = require('./paths.cjs')
const { Registration } = require('./registration.cjs')
const { serve } = require('./requests.cjs')
const { LOADING, state } = require('./state.cjs')
const { TEXT_BYTES_MAX, TO_SERVER, checkSize } = require('./wire.cjs')

const LEVELS = new Set(['error', 'warn', 'info', 'debug', 'trace'])
/** The longest line for the log, in UTF-16 units. Escaped as JSON, it fits into the 1 MiB of a control line. */
const LOG_TEXT_MAX = 128 * 1024
const RESERVED_PATH = /^\/qio(\/|$)/
const SECONDS_MAX = 10 * 365 * 24 * 3600

class App {
  /** The application's name: the name of its file without the ending. */
  get name() {
    return state.hello.app
  }

  /** The index of this worker among the application's instances, from 0. */
  get instance() {
    return state.hello.instance
  }

  /** The number of the application's instances. */
  get instances() {
    return state.hello.instances
  }

  /** The section `[app-settings.NAME]` of the server's settings file. All values are strings. */
  get settings() {
    return state.hello.settings
  }

  /** Registers an event: `event(path, handler)` or `event(path, options, handler)`. Without a handler, clients are
   * answered 500. */
  event(path, options, handler) {
    if (typeof options === 'function' && handler === undefined) [options, handler] = [undefined, options]
    const names = ['children', 'subscriptions', 'clientInfo']
    const { children = false, subscriptions = true, clientInfo = false } = checkOptions('event', options, ...names)
    checkLoading()
    const cleaned = clean(path)
    if ([children, subscriptions, clientInfo].some((value) => typeof value !== 'boolean')) {
      throw new TypeError('the options children, subscriptions and clientInfo must be true or false')
    }
    if (handler !== undefined) checkFunction('the handler', handler)
    if (RESERVED_PATH.test(cleaned)) {
      throw new RangeError(`${cleaned} is reserved: /qio and the paths below it belong to the server`)
    }
    if (state.registrations.has(cleaned)) throw new RangeError(`${cleaned} is already registered`)
    const registration = new Registration(cleaned, { children, subscriptions, clientInfo }, handler, checkLoading)
    state.registrations.set(cleaned, registration)
    return registration
  }

  /** Sends an event to all clients that are subscribed to a path. */
  broadcast(path, data) {
    const cleaned = clean(path)
    const text = encode(data)
    checkRunning()
    const link = state.links[hash(cleaned) % state.links.length]
    link.checkRoom(text)
    link.put(TO_SERVER.BROADCAST, 0, 0, null, cleaned, text)
  }

  /** Sends an event to one client. `callback(reply)` runs when the client replies, `dropped()` if it never will. */
  send(client, path, data, options) {
    const { callback, dropped } = checkOptions('send', options, 'callback', 'dropped')
    if (callback !== undefined) checkFunction('callback', callback)
    if (dropped !== undefined) checkFunction('dropped', dropped)
    if (dropped !== undefined && callback === undefined) {
      throw new TypeError('dropped needs a callback: without one there is no reply to wait for')
    }
    send(client, path, data, callback && ((reply) => serve(reply, callback)), dropped)
  }

  /** Sends an event to one client, and returns a promise of its reply. Rejects with `Dropped` if it never replies. */
  ask(client, path, data) {
    return new Promise((resolve, reject) => {
      const onReply = (reply) => {
        try {
          resolve(reply.data)
        } catch (badData) {
          reject(new Dropped())
          throw badData // answers the client 400
        }
      }
      send(client, path, data, (reply) => serve(reply, onReply), () => reject(new Dropped()))
    })
  }

  /** Closes a client's connection after everything queued for it has been sent. */
  close(client) {
    const link = linkOf(client)
    link.checkRoom('')
    link.put(TO_SERVER.CLOSE, 0, 0, client)
  }

  /** Tells a client to connect to another server, and closes its connection. */
  move(client, address) {
    if (typeof address !== 'string' || address === '') throw new TypeError('the address must be a non-empty string')
    checkSize('the address', address, TEXT_BYTES_MAX)
    const link = linkOf(client)
    link.checkRoom('')
    link.put(TO_SERVER.MOVE, 0, 0, client, address)
  }

  /** Runs a function once, after a time by the server's clock. */
  after(seconds, fn) {
    checkFunction('the function of a timer', fn)
    return state.timers.set(toMs(seconds, 0), false, fn)
  }

  /** Runs a function repeatedly, by the server's clock. A run is skipped while the previous one is running. */
  every(seconds, fn) {
    checkFunction('the function of a timer', fn)
    return state.timers.set(toMs(seconds, 1), true, fn)
  }

  /** Returns the seconds since the server started, as of the latest message from it. */
  now() {
    return state.now / 1000
  }

  /** Writes a line to the server's log. */
  log(level, text) {
    if (!LEVELS.has(level)) throw new RangeError(`unknown log level ${String(level)}: use ${[...LEVELS].join(', ')}`)
    const line = String(text).slice(0, LOG_TEXT_MAX)
    if (state.control === null) process.stderr.write(`${level}: ${line}\n`)
    else state.control.send({ log: level, text: line })
  }

  /** Registers a function that runs before the first event. If it throws, the server does not start. */
  start(fn) {
    addHook('start', fn)
  }

  /** Registers a function that runs at the end, after all requests have been handled. */
  stop(fn) {
    addHook('stop', fn)
  }

  /** Registers a function that runs only for `quickio test-app`. If it throws, the test fails. */
  selfTest(fn) {
    addHook('selfTest', fn)
  }

  /** Registers a function `fn(client)` that runs for each disconnected client whose `data` was used. */
  gone(fn) {
    addHook('gone', fn)
  }
}

function addHook(kind, fn) {
  checkFunction(`the function of app.${kind}`, fn)
  checkLoading()
  state.hooks[kind].push(fn)
}

function send(client, path, data, onReply, dropped) {
  const cleaned = clean(path)
  const text = encode(data)
  const link = linkOf(client)
  link.checkRoom(text)
  const number = onReply === undefined ? 0 : link.offer(new Callback(onReply, dropped, `a callback of ${cleaned}`))
  link.put(TO_SERVER.SEND, 0, number, client, cleaned, text)
}

function linkOf(client) {
  if (!(client instanceof Client)) throw new TypeError('the client must be a Client, such as event.client')
  checkRunning()
  return state.links[client.shard]
}

function checkRunning() {
  if (state.links.length === 0) throw new NotRunning()
}

function checkLoading() {
  if (state.phase === LOADING) return
  throw new Error('cannot register anything after the start: do it while the script is loaded')
}

function checkFunction(what, fn) {
  if (typeof fn !== 'function') throw new TypeError(`${what} must be a function`)
}

function toMs(seconds, least) {
  if (typeof seconds !== 'number') throw new TypeError('seconds must be a number')
  if (!(seconds >= 0 && seconds <= SECONDS_MAX)) {
    throw new RangeError(`seconds must be 0 to ${SECONDS_MAX}, not ${seconds}`)
  }
  // Rounded up to the next millisecond, so that no timer fires early; `toFixed` removes errors of floating point first.
  const ms = Math.ceil(Number((seconds * 1000).toFixed(6)))
  if (ms < least) throw new RangeError('a repeating timer must wait at least a millisecond')
  return ms
}

module.exports = { app: new App() }
