// Requests of clients: events, replies and subscriptions. Each request is open until it is answered once.

'use strict'

const { AlreadyAnswered, BadData, OK, Refusal, checkCode, checkMessage, checkOptions } = require('./errors.cjs')
const { Callback } = require('./callbacks.cjs')
const { callInContext } = require('./context.cjs')
const { encode, unchecked } = require('./json.cjs')
const { isThenable, print, report } = require('./work.cjs')

/** The code that ends a request without an answer to the client. */
const NO_ANSWER = 0
const UNAUTHORIZED = 401
const FAILED = 500

// The stages of a request.
const OPEN = 0
const PROMISED = 1
const ANSWERED = 2

/** Returned by a handler if the client must not get any answer. */
const NEVER = Symbol('quickio.NEVER')

/** An answer with a callback that the client may reply to. Returned by a handler. */
class Answer {
  constructor(data = null, options) {
    const { callback } = checkOptions('Answer', options, 'callback')
    if (callback !== undefined && typeof callback !== 'function') throw new TypeError('the callback must be a function')
    this.data = data
    this.callback = callback
  }
}

// Functions that use private members of requests, for this file only.
let finish
let offer
let stageOf
let markPromised
let requestOf

/** A request of a client, which has to be answered once. */
class Request {
  #link
  #id
  #stage = OPEN
  #text
  #value
  #isParsed = false

  constructor(link, id, client, text) {
    this.client = client
    this.#link = link
    this.#id = id
    this.#text = text
  }

  /** The client's data as JSON text. It has not been validated. */
  get json() {
    return unchecked(this.#text)
  }

  /** The client's data, parsed on first use. Throws `BadData` if it is not valid JSON. */
  get data() {
    if (!this.#isParsed) {
      try {
        this.#value = JSON.parse(this.#text)
      } catch {
        throw new BadData()
      }
      this.#isParsed = true
    }
    return this.#value
  }

  static {
    stageOf = (request) => request.#stage
    markPromised = (request) => {
      if (request.#stage === ANSWERED) throw new AlreadyAnswered()
      if (request.#stage === PROMISED) throw new AlreadyAnswered('later() has already been called for this request')
      request.#stage = PROMISED
    }
    offer = (request, onReply) =>
      request.#link.offer(new Callback(onReply, undefined, `a callback of ${placeOf(request)}`))
    finish = (request, code, number = 0, message = null, data = 'null') => {
      if (request.#stage === ANSWERED) throw new AlreadyAnswered()
      if (request.#stage === PROMISED) collectedPromises.unregister(request)
      request.#stage = ANSWERED
      request.#link.answer(request.#id, code, number, message, data)
    }
  }
}

/** Parses what the server knows of a client: `{ user, claims, address, headers, certificate }`. */
function infoOf(json, path) {
  if (json === undefined) throw new Error(`register ${path} with clientInfo: true to use info`)
  // The client may have disconnected.
  return JSON.parse(json) ?? { user: null, claims: null, address: null, headers: {}, certificate: null }
}

/** An event that a client has sent. */
class Event extends Request {
  #registration
  #info

  constructor(link, id, client, text, registration, extra, info, wantsAnswer) {
    super(link, id, client, text)
    this.extra = extra
    this.#info = info
    this.wantsAnswer = wantsAnswer
    this.#registration = registration
  }

  get path() {
    return this.#registration.path
  }

  get fullPath() {
    return this.#registration.path + this.extra
  }

  /** What the server knows of the client, if the event was registered with `clientInfo: true`. */
  get info() {
    return infoOf(this.#info, this.path)
  }

  later() {
    return new Later(this)
  }
}

/** A client's request to subscribe. Its data is the extra data that the client sent with it. */
class Subscription extends Request {
  #options
  #info

  constructor(link, id, client, text, registration, extra, options, info) {
    super(link, id, client, text)
    this.path = registration.path
    this.extra = extra
    this.#options = options
    this.#info = info
  }

  /** The earlier events that the client asks for, such as `{ history: 20 }`. `null` if it asks for none. */
  get options() {
    return this.#options === undefined ? null : JSON.parse(this.#options)
  }

  /** What the server knows of the client, if the event was registered with `clientInfo: true`. */
  get info() {
    return infoOf(this.#info, this.path)
  }

  get fullPath() {
    return this.path + this.extra
  }

  later() {
    return new LaterDecision(this)
  }
}

/** A subscription that has ended. */
class Unsubscribed {
  constructor(client, registration, extra) {
    this.client = client
    this.path = registration.path
    this.extra = extra
  }

  get fullPath() {
    return this.path + this.extra
  }
}

/** A client's reply to a callback. */
class Reply extends Request {
  #what

  constructor(link, id, client, text, what, wantsAnswer) {
    super(link, id, client, text)
    this.wantsAnswer = wantsAnswer
    this.#what = what
  }

  later() {
    return new Later(this)
  }

  toString() {
    return this.#what
  }
}

/** The base of the promises. If a promise is dropped unanswered, the client is answered 500 when the garbage collector
 * finds it. */
class PromisedAnswer {
  #request

  constructor(request) {
    markPromised(request)
    this.#request = request
    collectedPromises.register(this, request, request)
  }

  static {
    requestOf = (promise) => promise.#request
  }
}

/** A promise to answer an event or a reply once. */
class Later extends PromisedAnswer {
  answer(data) {
    respond(requestOf(this), data)
  }

  error(code, message, data) {
    refuse(requestOf(this), new Refusal(code, message, data))
  }
}

/** A promise to accept or refuse a subscription once. */
class LaterDecision extends PromisedAnswer {
  accept() {
    finish(requestOf(this), OK)
  }

  refuse() {
    finish(requestOf(this), UNAUTHORIZED)
  }
}

const collectedPromises = new FinalizationRegistry((request) => {
  if (stageOf(request) !== PROMISED) return
  print(`${describe(request)} dropped its promise to answer; the client is answered ${FAILED}`)
  finish(request, FAILED)
})

/** Runs the handler of a request, and answers the request with its result or exception. */
function serve(request, handler) {
  let result
  try {
    result = callInContext(handler, request)
    if (isThenable(result)) {
      result.then(
        (result) => settle(request, result),
        (error) => fail(request, error)
      )
      return
    }
  } catch (error) {
    return fail(request, error)
  }
  settle(request, result)
}

function settle(request, result) {
  try {
    if (isPromised(request, result)) return
    if (request instanceof Subscription) decide(request, result)
    else respond(request, result)
  } catch (error) {
    fail(request, error)
  }
}

/** Returns whether a promise answers the request. A function that made a promise need not return it. */
function isPromised(request, result) {
  if (result === undefined) return stageOf(request) !== OPEN
  return result instanceof PromisedAnswer && requestOf(result) === request
}

function respond(request, result) {
  if (result === undefined || result === null) return finish(request, OK)
  if (result === NEVER) return finish(request, NO_ANSWER)
  if (result instanceof PromisedAnswer) {
    throw new TypeError('it returned the promise of another request: return the one from its own later()')
  }
  if (!(result instanceof Answer)) return finish(request, OK, 0, null, encode(result))
  const data = encode(result.data)
  if (stageOf(request) === ANSWERED) throw new AlreadyAnswered()
  const number = result.callback === undefined ? 0 : offer(request, (reply) => serve(reply, result.callback))
  finish(request, OK, number, null, data)
}

function decide(subscription, result) {
  if (typeof result !== 'boolean') throw new TypeError('an on-hook must return true, false or its promise')
  finish(subscription, result ? OK : UNAUTHORIZED)
}

function refuse(request, refusal) {
  checkCode(refusal.code) // the application may have changed them
  checkMessage(refusal.text)
  if (request instanceof Subscription) finish(request, refusal.code)
  else finish(request, refusal.code, 0, refusal.text, encode(refusal.data))
}

/** Answers a request after its handler has thrown. Exceptions other than a Refusal are logged. */
function fail(request, error) {
  try {
    if (error instanceof Refusal && stageOf(request) !== ANSWERED) return refuse(request, error)
  } catch (unusable) {
    error = unusable // the application has made the refusal invalid
  }
  report(describe(request), error)
  if (stageOf(request) !== ANSWERED) finish(request, FAILED)
}

/** Returns a description of a request's handler, for the log. */
function describe(request) {
  if (request instanceof Reply) return String(request)
  return `the ${request instanceof Subscription ? 'on-hook' : 'handler'} of ${request.fullPath}`
}

/** Returns the path of a request, or the callback that a reply belongs to. */
function placeOf(request) {
  return request instanceof Reply ? String(request) : request.fullPath
}

module.exports = {
  Answer,
  NEVER,
  Event,
  Reply,
  Subscription,
  Unsubscribed,
  Later,
  LaterDecision,
  serve,
  finish,
  FAILED
}
