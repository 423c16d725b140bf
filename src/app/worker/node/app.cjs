// The application, as its author uses it: what docs/applications.md describes.

'use strict'

const { Callback } = require('./callbacks.cjs')
const { Client } = require('./client.cjs')
const { Dropped, NotRunning, checkOptions } = require('./errors.cjs')
const { encode } = require('./json.cjs')
const { clean, hash } = require('./paths.cjs')
const { Registration } = require('./registration.cjs')
const { serve } = require('./requests.cjs')
const { LOADING, state } = require('./state.cjs')
const { TEXT_BYTES_MAX, TO_SERVER, bounded } = require('./wire.cjs')

const LEVELS = new Set(['error', 'warn', 'info', 'debug', 'trace'])
/** UTF-16 units of a line in the log: whatever becomes of them, a line of the control socket has 1 MiB at most. */
const LOG_TEXT_MAX = 128 * 1024
const OWN_PATH = /^\/qio(\/|$)/
const SECONDS_MAX = 10 * 365 * 24 * 3600

class App {
  /** Its name: its file's, without the ending. */
  get name() {
    return state.hello.app
  }

  /** The number of this worker, from 0, of so many. */
  get instance() {
    return state.hello.instance
  }

  get instances() {
    return state.hello.instances
  }

  /** The section `[app-settings.NAME]` of the server's settings file: texts. */
  get settings() {
    return state.hello.settings
  }

  /** Registers an event: `event(path, handler)` or `event(path, options, handler)`. Without a handler it is 500. */
  event(path, options, handler) {
    if (typeof options === 'function' && handler === undefined) [options, handler] = [undefined, options]
    const { children = false, subscriptions = true } = checkOptions('event', options, 'children', 'subscriptions')
    checkLoading()
    const cleaned = clean(path)
    if (typeof children !== 'boolean' || typeof subscriptions !== 'boolean') {
      throw new TypeError('children and subscriptions are true or false')
    }
    if (handler !== undefined) checkFunction('a handler', handler)
    if (OWN_PATH.test(cleaned)) throw new RangeError(`${cleaned}: what is below /qio belongs to the server`)
    if (state.registrations.has(cleaned)) throw new RangeError(`${cleaned} is registered already`)
    const registration = new Registration(cleaned, { children, subscriptions }, handler, checkLoading)
    state.registrations.set(cleaned, registration)
    return registration
  }

  /** Sends to all who are subscribed to a path. */
  broadcast(path, data) {
    const cleaned = clean(path)
    const text = encode(data)
    checkRunning()
    const link = state.links[hash(cleaned) % state.links.length]
    link.checkRoom(text)
    link.put(TO_SERVER.BROADCAST, 0, 0, null, cleaned, text)
  }

  /** Sends an event to one client. `callback(reply)` runs when it answers, `dropped()` when it never will. */
  send(client, path, data, options) {
    const { callback, dropped } = checkOptions('send', options, 'callback', 'dropped')
    if (callback !== undefined) checkFunction('callback', callback)
    if (dropped !== undefined) checkFunction('dropped', dropped)
    if (dropped !== undefined && callback === undefined) throw new TypeError('dropped is of a callback: there is none')
    send(client, path, data, callback && ((reply) => serve(reply, callback)), dropped)
  }

  /** Sends an event, and answers what the client says to it. Rejects with `Dropped` where it never says anything. */
  ask(client, path, data) {
    return new Promise((resolve, reject) => {
      const answered = (reply) => {
        try {
          resolve(reply.data)
        } catch (badData) {
          reject(new Dropped())
          throw badData // the client is told what it was
        }
      }
      send(client, path, data, (reply) => serve(reply, answered), () => reject(new Dropped()))
    })
  }

  /** Closes a client's connection, once what was sent to it before is there. */
  close(client) {
    const link = linkOf(client)
    link.checkRoom('')
    link.put(TO_SERVER.CLOSE, 0, 0, client)
  }

  /** Sends a client to another server, and closes its connection. */
  move(client, address) {
    if (typeof address !== 'string' || address === '') throw new TypeError('an address is a string')
    bounded('an address', address, TEXT_BYTES_MAX)
    const link = linkOf(client)
    link.checkRoom('')
    link.put(TO_SERVER.MOVE, 0, 0, client, address)
  }

  /** Runs a function once, after so many seconds of the server's clock. */
  after(seconds, fn) {
    checkFunction('what a timer runs', fn)
    return state.timers.set(toMs(seconds, 0), false, fn)
  }

  /** Runs it again and again; a run is left out while the one before is not done. */
  every(seconds, fn) {
    checkFunction('what a timer runs', fn)
    return state.timers.set(toMs(seconds, 1), true, fn)
  }

  /** Seconds since the server began, as it has told last. */
  now() {
    return state.now / 1000
  }

  /** Writes a line into the server's log. */
  log(level, text) {
    if (!LEVELS.has(level)) throw new RangeError(`a level is one of ${[...LEVELS].join(', ')}`)
    const line = String(text).slice(0, LOG_TEXT_MAX)
    if (state.control === null) process.stderr.write(`${level}: ${line}\n`)
    else state.control.send({ log: level, text: line })
  }

  /** `fn()` runs before the first event; where it throws, the application has not started. */
  start(fn) {
    addHook('start', fn)
  }

  /** `fn()` runs when everything is done. */
  stop(fn) {
    addHook('stop', fn)
  }

  /** `fn()` runs for `quickio test-app`; where it throws, the test has failed. */
  selfTest(fn) {
    addHook('selfTest', fn)
  }

  /** `fn(client)` runs when a client has gone whose `data` was used. */
  gone(fn) {
    addHook('gone', fn)
  }
}

function addHook(kind, fn) {
  checkFunction(`the function of app.${kind}`, fn)
  checkLoading()
  state.hooks[kind].push(fn)
}

function send(client, path, data, run, dropped) {
  const cleaned = clean(path)
  const text = encode(data)
  const link = linkOf(client)
  link.checkRoom(text)
  const number = run === undefined ? 0 : link.offer(new Callback(run, dropped, `a callback of ${cleaned}`))
  link.put(TO_SERVER.SEND, 0, number, client, cleaned, text)
}

function linkOf(client) {
  if (!(client instanceof Client)) throw new TypeError('a client is what an event has as `client`')
  checkRunning()
  return state.links[client.shard]
}

function checkRunning() {
  if (state.links.length === 0) throw new NotRunning()
}

function checkLoading() {
  if (state.phase !== LOADING) throw new Error('the application runs already: register before that')
}

function checkFunction(what, fn) {
  if (typeof fn !== 'function') throw new TypeError(`${what} is a function`)
}

function toMs(seconds, least) {
  if (typeof seconds !== 'number') throw new TypeError('a time is a number of seconds')
  if (!(seconds >= 0 && seconds <= SECONDS_MAX)) throw new RangeError(`no time to wait: ${seconds} s`)
  // Never early: a fraction of a millisecond is one, and what only comes of how numbers are kept is none.
  const ms = Math.ceil(Number((seconds * 1000).toFixed(6)))
  if (ms < least) throw new RangeError(`${seconds} s are less than a millisecond`)
  return ms
}

module.exports = { app: new App() }
