// The QuickIO client library: events over WebSocket, event streams or polls, in browsers and Node.
// docs/client.md explains how to use it; quickio.d.ts has the types. MIT licence.

globalThis.QuickIO = (() => {
  'use strict'

  // Codes of callbacks that did not get an answer from the server.
  const DISCONNECTED = -1
  const TIMEOUT = -2
  const ABORTED = -3
  const QUEUE_FULL = -4

  const BACKOFF_MIN_MS = 100
  const BACKOFF_MAX_MS = 25_600
  const STABLE_MS = 10_000 // a connection that lasted this long resets the backoff
  const BODY_BYTES_MAX = 32 * 1024 // of the events that share one request
  const REQUESTS_MAX = 2 // in flight for one session: one that the server holds, one that sends more events

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

  const ignore = () => {}

  /** The reason why an event, a subscription or a connection failed. */
  class QuickIOError extends Error {
    constructor(code, message, data = null) {
      super(message ?? `code ${code}`)
      this.name = { [TIMEOUT]: 'TimeoutError', [ABORTED]: 'AbortError' }[code] ?? 'QuickIOError'
      this.code = code
      this.data = data
    }
  }

  // ---- Texts -------------------------------------------------------------------------------------------------------

  /** Normalizes a path in the same way as the server. */
  function normalizePath(path) {
    const normalized = String(path).replace(/[^\w\-/]/g, '').replace(/\/+/g, '/').replace(/\/$/, '')
    if (!normalized) throw new TypeError(`invalid path: ${path}`)
    return normalized
  }

  /** Parses the text of an event. Returns null if it is malformed; `data` is undefined if it is not JSON. */
  function parseEvent(text) {
    const head = typeof text === 'string' && text.match(/^([^:]*):(\d{1,20})=/)
    return head && { path: head[1], callback: head[2], data: parseData(text.slice(head[0].length)) }
  }

  function parseData(json) {
    try {
      return json.trim() ? JSON.parse(json) : null
    } catch {
      return undefined
    }
  }

  /** Parses the address of a server into an http(s) URL. An address without a scheme gets `scheme`. */
  function parseUrl(address, scheme = 'http:') {
    const text = String(address)
    const url = new URL((/^\w+:\/\//.test(text) ? text : `${scheme}//${text}`).replace(/^ws/i, 'http'))
    if (!/^https?:$/.test(url.protocol)) throw new TypeError(`not a ws, wss, http or https address: ${address}`)
    url.hash = ''
    return url
  }

  /** Parses the address to which the server at `from` moves its clients. Returns null if it is not an address. */
  function parseMove(address, from) {
    if (typeof address !== 'string') return null
    try {
      const url = parseUrl(address, from.protocol)
      // A secure connection must not become an insecure one.
      if (from.protocol === 'https:') url.protocol = 'https:'
      return url
    } catch {
      return null
    }
  }

  /** Returns the server that the script was loaded from, otherwise that of the page. */
  function defaultUrl() {
    const source = QuickIO.source || globalThis.location?.href
    if (!/^https?:/.test(source)) throw new TypeError('the address of the server is missing')
    return new URL(source).origin
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

  /** The common base of all transports. */
  class Connection {
    isOpen = false
    reached = false // something responded: the server, or a proxy in its place
    ended = false

    /** Calls `onOpen()`, `onActivity()`, `onEvent(text)` and, once, `onLost(error)` of `owner`. */
    constructor(url, options, owner) {
      this.url = url
      this.options = options
      this.owner = owner
      this.clock = options.clock
    }

    begin() {
      this.limitStep(this.options.handshakeTimeout, 'a response')
      try {
        this.start()
      } catch (error) {
        queueMicrotask(() => this.fail(error.message))
      }
    }

    /** Limits the time of the next step of the handshake. */
    limitStep(ms, expected) {
      this.clock.clearTimeout(this.timer)
      this.timer = this.clock.setTimeout(() => this.fail(`no ${expected} within ${ms} ms`), ms)
    }

    open() {
      this.clock.clearTimeout(this.timer)
      this.isOpen = true
      this.owner.onOpen()
    }

    /** The number of events that wait to be sent. */
    get unsent() {
      return 0
    }

    fail(why) {
      if (this.ended) return
      this.close(false)
      this.owner.onLost(new QuickIOError(DISCONNECTED, `${this.constructor.transport}: ${why}`))
    }

    /** Ends the connection without a call to the owner. If `graceful`, events passed to `send` are still sent. */
    close(graceful) {
      if (this.ended) return
      this.ended = true
      this.clock.clearTimeout(this.timer)
      this.shutDown(graceful && this.isOpen)
    }
  }

  class WebSocketConnection extends Connection {
    static transport = 'websocket'
    static needs = 'WebSocket'

    start() {
      const { WebSocket } = this.options
      const socket = this.socket = new WebSocket(this.url.href.replace(/^http/, 'ws'), ['quickio'])
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
        else this.fail(`the first message is not ${OHAI}`)
      }
      socket.onerror = ignore // `onclose` follows
      socket.onclose = ({ code, reason }) => this.fail(`closed, ${code} ${reason}`.trim())
    }

    send(text) {
      this.socket.send(text)
    }

    shutDown() {
      this.socket?.close()
    }
  }

  /**
   * A session over HTTP. Events are sent with POST requests, at most `REQUESTS_MAX` in flight. Requests are numbered,
   * and responses are handled in the order of these numbers, which keeps events in order in both directions.
   */
  class HttpConnection extends Connection {
    static needs = 'fetch'

    pending = []
    baseUrl = this.url // the address of requests
    inFlight = 0
    requestsSent = 0
    responsesHandled = 0
    earlyResponses = new Map() // request number => response that waits for earlier ones
    abortController = new AbortController()

    get unsent() {
      return this.pending.length
    }

    start() {
      // Node 18 has no global `crypto`.
      if (globalThis.crypto) return this.startSession(globalThis.crypto)
      import(/* webpackIgnore: true */ /* @vite-ignore */ 'node:crypto')
        .then(({ webcrypto }) => this.ended || this.startSession(webcrypto))
        .catch((error) => this.fail(error.message))
    }

    startSession(crypto) {
      const bytes = crypto.getRandomValues(new Uint8Array(16))
      this.sid = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
      this.connect()
    }

    send(text) {
      this.pending.push(text)
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
      while (this.pending.length && this.inFlight < REQUESTS_MAX) this.post()
    }

    /** Removes from `pending` the events that fit into one request: at least one, even if it is larger. */
    takeBody() {
      let count = 0
      for (let bytes = 0; count < this.pending.length; count++) {
        bytes += new TextEncoder().encode(this.pending[count]).length + 1
        if (count && bytes > BODY_BYTES_MAX) break
      }
      return this.pending.splice(0, count).join('\n')
    }

    async post(query) {
      const number = ++this.requestsSent
      const { silenceTimeout } = this.options
      const timer = this.clock.setTimeout(() => this.fail(`no response for ${silenceTimeout} ms`), silenceTimeout)
      this.inFlight++
      try {
        const body = this.takeBody()
        const response = await this.requestWithRetry({ ...query, seq: number }, { method: 'POST', body })
        this.earlyResponses.set(number, response)
        this.inFlight--
        if (!this.ended) this.handleResponses()
      } catch (error) {
        this.fail(error.message)
      } finally {
        this.clock.clearTimeout(timer)
      }
    }

    /** Repeats a failed request once. Its number tells the server whether it has already handled the request. */
    async requestWithRetry(query, init) {
      try {
        return await this.requestOnce(query, init)
      } catch (error) {
        if (this.ended || !this.isOpen || (error.status && this.baseUrl === this.url)) throw error
        this.baseUrl = this.url // the host name of the server may be unreachable from here
        return this.requestOnce(query, init)
      }
    }

    async requestOnce(query, init) {
      const response = await this.fetch(query, init)
      return response.text()
    }

    async fetch(query, init) {
      const { fetch } = this.options
      const url = new URL(this.baseUrl)
      for (const [name, value] of Object.entries({ sid: this.sid, ...query })) url.searchParams.set(name, value)
      const response = await fetch(url.href, { cache: 'no-store', signal: this.abortController.signal, ...init })
      this.reached = true
      if (response.status !== 200) {
        throw Object.assign(new Error(`HTTP status ${response.status}`), { status: response.status })
      }
      return response
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
      if (answer?.path !== `/qio/callback/${HELLO_ID}`) return this.fail('the first event is not an answer')
      if (this.options.followHostname) this.adoptHostname(answer.data)
      this.open()
    }

    /** Sends further requests to the host that answered: behind an address of several hosts, only it has the session. */
    adoptHostname(answer) {
      const named = answer?.code === 200 && parseMove(answer.data, this.url)
      if (!named || named.host === this.url.host) return
      this.baseUrl = new URL(this.url)
      this.baseUrl.port = '' // setting `host` keeps the old port if the name has none
      this.baseUrl.host = named.host
    }

    queueHello() {
      this.pending.push(`/qio/hostname:${HELLO_ID}=null`)
    }

    /** The last request is numbered after those in flight: the server handles them before it ends the session. */
    shutDown(graceful) {
      if (!graceful) return this.abortController.abort()
      const timer = this.clock.setTimeout(() => this.abortController.abort(), this.options.handshakeTimeout)
      const last = { method: 'POST', body: this.takeBody(), keepalive: true }
      this.fetch({ seq: this.requestsSent + 1, close: true }, last).catch(ignore).finally(() => {
        this.clock.clearTimeout(timer)
        this.abortController.abort()
      })
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
      if (!this.inFlight) this.post()
    }

    /** After events, more are likely: the next poll follows at once. Otherwise it waits for a pause. */
    afterResponses(empty) {
      this.clock.clearTimeout(this.pause)
      if (this.pending.length || !empty) return this.flushSoon()
      const { pollDelay, random } = this.options
      if (!this.inFlight) this.pause = this.clock.setTimeout(() => this.flush(), random() * pollDelay)
    }

    shutDown(graceful) {
      this.clock.clearTimeout(this.pause)
      super.shutDown(graceful)
    }
  }

  /** Events arrive in one response that does not end. */
  class StreamConnection extends HttpConnection {
    static transport = 'stream'

    async connect() {
      try {
        const response = await this.fetch({ connect: true }, { headers: { Accept: 'text/event-stream' } })
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
        this.fail(error.message)
      }
    }

    handleLine(line) {
      if (this.ended || !line) return
      if (!this.greeted) return line === ': quickio' ? this.onGreeting() : this.fail('not an event stream')
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
    const all = defaults()
    for (const [name, value] of Object.entries(options ?? {})) {
      if (!(name in all)) throw new TypeError(`no such option: ${name}`)
      if (value !== undefined) all[name] = value
    }
    return all
  }

  /** Returns the transports that this environment supports. */
  function usableTransports({ transports, ...options }) {
    const unknown = transports.find((name) => !CONNECTIONS[name])
    if (unknown !== undefined) throw new TypeError(`no such transport: ${unknown}`)
    const found = transports.filter((name) => options[CONNECTIONS[name].needs])
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

    constructor(extra) {
      this.extra = extra
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
    #callbacks = new Map() // id => { fn, sent, release }
    #queue = [] // events that wait for a connection: { id, text }
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
      const scheme = globalThis.location?.protocol === 'https:' ? 'https:' : 'http:'
      this.#urls = [urls ?? defaultUrl()].flat().map((url) => parseUrl(url, scheme))
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
     *     where `extra` is data for the server's application
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
      this.#removeHandlers(normalizePath(path), (handler) => !fn || handler.fn === fn)
    }

    /**
     * Sends an event.
     *
     * @param fn called once with `(data, reply, code, errMsg)`, for the answer or for an error; null if no answer is
     *     needed
     * @param options `{ timeout, signal }`: milliseconds, and an AbortSignal
     * @returns without `fn`, a promise of the data of the answer; it rejects with an error that has `code` and `data`
     */
    send(path, data, fn, options) {
      if (fn !== null && typeof fn === 'object') [fn, options] = [undefined, fn]
      const [normalized, json] = [normalizePath(path), JSON.stringify(data) ?? 'null']
      return promiseOrCallback(fn, (fn) => this.#send(normalized, json, fn, options))
    }

    /** Ends the connection permanently. Handlers are kept: `reconnect` subscribes them again. */
    close() {
      const { page } = this.#options
      page.removeEventListener?.('pagehide', this.#onPageHide)
      for (const name of PAGE_EVENTS) page.removeEventListener?.(name, this.#onPageActive)
      const error = new QuickIOError(DISCONNECTED, 'closed')
      this.#disconnect(error, 'closed')
      this.#queue = []
      this.#failCallbacks('closed', () => true)
      for (const { handlers } of this.#subscriptions.values()) handlers.forEach(({ reject }) => reject(error))
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
        onOpen: () => {
          if (!retry || name === this.#transports[0]) return this.#onOpen(name)
          // The network works now, and perhaps did not when the earlier transports were tried.
          connection.close(false)
          this.#tryTransports(this.#transports, false)
        },
        onLost: (error) => {
          if (this.#state === 'open') return this.#onLost(error)
          const retryLater = retry && !connection.reached
          this.#dispatch('/error', error)
          if (this.#connection === connection) this.#tryTransports(others, retryLater)
        }
      })
      connection.begin()
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
        if (!LOCAL_EVENTS.has(path)) this.#subscribe(path, subscription)
      }
      for (const event of this.#queue.splice(0)) this.#transmit(event)
      if (changed) this.#dispatch('/transport', name)
      if (this.#state === 'open') this.#dispatch('/open', name)
    }

    /** Ends the connection, if any, and changes the state. Handlers, which may change it again, are called last. */
    #disconnect(error, state) {
      const wasOpen = this.#state === 'open'
      this.#connection?.close(true)
      this.#connection = null
      this.#clock.clearTimeout(this.#timer)
      this.#state = state
      for (const subscription of this.#subscriptions.values()) subscription.active = false
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
      const pause = (this.#backoff * (1 + this.#options.random())) / 2
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

    /** Disconnects when the user leaves the page. If the browser restores the page, `pageshow` reconnects. */
    #onPageHide = () => {
      this.#disconnect(new QuickIOError(DISCONNECTED, 'the page was hidden'), 'waiting')
      this.#clock.clearTimeout(this.#timer)
    }

    // -- Sending

    /** Sends or queues an event of the application, unless the client is closed or the queue is full. */
    #send(path, json, fn, options) {
      const { queueMax } = this.#options
      const full = this.#state === 'open' ? this.#connection.unsent > queueMax : this.#queue.length >= queueMax
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
      const event = { id, text: `${path}:${id}=${json}` }
      if (fn) this.#addCallback(id, fn, options)
      if (this.#state === 'open') this.#transmit(event)
      else this.#queue.push(event)
      return id
    }

    #transmit({ id, text }) {
      const callback = this.#callbacks.get(id)
      if (callback) callback.sent = true
      this.#connection.send(text)
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
      if (data === undefined) return this.#handleInvalidData(path)
      if (path.startsWith('/qio/callback/')) return this.#handleAnswer(path.slice(14), callback, data)
      if (path === '/qio/move') return this.#moveTo(data)
      if (path === '/qio/heartbeat') {
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
      this.#completeCallback(Number(id), data ?? null, this.#replyTo(callback), code, message ?? null)
      return true
    }

    /** Returns a function that answers a server callback. It works only while the current connection lasts. */
    #replyTo(callback) {
      if (!Number(callback)) return undefined
      const connection = this.#connection
      return (data, fn, options) => {
        if (fn !== null && typeof fn === 'object') [fn, options] = [undefined, fn]
        const json = JSON.stringify(data) ?? 'null'
        return promiseOrCallback(fn, (fn) => {
          if (this.#connection === connection) this.#send(`/qio/callback/${callback}`, json, fn, options)
          else this.#failSend(fn, DISCONNECTED, 'disconnected')
        })
      }
    }

    #moveTo(address) {
      const url = parseMove(address, this.#url)
      if (!url) return false
      this.#movedUrl = url
      // The first move connects at once. Pauses between further moves prevent a loop of servers that move clients.
      const first = this.#backoff === BACKOFF_MIN_MS
      if (first) this.#backoff *= 2
      this.#disconnect(new QuickIOError(DISCONNECTED, `moved to ${url.host}`), first ? 'connecting' : 'waiting')
      return true
    }

    /** Calls the handlers of an event of the server or of the library itself. */
    #dispatch(path, data, reply) {
      const subscription = this.#subscriptions.get(path)
      for (const handler of subscription?.handlers ?? []) {
        // An earlier handler may have removed this one.
        if (!subscription.handlers.includes(handler)) continue
        if (handler.once) {
          handler.resolve()
          this.#removeHandlers(path, (other) => other === handler)
        }
        callHandler(handler.fn, data, reply, 200, null)
      }
    }

    // -- Subscriptions

    #addHandler(path, fn, once, options) {
      if (typeof fn !== 'function') throw new TypeError(`the handler for ${path} is not a function`)
      const { onError, extra } = typeof options === 'function' ? { onError: options } : options ?? {}
      const handler = { fn, once, onError }
      const promise = new Promise((resolve, reject) => Object.assign(handler, { resolve, reject }))
      promise.catch(ignore)
      const known = this.#subscriptions.get(path)
      const subscription = known ?? new Subscription(extra)
      subscription.handlers = [...subscription.handlers, handler]
      this.#subscriptions.set(path, subscription)
      if (subscription.active || LOCAL_EVENTS.has(path)) handler.resolve()
      else if (!known && this.#state === 'open') this.#subscribe(path, subscription)
      return promise
    }

    #subscribe(path, subscription) {
      const { extra } = subscription
      const json = JSON.stringify(extra === undefined ? path : [path, extra])
      const requestId = this.#sendOrQueue('/qio/on', json, (...answer) => {
        // The path may have a newer subscription, which has sent a request of its own.
        const current = this.#subscriptions.get(path)
        const decides = current?.requestId === requestId || current?.deferred
        const [data, , code, message] = answer
        if (!decides || code === DISCONNECTED) return
        if (code === 202) current.deferred = true
        else if (code === 200) this.#onSubscribed(current)
        else this.#onRefused(path, current, new QuickIOError(code, message, data))
      })
      Object.assign(subscription, { requestId, active: false, deferred: false })
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

    #onSubscribed(subscription) {
      subscription.active = true
      for (const handler of subscription.handlers) handler.resolve()
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
}
