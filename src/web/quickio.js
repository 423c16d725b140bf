// The QuickIO client library: events over WebSocket, event streams or polls, in browsers and Node.
// docs/client.md explains how to use it; quickio.d.ts has the types. MIT licence.

globalThis.QuickIO = (() => {
  'use strict'

  // Codes of callbacks that did not get an answer from the server.
  const DISCONNECTED = -1
  const TIMEOUT = -2
  const ABORTED = -3
  const QUEUE_FULL = -4
  const TOO_LARGE = -5

  const BACKOFF_MIN_MS = 100
  const BACKOFF_MAX_MS = 25_600
  const STABLE_MS = 10_000 // a connection that lasted this long resets the backoff
  const BODY_BYTES_MAX = 32 * 1024 // of the events that share one request
  const REQUESTS_MAX = 2 // in flight for one session: one that the server holds, one that sends more events
  const DRAIN_REQUESTS_MAX = 3 // in flight while a session ends: the last one does not wait for those two
  const LEAVE_REQUESTS_MAX = 6 // when the page is left; the server keeps up to 8 that arrive early
  const MESSAGE_BYTES_MAX = 65_536 // the server's default, for servers that do not tell their limit
  const UNASKED_BYTES_MAX = 4096 // sent at once without asking the server for its limit
  const KEEPALIVE_BYTES_MAX = 64 * 1024 // in flight in requests that outlive the page (Fetch, 4.6), all clients together
  const RETRY_AFTER_MAX_MS = 60_000 // a server or proxy cannot ask for a longer pause
  const TIMER_MAX_MS = 2 ** 31 - 1 // timers with a longer time fire at once

  const TOKEN_TIMEOUT_MS = 10_000 // for the application to get a token
  const TOKEN_LEAD_MS = 30_000 // before it expires, another one is got, at the latest
  const TOKEN_AGAIN_MS = 5000 // the shortest time between two tokens, unless one was refused
  const BUSY_AGAIN_MS = 1000 // the longest pause before the first new attempt of a subscription for which the server was busy
  const UNAUTHORIZED_AGAIN_MS = 30_000 // the shortest time between two tokens that refused events have caused

  const LOCAL_EVENTS = new Set(['/open', '/close', '/error', '/transport'])
  const PAGE_EVENTS = ['pageshow', 'visibilitychange', 'online']
  const OHAI = '/qio/ohai'
  const HELLO_ID = 1 // callback number of the first event over HTTP; the callbacks of other events follow

  const defaults = () => ({
    transports: ['websocket', 'stream', 'poll'],
    handshakeTimeout: 5000,
    silenceTimeout: 65_000,
    pollDelay: 2000,
    queueMax: 4096,
    followHostname: false,
    token: undefined,
    WebSocket: globalThis.WebSocket,
    fetch: globalThis.fetch,
    page: globalThis,
    random: Math.random,
    clock: {
      now: () => Date.now(),
      setTimeout: (fn, ms) => setTimeout(fn, ms),
      clearTimeout: (timer) => clearTimeout(timer)
    }
  })

  /** The checks of the options: a predicate, and what it expects. */
  const CHECKS = {
    transports: [(value) => Array.isArray(value), 'a list'],
    handshakeTimeout: [(value) => isTime(value) && value > 0, 'a number of milliseconds above 0'],
    silenceTimeout: [(value) => isTime(value) && value > 0, 'a number of milliseconds above 0'],
    pollDelay: [(value) => isTime(value) && value <= TIMER_MAX_MS, 'a number of milliseconds below 2^31'],
    queueMax: [(value) => isTime(value), 'a number from 0'],
    followHostname: [(value) => typeof value === 'boolean', 'a boolean'],
    token: [(value) => isFunction(value), 'a function'],
    WebSocket: [(value) => value === null || isFunction(value), 'a class or null'],
    fetch: [(value) => value === null || isFunction(value), 'a function or null'],
    page: [(value) => isObject(value), 'an object'],
    random: [(value) => isFunction(value), 'a function'],
    clock: [
      (value) => ['now', 'setTimeout', 'clearTimeout'].every((name) => isFunction(value?.[name])),
      'an object with now, setTimeout and clearTimeout'
    ],
    timeout: [(value) => isTime(value), 'a number of milliseconds from 0'],
    signal: [(value) => isFunction(value?.addEventListener), 'an AbortSignal'],
    onError: [(value) => isFunction(value), 'a function'],
    onRecover: [(value) => isFunction(value), 'a function'],
    recover: [(value) => typeof value === 'boolean', 'a boolean'],
    history: [(value) => isCount(value), 'a whole number from 0 to 2^32-1'],
    limit: [(value) => isCount(value), 'a whole number from 0 to 2^32-1'],
    since: [(value) => parsePosition(value), 'a position such as e7f3.1044'],
    before: [(value) => parsePosition(value), 'a position such as e7f3.1044']
  }

  const ignore = () => {}
  const isFunction = (value) => typeof value === 'function'
  const isObject = (value) => value !== null && typeof value === 'object'
  const isTime = (value) => typeof value === 'number' && value >= 0
  const isCount = (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 32

  /** The reason why an event, a subscription or a connection failed. */
  class QuickIOError extends Error {
    constructor(code, message, data = null) {
      super(message ?? `code ${code}`)
      this.name = { [TIMEOUT]: 'TimeoutError', [ABORTED]: 'AbortError' }[code] ?? 'QuickIOError'
      this.code = code
      this.data = data
    }
  }

  // ---- Arguments ---------------------------------------------------------------------------------------------------

  function requireType(isValid, name, expected, value) {
    if (isValid) return
    const found = typeof value === 'string' ? JSON.stringify(value) : value === null ? 'null' : isObject(value) ? 'an object'
      : String(value)
    throw new TypeError(`${name} must be ${expected}, but is ${found}`)
  }

  /** Checks an option, unless it is absent. */
  function checkOption(name, value) {
    if (value !== undefined) requireType(CHECKS[name][0](value), name, CHECKS[name][1], value)
  }

  /** Checks the arguments of `send` and `reply`, in which `data` and `fn` may be omitted. Returns all three. */
  function sendArguments(data, fn, options) {
    const isCallback = isFunction(data) && (fn === undefined || isObject(fn))
    if (isCallback) [data, fn, options] = [undefined, data, fn]
    else if (isObject(fn)) [fn, options] = [undefined, fn]
    requireType((fn ?? null) === null || isFunction(fn), 'the callback of an event', 'a function or null', fn)
    requireType((options ?? null) === null || isObject(options), 'options', 'an object', options)
    checkOption('timeout', options?.timeout)
    checkOption('signal', options?.signal)
    return { json: toJson(data), fn, options: options ?? {} }
  }

  /** Returns data as JSON, `null` if it is undefined. Throws a TypeError if it cannot be expressed as JSON. */
  function toJson(data) {
    let json
    let cause = `it is a ${typeof data}`
    try {
      json = data === undefined ? 'null' : JSON.stringify(data)
      if (json === undefined && isObject(data)) cause = 'its toJSON returns nothing'
    } catch (error) {
      cause = error?.message ?? String(error)
    }
    if (json === undefined) throw new TypeError(`data cannot be sent as JSON: ${cause}`)
    return json
  }

  /** Checks the options of a subscription. Returns the members of its handler, and the data for the application. */
  function subscribeOptions(options) {
    const isValid = (options ?? null) === null || isFunction(options) || isObject(options)
    requireType(isValid, 'options', 'a function or an object', options)
    const given = isFunction(options) ? { onError: options } : options ?? {}
    for (const name of ['onError', 'onRecover', 'recover', 'history', 'since']) checkOption(name, given[name] ?? undefined)
    const { onError, extra, onRecover, history, since } = given
    // `since` may be null: the application has not stored a position yet.
    const recovers = Boolean(given.recover || onRecover || (history ?? null) !== null || 'since' in given)
    return { extra, handler: { onError, onRecover, recovers, history: history ?? 0, position: parsePosition(since) } }
  }

  // ---- Texts -------------------------------------------------------------------------------------------------------

  /** Returns the number of bytes of a text in UTF-8. Old versions of React Native have no `TextEncoder`. */
  function byteLength(text) {
    let bytes = text.length
    for (let at = 0; at < text.length; at++) {
      const unit = text.charCodeAt(at)
      const isSurrogate = unit >= 0xd800 && unit <= 0xdfff // two of them take four bytes
      if (unit > 0x7f) bytes += unit > 0x7ff && !isSurrogate ? 2 : 1
    }
    return bytes
  }

  /** Returns the event that authenticates a client. */
  function authEvent(id, token) {
    const text = `/qio/auth:${id}=${JSON.stringify(token)}`
    return { id, text, bytes: byteLength(text) }
  }

  /** Normalizes a path in the same way as the server. */
  function normalizePath(path) {
    requireType(typeof path === 'string', 'a path', 'a string', path)
    const normalized = path.replace(/[^\w\-/]/g, '').replace(/\/+/g, '/').replace(/\/$/, '')
    if (!normalized) throw new TypeError(`invalid path: ${path}`)
    return normalized
  }

  /** Parses the text of an event. Returns null if it is malformed; `data` is undefined if it is not JSON. */
  function parseEvent(text) {
    const head = typeof text === 'string' && text.match(/^([^:]*):(\d{1,20})=/)
    return head && { path: head[1], callback: head[2], data: parseData(text.slice(head[0].length)) }
  }

  /** Parses a position, such as `e7f3.1044`: an epoch, and the number of an event in it. Returns null if it is none. */
  function parsePosition(text) {
    const [, epoch, number] = (typeof text === 'string' && text.match(/^([^.\s]{1,64})\.(\d{1,15})$/)) || []
    return epoch ? { epoch, number: Number(number) } : null
  }

  const showPosition = (position) => (position ? `${position.epoch}.${position.number}` : null)

  function parseData(json) {
    try {
      return json.trim() ? JSON.parse(json) : null
    } catch {
      return undefined
    }
  }

  /** The address of a server. It is no `URL`, because most members of React Native's `URL` throw. */
  class Address {
    static #PATTERN = /^(?:(http|ws)(s?):\/\/)?((?:[^\s/?#@]*@)?(?:\[[\da-f:.]+\]|[^\s/?#@:[\]\\<>^|]+))(?::(\d{1,5}))?(\/[^\s?#]*)?(\?[^\s#]*)?(?:#.*)?$/i

    notBefore = 0 // the time before which the server asked not to be tried again

    /** Parses `ws(s)://`, `http(s)://` or `host[:port]`. The last one is secure if `secure` is true. */
    constructor(address, secure) {
      const text = String(address).trim()
      const [, scheme, s, host, port, path = '/', query = ''] = text.match(Address.#PATTERN) ?? []
      if (!host || port > 65_535) throw new TypeError(`not a ws, wss, http or https address: ${text}`)
      this.secure = scheme ? s !== '' : secure
      this.host = host.toLowerCase() + (!port || Number(port) === (this.secure ? 443 : 80) ? '' : `:${Number(port)}`)
      this.target = path + query
    }

    /** Returns the address at another host. */
    at(host) {
      return Object.assign(Object.create(Address.prototype), this, { host })
    }

    /** Returns the address as a URL of `http` or `ws`, with additional parameters. */
    url(scheme, parameters = {}) {
      const added = Object.entries(parameters).map((parameter) => parameter.join('=')).join('&')
      const separator = this.target.includes('?') ? '&' : '?'
      return `${scheme}${this.secure ? 's' : ''}://${this.host}${this.target}${added && separator + added}`
    }
  }

  /** Parses the address to which the server at `from` moves its clients. Returns null if it is not an address. */
  function parseMove(address, from) {
    if (typeof address !== 'string') return null
    try {
      const moved = new Address(address, from.secure)
      // A secure connection must not become an insecure one.
      moved.secure = moved.secure || from.secure
      return moved
    } catch {
      return null
    }
  }

  /** Returns the server that the script was loaded from, otherwise that of the page. */
  function defaultAddress() {
    const [origin] = (QuickIO.source || globalThis.location?.href)?.match(/^https?:\/\/[^/?#]+/) ?? []
    if (!origin) throw new TypeError('the address of the server is missing')
    return origin
  }

  /** Returns the pause in milliseconds that a response asks for, bounded; 0 if it asks for none. */
  function retryAfter({ status, headers }, now) {
    const value = (status === 429 || status === 503) && headers?.get('retry-after')
    const ms = /^\d+$/.test(value) ? value * 1000 : / GMT$/.test(value) ? Date.parse(value) - now : 0
    return ms > 0 ? Math.min(ms, RETRY_AFTER_MAX_MS) : 0
  }

  /** Returns 32 random hex digits that nobody can guess. */
  function randomSid() {
    if (globalThis.crypto?.getRandomValues) {
      const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16))
      return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
    }
    if (!globalThis.process?.versions?.node) throw new Error('crypto.getRandomValues is missing')
    // Node 18 has no global `crypto`, but names object URLs by random UUIDs. An import would end up in every bundle.
    const name = URL.createObjectURL(new Blob())
    URL.revokeObjectURL(name)
    return name.slice(-36).replaceAll('-', '')
  }

  /** Calls a function of the application. Its exceptions are reported as uncaught. */
  function callHandler(fn, ...args) {
    try {
      fn(...args)
    } catch (error) {
      if (globalThis.reportError) globalThis.reportError(error)
      else queueMicrotask(() => { throw error })
    }
  }

  /**
   * Calls `start` with `fn`. If `fn` is undefined, passes a callback that settles the returned promise. The promise
   * counts as handled, so that a rejection is not reported if the application ignores it.
   */
  function promiseOrCallback(fn, start) {
    if (fn !== undefined) return void start(fn)
    const promise = new Promise((resolve, reject) => {
      start((data, _reply, code, message) => {
        if (code === 200) resolve(data)
        else reject(new QuickIOError(code, message, data))
      })
    })
    promise.catch(ignore)
    return promise
  }

  // ---- Connections: each is one attempt, which may open, and ends once ----------------------------------------------

  let keepaliveBytes = 0 // in flight in requests that outlive the page; the limit is that of the page

  /** The common base of all transports. */
  class Connection {
    isOpen = false
    reached = false // something responded: the server, or a proxy in its place
    ended = false // the owner is not called any more; events that were passed to `send` may still be on their way
    gone = Promise.resolve() // once the connection has ended: resolves when nothing is on its way any more
    pending = [] // events that wait to be sent: { id, text, bytes }
    messageMax = 0 // the largest event that the server accepts, in bytes; 0 until it is known
    limitRequested = false

    /**
     * Calls `onOpen()`, `onActivity()`, `onEvent(text)`, `onTooLarge(event, max)`, `requestLimit()` and, once,
     * `onLost(error, pause)` of `owner`.
     */
    constructor(address, options, owner) {
      this.address = address
      this.options = options
      this.owner = owner
      this.clock = options.clock
    }

    /** Returns whether this environment has what the transport needs. */
    static isUsable({ fetch }) {
      return Boolean(fetch)
    }

    begin() {
      this.limitStep(this.options.handshakeTimeout, 'a response')
      try {
        this.start()
      } catch (error) {
        queueMicrotask(() => this.fail(error))
      }
    }

    /** Limits the time of the next step of the handshake. */
    limitStep(ms, expected) {
      this.clock.clearTimeout(this.timer)
      this.timer = this.clock.setTimeout(() => this.fail(new Error(`no ${expected} within ${ms} ms`)), ms)
    }

    open() {
      this.clock.clearTimeout(this.timer)
      this.isOpen = true
      this.owner.onOpen()
    }

    send(event) {
      this.pending.push(event)
      this.flush()
    }

    /** Sets the limit of the server, or the default if the server does not tell its limit. */
    setMessageMax(max) {
      this.messageMax = Number.isInteger(max) && max > 0 ? max : MESSAGE_BYTES_MAX
      if (!this.ended) this.flush()
    }

    /** Returns whether so many bytes may be sent at once. If that depends on the server's limit, requests the limit. */
    knowsLimitFor(bytes) {
      if (this.messageMax || bytes <= UNASKED_BYTES_MAX) return true
      if (!this.limitRequested) {
        this.limitRequested = true
        this.owner.requestLimit()
      }
      return false
    }

    /** Returns the next event to send, or undefined. Removes the events before it that are too large. */
    peek() {
      for (;;) {
        const [event] = this.pending
        if (!event) return undefined
        if (!this.knowsLimitFor(event.bytes)) {
          if (this.pending[0] === event) return undefined
          continue // with the request for the limit
        }
        const max = this.messageMax || MESSAGE_BYTES_MAX
        if (event.bytes <= max) return event
        this.pending.shift()
        this.owner.onTooLarge(event, max)
      }
    }

    fail(error) {
      if (this.ended) return
      this.close(false)
      const { transport } = this.constructor
      this.owner.onLost(new QuickIOError(DISCONNECTED, `${transport}: ${error.message}`), error.pause)
    }

    /**
     * Ends the connection without a call to the owner. If `graceful`, the events that were passed to `send` are still
     * sent. Returns a promise that resolves when that is done.
     */
    close(graceful) {
      if (this.ended) return this.gone
      this.ended = true
      this.clock.clearTimeout(this.timer)
      if (graceful && this.isOpen) {
        this.messageMax = this.messageMax || MESSAGE_BYTES_MAX
        this.gone = this.drain()
      } else {
        this.abort()
      }
      return this.gone
    }

    /** Ends the connection because the page is left. Returns the events that cannot be sent. */
    leave() {
      this.close(true)
      return []
    }
  }

  class WebSocketConnection extends Connection {
    static transport = 'websocket'

    static isUsable({ WebSocket }) {
      return Boolean(WebSocket)
    }

    start() {
      const { WebSocket } = this.options
      const socket = this.socket = new WebSocket(this.address.url('ws'), ['quickio'])
      socket.onopen = () => {
        if (this.ended) return
        this.reached = true
        this.limitStep(this.options.handshakeTimeout, OHAI)
        socket.send(OHAI)
      }
      socket.onmessage = ({ data }) => {
        if (this.ended) return
        if (this.isOpen) this.owner.onEvent(data)
        else if (data === OHAI) this.open()
        else this.fail(new Error(`the first message is not ${OHAI}`))
      }
      socket.onerror = ignore // `onclose` follows
      socket.onclose = ({ code, reason }) => this.fail(new Error(`closed, ${code} ${reason}`.trim()))
    }

    flush() {
      for (let event; (event = this.peek());) {
        this.pending.shift()
        this.socket.send(event.text)
      }
    }

    sendFirst({ text }) {
      this.socket.send(text)
    }

    /** The close frame follows the messages that the socket has not sent yet (RFC 6455, 7.1.2 and the WebSocket API). */
    drain() {
      this.flush()
      return new Promise((resolve) => {
        this.socket.onclose = resolve
        this.socket.close()
      })
    }

    abort() {
      this.socket?.close()
    }
  }

  /**
   * A session over HTTP. Events are sent with POST requests, at most `REQUESTS_MAX` in flight. Requests are numbered,
   * and responses are handled in the order of these numbers, which keeps events in order in both directions.
   */
  class HttpConnection extends Connection {
    base = this.address // the address of requests
    requests = new Map() // in flight: number => { query, body, keepalive }
    requestsSent = 0
    responsesHandled = 0
    earlyResponses = new Map() // request number => response that waits for earlier ones
    abortController = new AbortController()
    lastSent = false // the request that ends the session
    leaving = false // the page is left

    start() {
      this.sid = randomSid()
      this.connect()
    }

    send(event) {
      this.pending.push(event)
      this.flushSoon()
    }

    sendFirst(event) {
      this.pending.unshift(event)
      this.flushSoon()
    }

    /** Flushes after the current task: events that are sent together share requests. */
    flushSoon() {
      if (this.flushing) return
      this.flushing = true
      queueMicrotask(() => {
        this.flushing = false
        if (!this.ended) this.flush()
      })
    }

    flush() {
      while (this.requests.size < REQUESTS_MAX && this.peek()) this.post()
    }

    /** Removes from `pending` the events that fit into one request, of at most `free` bytes. */
    takeBody(free = Infinity) {
      const texts = []
      if (!this.messageMax) this.knowsLimitFor(this.pending.reduce((sum, { bytes }) => sum + bytes, 0))
      for (let bytes = -1, event; (event = this.peek());) {
        bytes += event.bytes + 1
        const fits = bytes <= Math.min(BODY_BYTES_MAX, this.messageMax || MESSAGE_BYTES_MAX) && this.knowsLimitFor(bytes)
        // A single event may be longer than a body of several.
        if (bytes > free || (texts.length && !fits)) break
        this.pending.shift()
        texts.push(event.text)
      }
      return texts.join('\n')
    }

    async post(query, body = this.takeBody()) {
      const number = ++this.requestsSent
      const { silenceTimeout } = this.options
      const late = () => this.fail(new Error(`no response for ${silenceTimeout} ms`))
      const timer = this.clock.setTimeout(late, silenceTimeout)
      try {
        const response = await this.requestWithRetry(number, { query, body })
        if (this.ended) return this.onDrained(query)
        this.earlyResponses.set(number, response)
        this.handleResponses()
      } catch (error) {
        if (!this.ended) this.fail(error)
        else if (!this.leaving) this.abort()
      } finally {
        this.clock.clearTimeout(timer)
      }
    }

    /** Repeats a failed request once. Its number tells the server whether it has already handled the request. */
    async requestWithRetry(number, request) {
      this.requests.set(number, request)
      try {
        return await this.request(number, request, this.ended && this.mayOutlivePage(request.body))
      } catch (error) {
        const isOver = this.abortController.signal.aborted || !this.isOpen
        if (isOver || (error.status && this.base === this.address)) throw error
        this.base = this.address // the host name of the server may be unreachable from here
        return await this.request(number, request, false)
      } finally {
        this.requests.delete(number)
      }
    }

    mayOutlivePage(body) {
      return keepaliveBytes + byteLength(body) <= KEEPALIVE_BYTES_MAX
    }

    async request(number, request, keepalive) {
      const bytes = keepalive ? byteLength(request.body) : 0
      keepaliveBytes += bytes
      request.keepalive = keepalive
      try {
        const init = { method: 'POST', body: request.body, keepalive }
        const response = await this.fetch({ ...request.query, seq: number }, init)
        return await response.text()
      } finally {
        keepaliveBytes -= bytes
      }
    }

    async fetch(query, init) {
      const { fetch } = this.options
      const url = this.base.url('http', { sid: this.sid, ...query })
      const response = await fetch(url, { cache: 'no-store', signal: this.abortController.signal, ...init })
      this.reached = true
      const { status } = response
      if (status === 200) return response
      const pause = retryAfter(response, this.clock.now())
      throw Object.assign(new Error(`HTTP status ${status}`), { status, pause })
    }

    handleResponses() {
      let empty = true
      while (this.earlyResponses.has(this.responsesHandled + 1)) {
        const text = this.earlyResponses.get(++this.responsesHandled)
        this.earlyResponses.delete(this.responsesHandled)
        this.owner.onActivity()
        for (const line of text.split(/[\r\n]+/)) {
          if (!line) continue
          empty = false
          this.handleEvent(line)
        }
      }
      if (!this.ended) this.afterResponses(empty)
    }

    handleEvent(text) {
      if (this.ended) return
      if (this.isOpen) return this.owner.onEvent(text)
      const answer = parseEvent(text)
      if (answer?.path !== `/qio/callback/${HELLO_ID}`) return this.fail(new Error('the first event is not an answer'))
      if (this.options.followHostname) this.adoptHostname(answer.data)
      this.open()
    }

    /** Sends further requests to the host that answered: behind an address of several hosts, only it has the session. */
    adoptHostname(answer) {
      const named = answer?.code === 200 && parseMove(answer.data, this.address)
      if (named && named.host !== this.address.host) this.base = this.address.at(named.host)
    }

    queueHello() {
      const text = `/qio/hostname:${HELLO_ID}=null`
      this.pending.push({ id: HELLO_ID, text, bytes: text.length })
    }

    /** Sends what is pending, then ends the session. Gives up if no response arrives for `handshakeTimeout`. */
    drain() {
      return new Promise((resolve) => {
        this.onAborted = resolve
        this.limitDrain()
        this.postPending(DRAIN_REQUESTS_MAX)
      })
    }

    limitDrain() {
      this.clock.clearTimeout(this.timer)
      this.timer = this.clock.setTimeout(() => this.abort(), this.options.handshakeTimeout)
    }

    /** The last request is numbered after the others: the server handles those before it ends the session. */
    postPending(requestsMax) {
      while (!this.lastSent && this.requests.size < requestsMax) {
        const body = this.takeBody()
        this.lastSent = !this.peek()
        this.post(this.lastSent ? { close: true } : {}, body)
      }
    }

    /** Continues after a response. When the last request is answered, the server has handled all others. */
    onDrained(query) {
      if (query?.close) return this.abort()
      this.limitDrain()
      this.postPending(DRAIN_REQUESTS_MAX)
    }

    abort() {
      this.clock.clearTimeout(this.timer)
      this.clock.clearTimeout(this.pause)
      this.abortController.abort()
      this.onAborted?.()
    }

    /**
     * Browsers abort the requests of a page that is left, except those with `keepalive`, whose bodies may have 64 KiB
     * together. Repeats the requests in flight as such requests, because the server may not have received them, and
     * sends as many pending events as fit.
     */
    leave() {
      if (!this.isOpen || this.abortController.signal.aborted) return super.leave()
      this.gone = this.ended ? this.gone : new Promise((resolve) => { this.onAborted = resolve })
      this.ended = this.leaving = true
      this.messageMax = this.messageMax || MESSAGE_BYTES_MAX
      this.limitDrain()
      for (const [number, request] of this.requests) {
        if (!request.body || request.keepalive) continue
        if (!this.mayOutlivePage(request.body)) break
        this.request(number, request, true).catch(ignore)
      }
      if (this.lastSent) return []
      const bodies = []
      for (let free = KEEPALIVE_BYTES_MAX - keepaliveBytes; bodies.length < LEAVE_REQUESTS_MAX;) {
        const body = this.takeBody(free)
        if (!body) break
        free -= byteLength(body)
        bodies.push(body)
      }
      const [left, last] = [this.pending.splice(0), bodies.pop() ?? '']
      for (const body of bodies) this.post({}, body)
      this.lastSent = true
      this.post({ close: true }, last)
      return left
    }
  }

  /** Events arrive in responses to requests. The server holds one request until it has events. */
  class PollConnection extends HttpConnection {
    static transport = 'poll'

    connect() {
      this.queueHello()
      this.limitStep(2 * this.options.handshakeTimeout, 'a response')
      this.post({ connect: true })
    }

    flush() {
      super.flush()
      if (!this.requests.size) this.post()
    }

    /** After events, more are likely: the next poll follows at once. Otherwise it waits for a pause. */
    afterResponses(empty) {
      this.clock.clearTimeout(this.pause)
      if (this.pending.length || !empty) return this.flushSoon()
      const { pollDelay, random } = this.options
      if (this.requests.size) return
      this.pause = this.clock.setTimeout(() => this.ended || this.flush(), random() * pollDelay)
    }
  }

  /** Events arrive in one response that does not end. */
  class StreamConnection extends HttpConnection {
    static transport = 'stream'

    /** React Native has no streams: its `fetch` would wait for the end of the response. */
    static isUsable({ fetch }) {
      return Boolean(fetch && globalThis.ReadableStream && globalThis.TextDecoder)
    }

    async connect() {
      try {
        const response = await this.fetch({ connect: true, linger: true }, { headers: { Accept: 'text/event-stream' } })
        const reader = response.body.getReader()
        const decoder = new TextDecoder()
        for (let rest = ''; !this.ended;) {
          const { done, value } = await reader.read()
          if (done) throw new Error('the stream ended')
          const lines = (rest + decoder.decode(value, { stream: true })).split('\n')
          rest = lines.pop()
          this.owner.onActivity()
          for (const line of lines) this.handleLine(line.replace(/\r$/, ''))
        }
      } catch (error) {
        this.fail(error)
      }
    }

    handleLine(line) {
      if (this.ended || !line) return
      if (!this.greeted) return line === ': quickio' ? this.onGreeting() : this.fail(new Error('not an event stream'))
      if (line.startsWith('data:')) this.handleEvent(line.slice(5).trimStart())
    }

    onGreeting() {
      this.greeted = true
      if (!this.options.followHostname) return this.open()
      this.queueHello()
      this.flush()
    }

    afterResponses() {
      this.flush()
    }
  }

  const CONNECTIONS = { websocket: WebSocketConnection, stream: StreamConnection, poll: PollConnection }

  function withDefaults(options) {
    requireType((options ?? null) === null || isObject(options), 'options', 'an object', options)
    const all = defaults()
    for (const [name, value] of Object.entries(options ?? {})) {
      if (!Object.keys(all).includes(name)) throw new TypeError(`no such option: ${name}`)
      checkOption(name, value)
      if (value !== undefined) all[name] = value
    }
    const { clock, random } = all
    return { ...all, clock: limitedTimers(clock), random: () => Math.min(1, Math.max(0, Number(random()) || 0)) }
  }

  /** Wraps a clock, whose timers would fire at once if their time were too long for them. Such a time is no limit. */
  function limitedTimers(clock) {
    return {
      now: () => clock.now(),
      setTimeout: (fn, ms) => (ms <= TIMER_MAX_MS ? clock.setTimeout(fn, ms) : undefined),
      clearTimeout: (timer) => { if (timer !== undefined) clock.clearTimeout(timer) }
    }
  }

  /** Returns the transports that this environment supports. */
  function usableTransports({ transports, ...options }) {
    for (const name of transports) {
      if (!Object.keys(CONNECTIONS).includes(name)) throw new TypeError(`no such transport: ${String(name)}`)
    }
    const found = transports.filter((name) => CONNECTIONS[name].isUsable(options))
    if (!found.length) throw new TypeError('no usable transport: pass WebSocket or fetch as an option')
    return found
  }

  // ---- The client --------------------------------------------------------------------------------------------------

  /** The handlers of a path, and the state of its subscription on this connection. */
  class Subscription {
    handlers = []
    active = false
    requestId = 0 // the callback of the latest `/qio/on`
    deferred = false // the latest one was answered with 202: the answer to an earlier one decides
    position = null // behind the last event, if the server numbers the events
    plain = false // on this connection without options: the server keeps no events of the path, or knows no options
    outdated = false // a handler wants earlier events, which the latest `/qio/on` does not ask for
    attempts = 0 // for which the server was busy
    timer // for the next of them

    constructor(path, extra) {
      this.path = toJson(path)
      this.extra = extra === undefined ? undefined : toJson(extra)
    }

    /** Whether to ask for positions, and for the events since then. */
    get recovers() {
      return !this.plain && this.handlers.some(({ recovers }) => recovers)
    }

    /** Returns the data of `/qio/on`. */
    request() {
      const { path, extra } = this
      if (this.recovers) return `[${path},${extra ?? null},${JSON.stringify(this.#options())}]`
      return extra ? `[${path},${extra}]` : path
    }

    /** Asks for what the handler needs that is furthest behind. */
    #options() {
      const history = Math.max(...this.handlers.map((handler) => handler.history))
      if (!this.position) return { history }
      const { epoch, number } = this.position
      const numbers = this.handlers.map(({ position, history }) => (position?.epoch === epoch ? position.number : number - history))
      const since = `${epoch}.${Math.max(0, Math.min(...numbers))}`
      return history ? { since, history } : { since }
    }

    /**
     * Begins at the position `at`, before which so many earlier events follow. Returns what each handler is told: whether
     * it gets all events that it has not had yet.
     */
    begin(at, { events, complete } = {}) {
      const first = at && at.number - events
      this.position = at && { ...at, number: first }
      return this.handlers.map((handler) => {
        const { position, history } = handler
        const recovered = Boolean(at) && position?.epoch === at.epoch && first <= position.number && position.number <= at.number &&
          (complete || events > 0)
        if (!recovered) handler.position = at && { ...at, number: Math.max(first, at.number - history) }
        const count = at ? at.number - handler.position.number : 0
        return { handler, recovery: { recovered, events: count, position: showPosition(handler.position) } }
      })
    }

    /** Moves on by events that were lost. Returns what the handlers are told that have not had them. */
    lose(lost) {
      const until = { ...this.position, number: this.position.number + (lost ?? 0) }
      this.position = until
      const behind = this.handlers.filter(({ position }) => lost === null || position.number < until.number)
      return behind.map((handler) => {
        if (lost !== null) handler.position = until
        return { handler, recovery: { recovered: false, events: 0, position: showPosition(handler.position), lost } }
      })
    }

    /** Returns whether a handler gets an event with this position, or without one. */
    reaches({ recovers, position }, at) {
      if (at) return at.number > position.number
      return !recovers || (this.active && !this.position)
    }
  }

  /**
   * A client of a QuickIO server. It connects at once, and again whenever the connection is lost, until it is closed.
   *
   *     const qio = new QuickIO('wss://example.com')
   *     qio.on('/chat/room', (data) => show(data))
   *     const answer = await qio.send('/chat/say', { text: 'hello' })
   */
  class QuickIO {
    static Error = QuickIOError

    /** The address of this script. Its server is the default server. */
    static source = globalThis.document?.currentScript?.src

    #options
    #clock
    #transports
    #urls
    #urlIndex = 0 // of the address in use
    #movedUrl = null // the address of the last `/qio/move`, until a connection to it fails
    #state = 'connecting'
    #connection = null
    #timer // waiting: for the next attempt; open: for the silence timeout
    #backoff = BACKOFF_MIN_MS
    #attempted = false
    #lastTransport = null // the transport of the last open connection
    #openedAt = 0
    #lastActivityAt = 0
    #lastId = HELLO_ID
    #callbacks = new Map() // id => { fn, sent, release, event, retried }
    #tokenTimer // open, with a token: until another one is got
    #tokenAt = -Infinity // when the last token was got
    #authenticating = null // a promise of the result, while a token is got and sent
    #queue = [] // events that wait for a connection: { id, text, bytes }
    #ending = new Set() // connections that still send what was passed to `send`
    #subscriptions = new Map() // path => Subscription; client-side events too

    /**
     * @param urls one address or a list in order of preference: `ws(s)://`, `http(s)://` or `host[:port]`. The default
     *     is the server that this script was loaded from.
     * @param options see docs/client.md
     */
    constructor(urls, options) {
      this.#options = withDefaults(options)
      this.#clock = this.#options.clock
      this.#transports = usableTransports(this.#options)
      this.#urls = [urls ?? defaultAddress()].flat().map((url) => {
        requireType(typeof url === 'string' || typeof url?.href === 'string', 'the address of a server', 'a string or URL', url)
        return new Address(url, globalThis.location?.protocol === 'https:')
      })
      if (!this.#urls.length) throw new TypeError('the list of addresses is empty')
      // Connects after the current task, so that the application can add handlers first.
      queueMicrotask(() => {
        if (this.#state === 'connecting' && !this.#connection) this.reconnect()
      })
    }

    /** `connecting`, `open`, `waiting` (for the next attempt) or `closed`. */
    get state() {
      return this.#state
    }

    /** `websocket`, `stream` or `poll`; null while there is no open connection. */
    get transport() {
      return this.#state === 'open' ? this.#lastTransport : null
    }

    /**
     * Subscribes to a path, or listens to `/open`, `/close`, `/error` or `/transport`.
     *
     * @param fn called with `(data, reply)` for each event; `reply` is defined if the server requests a reply
     * @param options a function that is called with the error if the subscription is refused; or `{ onError, extra }`,
     *     where `extra` is data for the server's application; also `{ history, since, recover, onRecover }`, with which
     *     the handler gets earlier events, and those that it misses while the connection is lost
     * @returns a promise that resolves when the subscription is active, and rejects if it is refused
     */
    on(path, fn, options) {
      return this.#addHandler(normalizePath(path), fn, false, options)
    }

    /** Like `on`, but for one event only. */
    one(path, fn, options) {
      return this.#addHandler(normalizePath(path), fn, true, options)
    }

    /** Removes one handler, or all handlers of a path. The removal of the last one ends the subscription. */
    off(path, fn) {
      requireType((fn ?? null) === null || isFunction(fn), 'the handler to remove', 'a function', fn)
      this.#removeHandlers(normalizePath(path), (handler) => !fn || handler.fn === fn)
    }

    /** Returns the position of a path behind the last event, or null if its events have none. */
    position(path) {
      return showPosition(this.#subscriptions.get(normalizePath(path))?.position)
    }

    /**
     * Reads earlier events of a path, without subscribing.
     *
     * @param options `{ limit, before }`: the number of events, and the position before which they are; also those of
     *     `send`
     * @returns a promise of a list of `{ position, data }`, the oldest first
     */
    history(path, options) {
      requireType((options ?? null) === null || isObject(options), 'options', 'an object', options)
      const { limit, before, ...others } = options ?? {}
      checkOption('limit', limit ?? undefined)
      checkOption('before', before ?? undefined)
      const asked = [normalizePath(path), { limit: limit ?? undefined, before: before ?? undefined }]
      const events = this.send('/qio/history', asked, others).then(({ at, events }) => {
        const { epoch } = parsePosition(at)
        return events.map(([number, data]) => ({ position: showPosition({ epoch, number }), data }))
      })
      events.catch(ignore)
      return events
    }

    /**
     * Sends an event.
     *
     * @param fn called once with `(data, reply, code, errMsg)`, for the answer or for an error; null if no answer is
     *     needed; `data` may be omitted
     * @param options `{ timeout, signal }`: milliseconds, and an AbortSignal
     * @returns without `fn`, a promise of the data of the answer; it rejects with an error that has `code` and `data`
     */
    send(path, ...rest) {
      const normalized = normalizePath(path)
      const { json, fn, options } = sendArguments(...rest)
      return promiseOrCallback(fn, (fn) => this.#send(normalized, json, fn, options))
    }

    /**
     * Ends the connection permanently, after the events that were passed to `send`. Handlers are kept: `reconnect`
     * subscribes them again.
     *
     * @returns a promise that resolves when the events have been sent and the connection has ended, or when the server
     *     cannot be reached
     */
    async close() {
      const { page } = this.#options
      for (const name of PAGE_EVENTS) page.removeEventListener?.(name, this.#onPageActive)
      const error = new QuickIOError(DISCONNECTED, 'closed')
      const unsent = this.#queue.splice(0)
      this.#disconnect(error, 'closed')
      if (unsent.length) this.#deliver(unsent)
      this.#failCallbacks('closed', () => true)
      for (const { handlers } of this.#subscriptions.values()) handlers.forEach(({ reject }) => reject(error))
      while (this.#ending.size) await Promise.all([...this.#ending].map(({ gone }) => gone))
      if (this.#state === 'closed') page.removeEventListener?.('pagehide', this.#onPageHide)
    }

    /** Opens a new connection at once. Ends the current connection, if any; reopens a closed client. */
    reconnect() {
      const { page } = this.#options
      page.addEventListener?.('pagehide', this.#onPageHide)
      for (const name of PAGE_EVENTS) page.addEventListener?.(name, this.#onPageActive)
      this.#backoff = BACKOFF_MIN_MS
      this.#disconnect(new QuickIOError(DISCONNECTED, 'reconnecting'), 'connecting')
    }

    // -- Connecting

    get #url() {
      return this.#movedUrl ?? this.#urls[this.#urlIndex]
    }

    #connect() {
      this.#state = 'connecting'
      // The network may return between two attempts of this round. Unless HTTP was used last, WebSocket is retried.
      const retry = this.#attempted && (!this.#lastTransport || this.#lastTransport === 'websocket')
      this.#attempted = true
      this.#tryTransports(this.#transports, retry)
    }

    /** Tries the transports in order. With `retry`, starts again once if a later transport than the first one opens. */
    #tryTransports([name, ...others], retry) {
      if (!name) return this.#allFailed()
      const connection = this.#connection = new CONNECTIONS[name](this.#url, this.#options, {
        onActivity: () => this.#recordActivity(),
        onEvent: (text) => this.#onEvent(text),
        onTooLarge: (event, max) => this.#onTooLarge(event, max),
        requestLimit: () => this.#requestLimit(connection),
        onOpen: () => {
          if (!retry || name === this.#transports[0]) return this.#onConnected(connection, name)
          // The network works now, and perhaps did not when the earlier transports were tried.
          connection.close(false)
          this.#tryTransports(this.#transports, false)
        },
        onLost: (error, pause) => {
          if (pause) connection.address.notBefore = this.#clock.now() + pause * (1 + this.#options.random() / 2)
          if (this.#state === 'open') return this.#onLost(error)
          const retryLater = retry && !connection.reached
          this.#dispatch('/error', error)
          // A server that asks for a pause is not asked again over another transport.
          if (this.#connection === connection) this.#tryTransports(pause ? [] : others, retryLater)
        }
      })
      connection.begin()
    }

    /** Connects once more, to send the events that were still queued when the client was closed. */
    #deliver(events) {
      const attempt = ([name, ...others], done) => {
        if (!name) return done()
        const connection = new CONNECTIONS[name](this.#url, this.#options, {
          onActivity: ignore,
          onEvent: ignore,
          onTooLarge: (event, max) => this.#onTooLarge(event, max),
          requestLimit: ignore,
          onOpen: async () => {
            // The server handles the events behind a token when it has verified it.
            const token = this.#options.token && await this.#getToken().catch(ignore)
            if (token) connection.send(authEvent(0, token))
            for (const event of events) connection.send(event)
            this.#end(connection)
            done()
          },
          onLost: () => attempt(others, done)
        })
        connection.begin()
      }
      const delivery = { gone: new Promise((done) => attempt(this.#transports, done)), leave: ignore }
      this.#ending.add(delivery)
      delivery.gone.then(() => this.#ending.delete(delivery))
    }

    /** Ends a connection after what was passed to its `send`. */
    #end(connection) {
      this.#ending.add(connection)
      connection.close(true).then(() => this.#ending.delete(connection))
    }

    // -- Tokens

    /** Authenticates, if the application gives tokens, before anything else is sent. */
    async #onConnected(connection, name) {
      if (!this.#options.token) return this.#onOpen(name)
      const error = await this.#authenticate(connection)
      if (this.#connection !== connection || this.#state !== 'connecting') return
      if (!error) return this.#onOpen(name)
      connection.close(false)
      this.#dispatch('/error', error)
      if (this.#connection === connection) this.#allFailed()
    }

    /** Sends a token, and another one if that is refused. Resolves to the error, or to null. */
    #authenticate(connection) {
      const attempt = async () => {
        const error = await this.#sendToken(connection)
        return error?.code === 401 ? this.#sendToken(connection) : error
      }
      this.#authenticating ??= attempt().finally(() => { this.#authenticating = null })
      return this.#authenticating
    }

    /** Gets a token from the application and sends it. Resolves to the error, or to null. */
    async #sendToken(connection) {
      let token
      try {
        token = await this.#getToken()
      } catch (error) {
        return new QuickIOError(DISCONNECTED, `no token: ${error?.message ?? error}`)
      }
      this.#tokenAt = this.#clock.now()
      // Without a token the client stays unknown, which the server may permit.
      if (!token || this.#connection !== connection) return null
      return new Promise((resolve) => {
        const id = ++this.#lastId
        const answered = (data, _reply, code, message) => {
          // An old server, or one without authentication, does not know the event.
          if (code === 200) this.#watchToken(data?.expires)
          resolve(code === 200 || code === 404 ? null : new QuickIOError(code, message, data))
        }
        this.#addCallback(id, answered, { timeout: this.#options.handshakeTimeout })
        this.#callbacks.get(id).sent = true
        connection.send(authEvent(id, token))
      })
    }

    /** Gets a token from the application, within a time. */
    async #getToken() {
      const token = await new Promise((resolve, reject) => {
        const late = () => reject(new Error(`none within ${TOKEN_TIMEOUT_MS} ms`))
        const timer = this.#clock.setTimeout(late, TOKEN_TIMEOUT_MS)
        const call = async () => this.#options.token()
        call().then(resolve, reject).finally(() => this.#clock.clearTimeout(timer))
      })
      requireType((token ?? null) === null || typeof token === 'string', 'the token', 'a string', token)
      return token
    }

    /** Gets another token before this one expires. Clients whose tokens expire together do not ask together. */
    #watchToken(expires) {
      this.#clock.clearTimeout(this.#tokenTimer)
      if (typeof expires !== 'number') return
      const left = expires * 1000 - this.#clock.now()
      const lead = Math.min(TOKEN_LEAD_MS, left / 5) * (1 + this.#options.random())
      this.#tokenTimer = this.#clock.setTimeout(() => this.#refreshToken(), Math.max(TOKEN_AGAIN_MS, left - lead))
    }

    /** Sends another token over the open connection. Resolves to whether it was accepted. */
    async #refreshToken() {
      const connection = this.#connection
      if (this.#state !== 'open') return false
      const error = await this.#authenticate(connection)
      if (!error || this.#connection !== connection) return !error
      this.#dispatch('/error', error)
      // The server closes the connection some time after the token has expired, and the next one begins with a token.
      if (this.#state === 'open') this.#tokenTimer = this.#clock.setTimeout(() => this.#refreshToken(), TOKEN_AGAIN_MS)
      return false
    }

    /** Sends an event that was refused with 401 once more, with another token. Returns false if that is not tried. */
    #retryWithToken(id) {
      const callback = this.#callbacks.get(id)
      const isRecent = this.#clock.now() - this.#tokenAt < UNAUTHORIZED_AGAIN_MS
      if (!callback?.event || callback.retried || this.#state !== 'open' || isRecent && !this.#authenticating) return false
      callback.retried = true
      const connection = this.#connection
      this.#refreshToken().then(() => {
        if (this.#connection === connection && this.#callbacks.has(id)) connection.send(callback.event)
      })
      return true
    }

    /** Switches to the next address, if there is one, and waits for the next attempt. */
    #allFailed() {
      if (this.#movedUrl) this.#movedUrl = null
      else this.#urlIndex = (this.#urlIndex + 1) % this.#urls.length
      this.#waitToConnect()
    }

    #onOpen(name) {
      const changed = name !== this.#lastTransport
      this.#state = 'open'
      this.#lastTransport = name
      this.#openedAt = this.#clock.now()
      this.#recordActivity()
      this.#watchSilence()
      for (const [path, subscription] of this.#subscriptions) {
        subscription.plain = false // another server may answer, or other rules apply
        if (!LOCAL_EVENTS.has(path)) this.#subscribe(path, subscription)
      }
      for (const event of this.#queue.splice(0)) this.#transmit(event)
      if (changed) this.#dispatch('/transport', name)
      if (this.#state === 'open') this.#dispatch('/open', name)
    }

    /** Ends the connection, if any, and changes the state. Handlers, which may change it again, are called last. */
    #disconnect(error, state) {
      const wasOpen = this.#state === 'open'
      if (this.#connection) this.#end(this.#connection)
      this.#connection = null
      this.#clock.clearTimeout(this.#timer)
      this.#clock.clearTimeout(this.#tokenTimer)
      this.#state = state
      for (const subscription of this.#subscriptions.values()) {
        subscription.active = false
        this.#clock.clearTimeout(subscription.timer)
      }
      if (wasOpen && this.#clock.now() - this.#openedAt >= STABLE_MS) this.#backoff = BACKOFF_MIN_MS
      if (state === 'connecting') this.#connect()
      if (state === 'waiting') this.#waitToConnect()
      this.#failCallbacks('disconnected', ({ sent }) => sent)
      if (wasOpen) this.#dispatch('/close', error)
    }

    #onLost(error) {
      this.#connection?.close(false) // not graceful: the peer is unreachable or sends invalid data
      this.#disconnect(error, 'waiting')
    }

    #waitToConnect() {
      this.#connection = null
      this.#state = 'waiting'
      const backoff = (this.#backoff * (1 + this.#options.random())) / 2
      const pause = Math.max(backoff, this.#url.notBefore - this.#clock.now())
      this.#backoff = Math.min(BACKOFF_MAX_MS, this.#backoff * 2)
      this.#timer = this.#clock.setTimeout(() => this.#connect(), pause)
    }

    // -- Liveness

    #recordActivity() {
      this.#lastActivityAt = this.#clock.now()
    }

    /** Returns the time since the last received data. It restarts from 0 if the clock was set back. */
    #silence() {
      const silence = this.#clock.now() - this.#lastActivityAt
      if (silence >= 0) return silence
      this.#recordActivity()
      return 0
    }

    #watchSilence() {
      const left = this.#options.silenceTimeout - this.#silence()
      if (left > 0) this.#timer = this.#clock.setTimeout(() => this.#watchSilence(), left)
      else this.#onLost(new QuickIOError(DISCONNECTED, 'no data received for too long'))
    }

    /** Checks the connection, or connects at once, when the page becomes visible or the network returns. */
    #onPageActive = () => {
      if (this.#options.page.document?.visibilityState === 'hidden') return
      const { silenceTimeout, handshakeTimeout } = this.#options
      if (this.#state === 'waiting') return this.reconnect()
      if (this.#state !== 'open' || this.#silence() < handshakeTimeout) return
      if (this.#silence() >= silenceTimeout) return this.reconnect()
      const noAnswer = (_data, _reply, code) => {
        if (code === TIMEOUT) this.reconnect()
      }
      this.#sendOrQueue('/qio/ping', 'null', noAnswer, { timeout: handshakeTimeout })
    }

    /**
     * Disconnects when the user leaves the page. If the browser restores the page, `pageshow` reconnects, and events
     * that could not be sent are sent then.
     */
    #onPageHide = () => {
      for (const connection of this.#ending) connection.leave()
      if (this.#state === 'closed') return
      const unsent = this.#state === 'open' ? this.#connection.leave() : []
      for (const { id } of unsent) {
        const callback = this.#callbacks.get(id)
        if (callback) callback.sent = false
      }
      this.#queue.unshift(...unsent)
      this.#disconnect(new QuickIOError(DISCONNECTED, 'the page was hidden'), 'waiting')
      this.#clock.clearTimeout(this.#timer)
    }

    // -- Sending

    /** Sends or queues an event of the application, unless the client is closed or the queue is full. */
    #send(path, json, fn, options) {
      const { queueMax } = this.#options
      const full = this.#state === 'open' ? this.#connection.pending.length > queueMax : this.#queue.length >= queueMax
      if (this.#state === 'closed') this.#failSend(fn, DISCONNECTED, 'closed')
      else if (options?.signal?.aborted) this.#failSend(fn, ABORTED, 'aborted')
      else if (full) this.#failSend(fn, QUEUE_FULL, `the queue is full: ${queueMax} events`)
      else this.#sendOrQueue(path, json, fn, options)
    }

    /** Reports the failure of a send, after `send` has returned. */
    #failSend(fn, code, message) {
      if (fn) queueMicrotask(() => callHandler(fn, null, undefined, code, message))
      else if (code === QUEUE_FULL) this.#dispatch('/error', new QuickIOError(code, message))
    }

    /** Sends or queues an event. If there is a `fn`, requests an answer. Returns the number of the callback, or 0. */
    #sendOrQueue(path, json, fn, options) {
      const id = fn ? ++this.#lastId : 0
      const text = `${path}:${id}=${json}`
      const event = { id, text, bytes: byteLength(text) }
      if (fn) this.#addCallback(id, fn, options)
      if (this.#state === 'open') this.#transmit(event)
      else this.#queue.push(event)
      return id
    }

    #transmit(event) {
      const callback = this.#callbacks.get(event.id)
      if (callback) callback.sent = true
      if (callback && this.#options.token) callback.event = event
      this.#connection.send(event)
    }

    /** Asks the server for its limit, before the events that are not sent yet. Old servers do not know the question. */
    #requestLimit(connection) {
      const id = ++this.#lastId
      const answered = (data) => connection.setMessageMax(data?.message_bytes_max)
      this.#addCallback(id, answered, { timeout: this.#options.handshakeTimeout })
      this.#callbacks.get(id).sent = true
      const text = `/qio/limits:${id}=null`
      connection.sendFirst({ id, text, bytes: text.length })
    }

    /** Reports an event that is too large, after `send` has returned. */
    #onTooLarge({ id, bytes }, max) {
      const message = `the event has ${bytes} bytes, but the server accepts at most ${max}`
      queueMicrotask(() => {
        if (id) this.#completeCallback(id, null, undefined, TOO_LARGE, message)
        else this.#dispatch('/error', new QuickIOError(TOO_LARGE, message))
      })
    }

    #addCallback(id, fn, { timeout, signal } = {}) {
      const fail = (code, message) => {
        this.#queue = this.#queue.filter((event) => event.id !== id)
        this.#completeCallback(id, null, undefined, code, message)
      }
      const aborted = () => fail(ABORTED, 'aborted')
      const timer = timeout === undefined ? undefined
        : this.#clock.setTimeout(() => fail(TIMEOUT, `no answer within ${timeout} ms`), timeout)
      signal?.addEventListener('abort', aborted)
      const release = () => {
        this.#clock.clearTimeout(timer)
        signal?.removeEventListener('abort', aborted)
      }
      this.#callbacks.set(id, { fn, sent: false, release })
    }

    #completeCallback(id, data, reply, code, message) {
      const callback = this.#callbacks.get(id)
      if (!callback) return
      this.#callbacks.delete(id)
      callback.release()
      callHandler(callback.fn, data, reply, code, message)
    }

    #failCallbacks(message, predicate) {
      for (const [id, callback] of [...this.#callbacks]) {
        if (predicate(callback)) this.#completeCallback(id, null, undefined, DISCONNECTED, message)
      }
    }

    // -- Receiving

    #onEvent(text) {
      this.#recordActivity()
      const event = parseEvent(text)
      if (!event || !this.#handleEvent(event)) {
        const error = new QuickIOError(DISCONNECTED, `malformed event: ${String(text).slice(0, 100)}`)
        this.#onLost(error)
        this.#dispatch('/error', error)
      }
    }

    /** Handles an event. Returns false if it is malformed. */
    #handleEvent({ path, callback, data }) {
      const [, number, numbered] = path.match(/^\/qio\/at\/(\d{1,15})(\/.*)$/) ?? []
      if (numbered) return this.#onNumbered(numbered, Number(number), data)
      if (data === undefined) return this.#handleInvalidData(path)
      if (path.startsWith('/qio/callback/')) return this.#handleAnswer(path.slice(14), callback, data)
      if (path === '/qio/move') return this.#moveTo(data)
      if (path === '/qio/at' || path === '/qio/lost') return this.#onPosition(path, data)
      if (path === '/qio/off') this.#onRevoked(data)
      else if (path === '/qio/heartbeat') {
        if (Number(callback)) this.#sendOrQueue(`/qio/callback/${callback}`, 'null', null)
      } else if (!LOCAL_EVENTS.has(path)) {
        this.#dispatch(path, data, this.#replyTo(callback))
      }
      return true
    }

    /** Invalid data of another client, forwarded unchecked by an application, must not end the connection. */
    #handleInvalidData(path) {
      if (path.startsWith('/qio/')) return false
      const message = `the data of an event at ${path} is not JSON`
      if (this.#subscriptions.has(path)) this.#dispatch('/error', new QuickIOError(400, message))
      return true
    }

    #handleAnswer(id, callback, answer) {
      if (!Number.isInteger(answer?.code)) return false
      const { data, code, err_msg: message } = answer
      if (code === 401 && this.#options.token && this.#retryWithToken(Number(id))) return true
      this.#completeCallback(Number(id), data ?? null, this.#replyTo(callback), code, message ?? null)
      return true
    }

    /** Returns a function that answers a server callback. It works only while the current connection lasts. */
    #replyTo(callback) {
      if (!Number(callback)) return undefined
      const connection = this.#connection
      return (...args) => {
        const { json, fn, options } = sendArguments(...args)
        return promiseOrCallback(fn, (fn) => {
          if (this.#connection === connection) this.#send(`/qio/callback/${callback}`, json, fn, options)
          else this.#failSend(fn, DISCONNECTED, 'disconnected')
        })
      }
    }

    #moveTo(address) {
      const moved = parseMove(address, this.#url)
      if (!moved) return false
      this.#movedUrl = moved
      // The first move connects at once. Pauses between further moves prevent a loop of servers that move clients.
      const first = this.#backoff === BACKOFF_MIN_MS
      if (first) this.#backoff *= 2
      this.#disconnect(new QuickIOError(DISCONNECTED, `moved to ${moved.host}`), first ? 'connecting' : 'waiting')
      return true
    }

    /** Calls the handlers of an event of the server or of the library itself. Events of some paths have positions. */
    #dispatch(path, data, reply, position) {
      const subscription = this.#subscriptions.get(path)
      const rest = position ? [showPosition(position)] : []
      for (const handler of subscription?.handlers ?? []) {
        // An earlier handler may have removed this one.
        if (!subscription.handlers.includes(handler) || !subscription.reaches(handler, position)) continue
        if (position) handler.position = position
        if (handler.once) {
          handler.resolve()
          this.#removeHandlers(path, (other) => other === handler)
        }
        callHandler(handler.fn, data, reply, 200, null, ...rest)
      }
    }

    // -- Positions

    /** Handles an event with a number. Those before the answer to `/qio/on` are of an earlier subscription. */
    #onNumbered(path, number, data) {
      const subscription = this.#subscriptions.get(path)
      if (!subscription?.active || !subscription.position) return true
      const position = subscription.position = { ...subscription.position, number }
      if (data === undefined) return this.#handleInvalidData(path)
      this.#dispatch(path, data, undefined, position)
      return true
    }

    /** Handles `/qio/at`, with which an epoch begins, and `/qio/lost`. Returns false if it is malformed. */
    #onPosition(name, data) {
      const [path, value] = Array.isArray(data) ? data : []
      const position = name === '/qio/at' && parsePosition(value)
      if (!position && (name === '/qio/at' || (value !== null && !isCount(value)))) return false
      const subscription = this.#subscriptions.get(path)
      if (!subscription?.active || !subscription.position) return true
      if (!position) return this.#tell(subscription, subscription.lose(value))
      subscription.position = position
      for (const handler of subscription.handlers) handler.position = position
      return true
    }

    /** Tells handlers that the subscription begins, or has lost events. */
    #tell(subscription, recoveries) {
      for (const { handler, recovery } of recoveries) {
        if (!subscription.handlers.includes(handler)) continue
        handler.resolve(handler.recovers ? recovery : undefined)
        if (handler.onRecover) callHandler(handler.onRecover, recovery)
      }
      return true
    }

    // -- Subscriptions

    #addHandler(path, fn, once, options) {
      requireType(isFunction(fn), `the handler for ${path}`, 'a function', fn)
      const { extra, handler } = subscribeOptions(options)
      const known = this.#subscriptions.get(path)
      const subscription = known ?? new Subscription(path, extra)
      Object.assign(handler, { fn, once })
      const promise = new Promise((resolve, reject) => Object.assign(handler, { resolve, reject }))
      promise.catch(ignore)
      const wasPlain = !subscription.recovers
      subscription.handlers = [...subscription.handlers, handler]
      this.#subscriptions.set(path, subscription)
      if (LOCAL_EVENTS.has(path)) handler.resolve()
      else if (known) this.#join(path, subscription, handler, wasPlain)
      else {
        subscription.position = handler.position
        if (this.#state === 'open') this.#subscribe(path, subscription)
      }
      return promise
    }

    /** Adds a handler to a subscription. If it wants earlier events, the client subscribes anew. */
    #join(path, subscription, handler, wasPlain) {
      const asks = handler.recovers && !subscription.plain && (wasPlain || handler.history > 0 || handler.position)
      if (asks || !subscription.active) subscription.position ??= handler.position
      if (!subscription.active) {
        subscription.outdated ||= asks
      } else if (asks) {
        this.#resubscribe(path, subscription)
      } else {
        handler.position = subscription.position
        const recovery = { recovered: false, events: 0, position: showPosition(handler.position) }
        if (handler.recovers) queueMicrotask(() => this.#tell(subscription, [{ handler, recovery }]))
        else handler.resolve()
      }
    }

    #subscribe(path, subscription) {
      const { recovers } = subscription
      const requestId = this.#sendOrQueue('/qio/on', subscription.request(), (...answer) => {
        // The path may have a newer subscription, which has sent a request of its own.
        const current = this.#subscriptions.get(path)
        const decides = current?.requestId === requestId || current?.deferred
        const [data, , code, message] = answer
        if (!decides || code === DISCONNECTED) return
        const isWaiting = [...this.#callbacks.values()].some((callback) => callback.subscribes === path)
        if (code === 202 && isWaiting) current.deferred = true
        else if (code === 200) this.#onSubscribed(path, current, recovers, data)
        // 202: events of an earlier subscription are still on their way. 409: somebody else has subscribed the client.
        else if (code === 202 || (recovers && (code === 409 || code === 420))) this.#subscribeLater(path, current)
        else if (recovers && code === 400) this.#subscribePlainly(path, current)
        else this.#onRefused(path, current, new QuickIOError(code, message, data))
      })
      this.#callbacks.get(requestId).subscribes = path
      Object.assign(subscription, { requestId, active: false, deferred: false, outdated: false })
    }

    #resubscribe(path, subscription) {
      this.#sendOrQueue('/qio/off', JSON.stringify(path), null)
      this.#subscribe(path, subscription)
    }

    /** Subscribes without options: the server keeps no events of the path, or is too old for options. */
    #subscribePlainly(path, subscription) {
      subscription.plain = true
      this.#subscribe(path, subscription)
    }

    #subscribeLater(path, subscription) {
      const pause = Math.min(BACKOFF_MAX_MS, BUSY_AGAIN_MS * 2 ** subscription.attempts++) * (1 + this.#options.random()) / 2
      this.#clock.clearTimeout(subscription.timer)
      subscription.timer = this.#clock.setTimeout(() => {
        if (this.#subscriptions.get(path) === subscription) this.#resubscribe(path, subscription)
      }, pause)
    }

    #removeHandlers(path, predicate) {
      const subscription = this.#subscriptions.get(path)
      if (!subscription) return
      const removed = subscription.handlers.filter(predicate)
      subscription.handlers = subscription.handlers.filter((handler) => !removed.includes(handler))
      if (!subscription.handlers.length) {
        this.#subscriptions.delete(path)
        if (this.#state === 'open' && !LOCAL_EVENTS.has(path)) this.#sendOrQueue('/qio/off', JSON.stringify(path), null)
      }
      for (const handler of removed) handler.reject(new QuickIOError(ABORTED, 'the handler was removed'))
    }

    /** Handles the answer to a request, which may be an earlier one than the latest. */
    #onSubscribed(path, subscription, hasRecovered, data) {
      if (subscription.outdated || (subscription.recovers && !hasRecovered)) return this.#resubscribe(path, subscription)
      const at = parsePosition(data?.at)
      if (hasRecovered && !at) subscription.plain = true
      Object.assign(subscription, { active: true, deferred: false, attempts: 0 })
      this.#tell(subscription, subscription.begin(at, data ?? {}))
    }

    /** Handles the end of a subscription that the server does not allow any more. */
    #onRevoked(path) {
      const subscription = this.#subscriptions.get(path)
      if (subscription?.active) this.#onRefused(path, subscription, new QuickIOError(401, 'not allowed any more'))
    }

    #onRefused(path, { handlers }, error) {
      this.#subscriptions.delete(path)
      for (const { reject, onError } of handlers) {
        reject(error)
        if (onError) callHandler(onError, error)
        else this.#dispatch('/error', error)
      }
    }
  }

  return QuickIO
})()

if (typeof module === 'object' && module.exports) {
  module.exports = globalThis.QuickIO
  module.exports.QuickIO = globalThis.QuickIO
  module.exports.default = globalThis.QuickIO
}
