// What clients want of the application: events, replies and subscriptions. Each is under way until it is answered,
// once.

'use strict'

const { AlreadyAnswered, BadData, OK, Refusal, checkCode, checkMessage, checkOptions } = require('./errors.cjs')
const { Callback } = require('./callbacks.cjs')
const { encode, unchecked } = require('./json.cjs')
const { isThenable, report, say } = require('./work.cjs')

/** The code that ends a request without an answer. */
const NOTHING = 0
const REFUSED = 401
const FAILED = 500

const OPEN = 0
const LATER = 1
const ANSWERED = 2

/** Returned by a handler: the client gets no answer, ever. */
const NEVER = Symbol('quickio.NEVER')

/** Returned by a handler: an answer that offers a callback, which the client may answer. */
class Answer {
  constructor(data = null, options) {
    const { callback } = checkOptions('Answer', options, 'callback')
    if (callback !== undefined && typeof callback !== 'function') throw new TypeError('a callback is a function')
    this.data = data
    this.callback = callback
  }
}

// The inner workings of requests, for this file alone.
let finish
let offer
let stageOf
let promise
let requestOf

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

  /** The data as it was sent. Nobody has checked that it is JSON. */
  get json() {
    return unchecked(this.#text)
  }

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
    promise = (request) => {
      if (request.#stage === ANSWERED) throw new AlreadyAnswered()
      if (request.#stage === LATER) throw new AlreadyAnswered('there is a promise to answer it already')
      request.#stage = LATER
    }
    offer = (request, run) => request.#link.offer(new Callback(run, undefined, `a callback of ${whatIs(request)}`))
    finish = (request, code, number = 0, message = null, data = 'null') => {
      if (request.#stage === ANSWERED) throw new AlreadyAnswered()
      if (request.#stage === LATER) forgotten.unregister(request)
      request.#stage = ANSWERED
      request.#link.answer(request.#id, code, number, message, data)
    }
  }
}

/** An event that a client sent. */
class Event extends Request {
  #registration

  constructor(link, id, client, text, registration, extra, wantsAnswer) {
    super(link, id, client, text)
    this.extra = extra
    this.wantsAnswer = wantsAnswer
    this.#registration = registration
  }

  get path() {
    return this.#registration.path
  }

  get fullPath() {
    return this.#registration.path + this.extra
  }

  later() {
    return new Later(this)
  }
}

/** A client wants to subscribe; its data is the extra JSON that it sent with its wish. */
class Subscription extends Request {
  constructor(link, id, client, text, registration, extra) {
    super(link, id, client, text)
    this.path = registration.path
    this.extra = extra
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

/** What a client answered to a callback. */
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

/** A promise, which is kept once. One that is forgotten answers 500, when the garbage collector finds it. */
class Promised {
  #request

  constructor(request) {
    promise(request)
    this.#request = request
    forgotten.register(this, request, request)
  }

  static {
    requestOf = (promised) => promised.#request
  }
}

/** A promise to answer. */
class Later extends Promised {
  answer(data) {
    respond(requestOf(this), data)
  }

  error(code, message, data) {
    refuse(requestOf(this), new Refusal(code, message, data))
  }
}

/** A promise to decide about a subscription. */
class LaterDecision extends Promised {
  accept() {
    finish(requestOf(this), OK)
  }

  refuse() {
    finish(requestOf(this), REFUSED)
  }
}

const forgotten = new FinalizationRegistry((request) => {
  if (stageOf(request) !== LATER) return
  say(whatIs(request), 'the promise to answer was forgotten')
  finish(request, FAILED)
})

/** Has a request served, and answered by what that returns or throws. */
function serve(request, handler) {
  let result
  try {
    result = handler(request)
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
    if (isLeftToPromise(request, result)) return
    if (request instanceof Subscription) decide(request, result)
    else respond(request, result)
  } catch (error) {
    fail(request, error)
  }
}

/** Whether there is nothing to be answered now. Who has made a promise need not return it. */
function isLeftToPromise(request, result) {
  if (result === undefined) return stageOf(request) !== OPEN
  return result instanceof Promised && requestOf(result) === request
}

function respond(request, result) {
  if (result === undefined || result === null) return finish(request, OK)
  if (result === NEVER) return finish(request, NOTHING)
  if (result instanceof Promised) throw new TypeError('the promise of another request is no answer')
  if (!(result instanceof Answer)) return finish(request, OK, 0, null, encode(result))
  const data = encode(result.data)
  if (stageOf(request) === ANSWERED) throw new AlreadyAnswered()
  const number = result.callback === undefined ? 0 : offer(request, (reply) => serve(reply, result.callback))
  finish(request, OK, number, null, data)
}

function decide(subscription, result) {
  if (typeof result !== 'boolean') throw new TypeError('an on-hook returns true or false, or its promise')
  finish(subscription, result ? OK : REFUSED)
}

function refuse(request, refusal) {
  checkCode(refusal.code) // an application may have set it
  checkMessage(refusal.text)
  if (request instanceof Subscription) finish(request, refusal.code)
  else finish(request, refusal.code, 0, refusal.text, encode(refusal.data))
}

/** An exception is an answer, too; and a line in the log, where it is no Refusal. */
function fail(request, error) {
  try {
    if (error instanceof Refusal && stageOf(request) !== ANSWERED) return refuse(request, error)
  } catch (unusable) {
    error = unusable // somebody has put into it what cannot be an answer
  }
  report(whatIs(request), error)
  if (stageOf(request) !== ANSWERED) finish(request, FAILED)
}

function whatIs(request) {
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
