// QuickIO's client library: events over WebSocket, event streams or polls, in browsers and Node.
// How to use it is in docs/client.md, its types are in quickio.d.ts. MIT licence.

globalThis.QuickIO = (() => {
  'use strict'

  // What a callback's code is where the answer did not come from the server.
  const DISCONNECTED = -1
  const TIMEOUT = -2
  const ABORTED = -3
  const QUEUE_FULL = -4

  const BACKOFF_MIN_MS = 100
  const BACKOFF_MAX_MS = 25_600
  const STABLE_MS = 10_000 // a connection that lasted so long makes the next backoff start anew
  const BODY_BYTES_MAX = 32 * 1024 // of events gathered into one request
  const REQUESTS_MAX = 2 // of one session, unanswered: one that is held, one that brings more events

  const LOCAL_EVENTS = new Set(['/open', '/close', '/error', '/transport'])
  const OHAI = '/qio/ohai'
  const HELLO_ID = 1 // of the first question over HTTP; the callbacks of events count on from there

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

  /** Why an event, a subscription or a connection failed. */
  class QuickIOError extends Error {
    constructor(code, message, data = null) {
      super(message ?? `code ${code}`)
      this.name = { [TIMEOUT]: 'TimeoutError', [ABORTED]: 'AbortError' }[code] ?? 'QuickIOError'
      this.code = code
      this.data = data
    }
  }

  // ---- Texts -------------------------------------------------------------------------------------------------------

  /** A path as the server cleans it. */
  function clean(path) {
    const cleaned = String(path).replace(/[^\w\-/]/g, '').replace(/\/+/g, '/').replace(/\/$/, '')
    if (!cleaned) throw new TypeError(`nothing is left of the path ${path}`)
    return cleaned
  }

  /** The parts of an event's text; null where it is malformed. Data that is no JSON is undefined. */
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

  /** A server's address, as an http(s) URL. Where it names no scheme it gets `scheme`. */
  function parseUrl(address, scheme = 'http:') {
    const text = String(address)
    const url = new URL((/^\w+:\/\//.test(text) ? text : `${scheme}//${text}`).replace(/^ws/i, 'http'))
    if (!/^https?:$/.test(url.protocol)) throw new TypeError(`no ws, wss, http or https address: ${address}`)
    url.hash = ''
    return url
  }

  /** Where the server at `from` sends its clients; null where that is no address. */
  function parseMove(address, from) {
    if (typeof address !== 'string') return null
    try {
      const url = parseUrl(address, from.protocol)
      // Nobody is sent to where everybody can listen.
      if (from.protocol === 'https:') url.protocol = 'https:'
      return url
    } catch {
      return null
    }
  }

  /** Where the script came from; else the page. */
  function home() {
    const source = QuickIO.source || globalThis.location?.href
    if (!/^https?:/.test(source)) throw new TypeError('the address of the server is needed')
    return new URL(source).origin
  }

  /** Calls what is not ours. What it throws is shown as if nobody had called it. */
  function run(fn, ...args) {
    try {
      fn(...args)
    } catch (error) {
      if (globalThis.reportError) globalThis.reportError(error)
      else queueMicrotask(() => { throw error })
    }
  }

  /**
   * Has `start` get an answer for `fn`. Without a function: for the promise that is returned. Nobody has to look at
   * that: it counts as handled, and still rejects for those who wait for it.
   */
  function answered(fn, start) {
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

  // ---- Connections: one attempt each, which opens or not, and ends once ---------------------------------------------

  /** What all transports have in common. */
  class Connection {
    isOpen = false
    reached = false // the server, or what pretends to be one
    ended = false

    /** `owner` is told by `opened()`, `heard()`, `received(text)` and, once, `lost(error)`. */
    constructor(url, options, owner) {
      this.url = url
      this.options = options
      this.owner = owner
      this.clock = options.clock
    }

    begin() {
      this.within(this.options.handshakeTimeout, 'an answer')
      try {
        this.start()
      } catch (error) {
        queueMicrotask(() => this.fail(error.message))
      }
    }

    /** The next step of the handshake has to be done in time. */
    within(ms, what) {
      this.clock.clearTimeout(this.timer)
      this.timer = this.clock.setTimeout(() => this.fail(`waited ${ms} ms for ${what}`), ms)
    }

    open() {
      this.clock.clearTimeout(this.timer)
      this.isOpen = true
      this.owner.opened()
    }

    /** Events that wait to be sent. */
    get waiting() {
      return 0
    }

    fail(why) {
      if (this.ended) return
      this.close(false)
      this.owner.lost(new QuickIOError(DISCONNECTED, `${this.constructor.transport}: ${why}`))
    }

    /** Politely: what was given to `send` is still sent. The owner is not told. */
    close(politely) {
      if (this.ended) return
      this.ended = true
      this.clock.clearTimeout(this.timer)
      this.shut(politely && this.isOpen)
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
        this.within(this.options.handshakeTimeout, OHAI)
        socket.send(OHAI)
      }
      socket.onmessage = ({ data }) => {
        if (this.ended) return
        if (this.isOpen) this.owner.received(data)
        else if (data === OHAI) this.open()
        else this.fail(`got something else than ${OHAI}`)
      }
      socket.onerror = ignore // a close follows
      socket.onclose = ({ code, reason }) => this.fail(`closed, ${code} ${reason}`.trim())
    }

    send(text) {
      this.socket.send(text)
    }

    shut() {
      this.socket?.close()
    }
  }

  /**
   * A session over HTTP. Events go out by POST, a few at a time in flight. Requests are numbered, and responses are
   * handled in the order of these numbers: so events keep their order in both directions, whatever overtakes what.
   */
  class HttpConnection extends Connection {
    static needs = 'fetch'

    out = []
    base = this.url // where requests go
    flying = 0
    sent = 0
    handled = 0
    early = new Map() // the number of a request => its response, which came before its turn
    aborter = new AbortController()

    get waiting() {
      return this.out.length
    }

    start() {
      // Node 18 has no global `crypto`.
      if (globalThis.crypto) return this.begun(globalThis.crypto)
      import(/* webpackIgnore: true */ /* @vite-ignore */ 'node:crypto')
        .then(({ webcrypto }) => this.ended || this.begun(webcrypto))
        .catch((error) => this.fail(error.message))
    }

    begun(crypto) {
      const bytes = crypto.getRandomValues(new Uint8Array(16))
      this.sid = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
      this.connect()
    }

    send(text) {
      this.out.push(text)
      this.flushSoon()
    }

    /** All that is sent in one go shares requests. */
    flushSoon() {
      if (this.flushing) return
      this.flushing = true
      queueMicrotask(() => {
        this.flushing = false
        if (!this.ended) this.flush()
      })
    }

    flush() {
      while (this.out.length && this.flying < REQUESTS_MAX) this.post()
    }

    /** Takes from `out` what fits into a request: one event at least, whatever its size. */
    gather() {
      let count = 0
      for (let bytes = 0; count < this.out.length; count++) {
        bytes += new TextEncoder().encode(this.out[count]).length + 1
        if (count && bytes > BODY_BYTES_MAX) break
      }
      return this.out.splice(0, count).join('\n')
    }

    async post(query) {
      const number = ++this.sent
      const { silenceTimeout } = this.options
      const timer = this.clock.setTimeout(() => this.fail(`no response for ${silenceTimeout} ms`), silenceTimeout)
      this.flying++
      try {
        const body = this.gather()
        this.early.set(number, await this.request({ ...query, seq: number }, { method: 'POST', body }))
        this.flying--
        if (!this.ended) this.takeResponses()
      } catch (error) {
        this.fail(error.message)
      } finally {
        this.clock.clearTimeout(timer)
      }
    }

    /** A request that breaks is repeated once: its number tells the server whether it had it before. */
    async request(query, init) {
      try {
        return await this.attempt(query, init)
      } catch (error) {
        if (this.ended || !this.isOpen || (error.status && this.base === this.url)) throw error
        this.base = this.url // what the server called its host's name may not be reachable from here
        return this.attempt(query, init)
      }
    }

    async attempt(query, init) {
      const response = await this.fetch(query, init)
      return response.text()
    }

    async fetch(query, init) {
      const { fetch } = this.options
      const url = new URL(this.base)
      for (const [name, value] of Object.entries({ sid: this.sid, ...query })) url.searchParams.set(name, value)
      const response = await fetch(url.href, { cache: 'no-store', signal: this.aborter.signal, ...init })
      this.reached = true
      if (response.status !== 200) {
        throw Object.assign(new Error(`HTTP status ${response.status}`), { status: response.status })
      }
      return response
    }

    takeResponses() {
      let empty = true
      while (this.early.has(this.handled + 1)) {
        const text = this.early.get(++this.handled)
        this.early.delete(this.handled)
        this.owner.heard()
        for (const line of text.split(/[\r\n]+/)) {
          if (!line) continue
          empty = false
          this.take(line)
        }
      }
      if (!this.ended) this.goOn(empty)
    }

    take(text) {
      if (this.ended) return
      if (this.isOpen) return this.owner.received(text)
      const answer = parseEvent(text)
      if (answer?.path !== `/qio/callback/${HELLO_ID}`) return this.fail(`got something else than an answer`)
      if (this.options.followHostname) this.follow(answer.data)
      this.open()
    }

    /** The session lives on the host that answered: behind an address of several hosts only that one knows it. */
    follow(answer) {
      const named = answer?.code === 200 && parseMove(answer.data, this.url)
      if (!named || named.host === this.url.host) return
      this.base = new URL(this.url)
      this.base.port = '' // which may not be what the name goes without
      this.base.host = named.host
    }

    hello() {
      this.out.push(`/qio/hostname:${HELLO_ID}=null`)
    }

    /** What is under way is still handled: the last request is behind it, and ends the session. */
    shut(politely) {
      if (!politely) return this.aborter.abort()
      const timer = this.clock.setTimeout(() => this.aborter.abort(), this.options.handshakeTimeout)
      const last = { method: 'POST', body: this.gather(), keepalive: true }
      this.fetch({ seq: this.sent + 1, close: true }, last).catch(ignore).finally(() => {
        this.clock.clearTimeout(timer)
        this.aborter.abort()
      })
    }
  }

  /** Events come as responses to requests, of which one is always held by the server. */
  class PollConnection extends HttpConnection {
    static transport = 'poll'

    connect() {
      this.hello()
      this.within(2 * this.options.handshakeTimeout, 'a response')
      this.post({ connect: true })
    }

    flush() {
      super.flush()
      if (!this.flying) this.post()
    }

    /** Where there were events there may be more: the next poll follows at once. Else it can wait a little. */
    goOn(empty) {
      this.clock.clearTimeout(this.pause)
      if (this.out.length || !empty) return this.flushSoon()
      const { pollDelay, random } = this.options
      if (!this.flying) this.pause = this.clock.setTimeout(() => this.flush(), random() * pollDelay)
    }

    shut(politely) {
      this.clock.clearTimeout(this.pause)
      super.shut(politely)
    }
  }

  /** Events come as one response that does not end. */
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
          this.owner.heard()
          for (const line of lines) this.takeLine(line.replace(/\r$/, ''))
        }
      } catch (error) {
        this.fail(error.message)
      }
    }

    takeLine(line) {
      if (this.ended || !line) return
      if (!this.greeted) return line === ': quickio' ? this.greet() : this.fail('this is no stream of events')
      if (line.startsWith('data:')) this.take(line.slice(5).trimStart())
    }

    greet() {
      this.greeted = true
      if (!this.options.followHostname) return this.open()
      this.hello()
      this.flush()
    }

    goOn() {
      this.flush()
    }
  }

  const CONNECTIONS = { websocket: WebSocketConnection, stream: StreamConnection, poll: PollConnection }

  function complete(options) {
    const all = defaults()
    for (const [name, value] of Object.entries(options ?? {})) {
      if (!(name in all)) throw new TypeError(`no such option: ${name}`)
      if (value !== undefined) all[name] = value
    }
    return all
  }

  /** The transports that this environment has what it takes for. */
  function usable({ transports, ...options }) {
    const unknown = transports.find((name) => !CONNECTIONS[name])
    if (unknown !== undefined) throw new TypeError(`no such transport: ${unknown}`)
    const found = transports.filter((name) => options[CONNECTIONS[name].needs])
    if (!found.length) throw new TypeError('nothing to connect with: pass WebSocket or fetch as an option')
    return found
  }

  // ---- The client --------------------------------------------------------------------------------------------------

  /** A path's handlers, and how its subscription stands on this connection. */
  class Subscription {
    handlers = []
    active = false
    asked = 0 // the callback of the newest `/qio/on`
    deferred = false // that one was answered 202: an older one's answer decides

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

    /** The address of this script, whose server is the default one. */
    static source = globalThis.document?.currentScript?.src

    #options
    #clock
    #transports
    #urls
    #at = 0 // of `#urls`: the one in use
    #moved = null // where the server sent this client, until that fails
    #state = 'connecting'
    #connection = null
    #timer // for the next attempt while waiting; for the silence that is too long while open
    #backoff = BACKOFF_MIN_MS
    #attempted = false
    #lastOpen = null // the transport that opened last
    #openedAt = 0
    #heardAt = 0
    #lastId = HELLO_ID
    #callbacks = new Map() // id => { fn, sent, release }
    #queue = [] // events that wait for a connection: { id, text }
    #subscriptions = new Map() // path => Subscription; client-side events too

    /**
     * @param urls one address or a list in the order of preference: `ws(s)://`, `http(s)://` or `host[:port]`. Without
     *     one: the server that this script came from.
     * @param options see docs/client.md
     */
    constructor(urls, options) {
      this.#options = complete(options)
      this.#clock = this.#options.clock
      this.#transports = usable(this.#options)
      const scheme = globalThis.location?.protocol === 'https:' ? 'https:' : 'http:'
      this.#urls = [urls ?? home()].flat().map((url) => parseUrl(url, scheme))
      if (!this.#urls.length) throw new TypeError('the list of addresses is empty')
      // Whoever makes a client has the time to add handlers before anything happens.
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
      return this.#state === 'open' ? this.#lastOpen : null
    }

    /**
     * Subscribes to a path, or listens to `/open`, `/close`, `/error` or `/transport`.
     *
     * @param fn called with `(data, reply)` for each event; `reply` is there where the server wants an answer
     * @param options what to call with the error when the subscription is refused; or `{ onError, extra }`, where
     *     `extra` is data for the server's application
     * @returns a promise: resolved when the subscription is active, rejected when it is refused
     */
    on(path, fn, options) {
      return this.#add(clean(path), fn, false, options)
    }

    /** Like `on`, for one event. */
    one(path, fn, options) {
      return this.#add(clean(path), fn, true, options)
    }

    /** Takes a handler away, or all of a path. With the last one the subscription ends. */
    off(path, fn) {
      this.#remove(clean(path), (handler) => !fn || handler.fn === fn)
    }

    /**
     * Sends an event.
     *
     * @param fn called with `(data, reply, code, errMsg)` when the answer is there, or will never be; null where no
     *     answer is wanted
     * @param options `{ timeout, signal }`: milliseconds, and an AbortSignal
     * @returns without `fn`: a promise of the answer's data, rejected with an error that has `code` and `data`
     */
    send(path, data, fn, options) {
      if (fn !== null && typeof fn === 'object') [fn, options] = [undefined, fn]
      const [cleaned, json] = [clean(path), JSON.stringify(data) ?? 'null']
      return answered(fn, (fn) => this.#send(cleaned, json, fn, options))
    }

    /** Ends the connection for good. Handlers stay: `reconnect` subscribes them again. */
    close() {
      const { page } = this.#options
      page.removeEventListener?.('pagehide', this.#sleep)
      for (const name of ['pageshow', 'visibilitychange', 'online']) page.removeEventListener?.(name, this.#wake)
      const error = new QuickIOError(DISCONNECTED, 'closed')
      this.#hangUp(error, 'closed')
      this.#queue = []
      this.#failCallbacks('closed', () => true)
      for (const { handlers } of this.#subscriptions.values()) handlers.forEach(({ reject }) => reject(error))
    }

    /** Connects at once, anew: ends the connection where there is one, and opens a client that was closed. */
    reconnect() {
      const { page } = this.#options
      page.addEventListener?.('pagehide', this.#sleep)
      for (const name of ['pageshow', 'visibilitychange', 'online']) page.addEventListener?.(name, this.#wake)
      this.#backoff = BACKOFF_MIN_MS
      this.#hangUp(new QuickIOError(DISCONNECTED, 'reconnecting'), 'connecting')
    }

    // -- Connecting

    get #url() {
      return this.#moved ?? this.#urls[this.#at]
    }

    #connect() {
      this.#state = 'connecting'
      // Where WebSocket worked before, or nothing did, the network may come back between two attempts of this round.
      const doubt = this.#attempted && (!this.#lastOpen || this.#lastOpen === 'websocket')
      this.#attempted = true
      this.#try(this.#transports, doubt)
    }

    /** Tries one transport after the other. */
    #try([name, ...others], doubt) {
      if (!name) return this.#unreachable()
      const connection = this.#connection = new CONNECTIONS[name](this.#url, this.#options, {
        heard: () => this.#heard(),
        received: (text) => this.#received(text),
        opened: () => {
          if (!doubt || name === this.#transports[0]) return this.#opened(name)
          // The network is there, and was perhaps not when the better transports were tried.
          connection.close(false)
          this.#try(this.#transports, false)
        },
        lost: (error) => {
          if (this.#state === 'open') return this.#lost(error)
          const stillDoubt = doubt && !connection.reached
          this.#dispatch('/error', error)
          if (this.#connection === connection) this.#try(others, stillDoubt)
        }
      })
      connection.begin()
    }

    /** The next attempt is made elsewhere, if there is another place. */
    #unreachable() {
      if (this.#moved) this.#moved = null
      else this.#at = (this.#at + 1) % this.#urls.length
      this.#wait()
    }

    #opened(name) {
      const changed = name !== this.#lastOpen
      this.#state = 'open'
      this.#lastOpen = name
      this.#openedAt = this.#clock.now()
      this.#heard()
      this.#watch()
      for (const [path, subscription] of this.#subscriptions) {
        if (!LOCAL_EVENTS.has(path)) this.#subscribe(path, subscription)
      }
      for (const event of this.#queue.splice(0)) this.#transmit(event)
      if (changed) this.#dispatch('/transport', name)
      if (this.#state === 'open') this.#dispatch('/open', name)
    }

    /** Ends the connection, if any, and goes into another state: only then are those told who may change it again. */
    #hangUp(error, state) {
      const wasOpen = this.#state === 'open'
      this.#connection?.close(true)
      this.#connection = null
      this.#clock.clearTimeout(this.#timer)
      this.#state = state
      for (const subscription of this.#subscriptions.values()) subscription.active = false
      if (wasOpen && this.#clock.now() - this.#openedAt >= STABLE_MS) this.#backoff = BACKOFF_MIN_MS
      if (state === 'connecting') this.#connect()
      if (state === 'waiting') this.#wait()
      this.#failCallbacks('disconnected', ({ sent }) => sent)
      if (wasOpen) this.#dispatch('/close', error)
    }

    #lost(error) {
      this.#connection?.close(false) // nobody listens at the other end, or talks nonsense
      this.#hangUp(error, 'waiting')
    }

    #wait() {
      this.#connection = null
      this.#state = 'waiting'
      const pause = (this.#backoff * (1 + this.#options.random())) / 2
      this.#backoff = Math.min(BACKOFF_MAX_MS, this.#backoff * 2)
      this.#timer = this.#clock.setTimeout(() => this.#connect(), pause)
    }

    // -- Liveness

    #heard() {
      this.#heardAt = this.#clock.now()
    }

    /** How long nothing was heard. A clock that was set back starts it anew. */
    #silence() {
      const silence = this.#clock.now() - this.#heardAt
      if (silence >= 0) return silence
      this.#heard()
      return 0
    }

    #watch() {
      const left = this.#options.silenceTimeout - this.#silence()
      if (left > 0) this.#timer = this.#clock.setTimeout(() => this.#watch(), left)
      else this.#lost(new QuickIOError(DISCONNECTED, 'nothing was heard for too long'))
    }

    /** The page is shown again, or the network is back: whatever was to come late comes now. */
    #wake = () => {
      if (this.#options.page.document?.visibilityState === 'hidden') return
      const { silenceTimeout, handshakeTimeout } = this.#options
      if (this.#state === 'waiting') return this.reconnect()
      if (this.#state !== 'open' || this.#silence() < handshakeTimeout) return
      if (this.#silence() >= silenceTimeout) return this.reconnect()
      const noAnswer = (_data, _reply, code) => {
        if (code === TIMEOUT) this.reconnect()
      }
      this.#post('/qio/ping', 'null', noAnswer, { timeout: handshakeTimeout })
    }

    /** The page goes, perhaps to come back: then `pageshow` wakes this client. */
    #sleep = () => {
      this.#hangUp(new QuickIOError(DISCONNECTED, 'the page was left'), 'waiting')
      this.#clock.clearTimeout(this.#timer)
    }

    // -- Sending

    /** Sends or queues an event of the user's, if it may. */
    #send(path, json, fn, options) {
      const { queueMax } = this.#options
      const full = this.#state === 'open' ? this.#connection.waiting > queueMax : this.#queue.length >= queueMax
      if (this.#state === 'closed') this.#refuse(fn, DISCONNECTED, 'closed')
      else if (options?.signal?.aborted) this.#refuse(fn, ABORTED, 'aborted')
      else if (full) this.#refuse(fn, QUEUE_FULL, `${queueMax} events wait already`)
      else this.#post(path, json, fn, options)
    }

    /** Not before the call that sends has returned. */
    #refuse(fn, code, message) {
      if (fn) queueMicrotask(() => run(fn, null, undefined, code, message))
      else if (code === QUEUE_FULL) this.#dispatch('/error', new QuickIOError(code, message))
    }

    /** Sends or queues an event, which is answered where there is a `fn`. Returns its callback. */
    #post(path, json, fn, options) {
      const id = fn ? ++this.#lastId : 0
      const event = { id, text: `${path}:${id}=${json}` }
      if (fn) this.#expect(id, fn, options)
      if (this.#state === 'open') this.#transmit(event)
      else this.#queue.push(event)
      return id
    }

    #transmit({ id, text }) {
      const callback = this.#callbacks.get(id)
      if (callback) callback.sent = true
      this.#connection.send(text)
    }

    #expect(id, fn, { timeout, signal } = {}) {
      const giveUp = (code, message) => {
        this.#queue = this.#queue.filter((event) => event.id !== id)
        this.#settle(id, null, undefined, code, message)
      }
      const aborted = () => giveUp(ABORTED, 'aborted')
      const timer = timeout === undefined ? undefined
        : this.#clock.setTimeout(() => giveUp(TIMEOUT, `no answer within ${timeout} ms`), timeout)
      signal?.addEventListener('abort', aborted)
      const release = () => {
        this.#clock.clearTimeout(timer)
        signal?.removeEventListener('abort', aborted)
      }
      this.#callbacks.set(id, { fn, sent: false, release })
    }

    #settle(id, data, reply, code, message) {
      const callback = this.#callbacks.get(id)
      if (!callback) return
      this.#callbacks.delete(id)
      callback.release()
      run(callback.fn, data, reply, code, message)
    }

    #failCallbacks(message, which) {
      for (const [id, callback] of [...this.#callbacks]) {
        if (which(callback)) this.#settle(id, null, undefined, DISCONNECTED, message)
      }
    }

    // -- Receiving

    #received(text) {
      this.#heard()
      const event = parseEvent(text)
      if (!event || !this.#handle(event)) {
        const error = new QuickIOError(DISCONNECTED, `malformed event: ${String(text).slice(0, 100)}`)
        this.#lost(error)
        this.#dispatch('/error', error)
      }
    }

    /** False where the event is malformed. */
    #handle({ path, callback, data }) {
      if (data === undefined) return this.#noData(path)
      if (path.startsWith('/qio/callback/')) return this.#answered(path.slice(14), callback, data)
      if (path === '/qio/move') return this.#move(data)
      if (path === '/qio/heartbeat') {
        if (Number(callback)) this.#post(`/qio/callback/${callback}`, 'null', null)
      } else if (!LOCAL_EVENTS.has(path)) {
        this.#dispatch(path, data, this.#reply(callback))
      }
      return true
    }

    /** The server is not to blame where another client's data was passed on unread: that must not cost a connection. */
    #noData(path) {
      if (path.startsWith('/qio/')) return false
      if (this.#subscriptions.has(path)) this.#dispatch('/error', new QuickIOError(400, `no JSON came at ${path}`))
      return true
    }

    #answered(id, callback, answer) {
      if (!Number.isInteger(answer?.code)) return false
      this.#settle(Number(id), answer.data ?? null, this.#reply(callback), answer.code, answer.err_msg ?? null)
      return true
    }

    /** Answers the server's callback: on the connection that it came by, or not at all. */
    #reply(callback) {
      if (!Number(callback)) return undefined
      const connection = this.#connection
      return (data, fn, options) => {
        if (fn !== null && typeof fn === 'object') [fn, options] = [undefined, fn]
        const json = JSON.stringify(data) ?? 'null'
        return answered(fn, (fn) => {
          if (this.#connection === connection) this.#send(`/qio/callback/${callback}`, json, fn, options)
          else this.#refuse(fn, DISCONNECTED, 'disconnected')
        })
      }
    }

    #move(address) {
      const url = parseMove(address, this.#url)
      if (!url) return false
      this.#moved = url
      // At once; but servers that send their clients to each other have to wait for them.
      const first = this.#backoff === BACKOFF_MIN_MS
      if (first) this.#backoff *= 2
      this.#hangUp(new QuickIOError(DISCONNECTED, `moved to ${url.host}`), first ? 'connecting' : 'waiting')
      return true
    }

    /** Calls the handlers of an event, be it the server's or the library's own. */
    #dispatch(path, data, reply) {
      const subscription = this.#subscriptions.get(path)
      for (const handler of subscription?.handlers ?? []) {
        // A handler before this one may have taken it away.
        if (!subscription.handlers.includes(handler)) continue
        if (handler.once) {
          handler.resolve()
          this.#remove(path, (other) => other === handler)
        }
        run(handler.fn, data, reply, 200, null)
      }
    }

    // -- Subscriptions

    #add(path, fn, once, options) {
      if (typeof fn !== 'function') throw new TypeError(`a handler for ${path} is needed`)
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
      const asked = this.#post('/qio/on', JSON.stringify(extra === undefined ? path : [path, extra]), (...answer) => {
        // It may be another one by now, which asked again.
        const current = this.#subscriptions.get(path)
        const decides = current?.asked === asked || current?.deferred
        const [data, , code, message] = answer
        if (!decides || code === DISCONNECTED) return
        if (code === 202) current.deferred = true
        else if (code === 200) this.#subscribed(current)
        else this.#refused(path, current, new QuickIOError(code, message, data))
      })
      Object.assign(subscription, { asked, active: false, deferred: false })
    }

    #remove(path, which) {
      const subscription = this.#subscriptions.get(path)
      if (!subscription) return
      const gone = subscription.handlers.filter(which)
      subscription.handlers = subscription.handlers.filter((handler) => !gone.includes(handler))
      if (!subscription.handlers.length) {
        this.#subscriptions.delete(path)
        if (this.#state === 'open' && !LOCAL_EVENTS.has(path)) this.#post('/qio/off', JSON.stringify(path), null)
      }
      for (const handler of gone) handler.reject(new QuickIOError(ABORTED, 'taken away again'))
    }

    #subscribed(subscription) {
      subscription.active = true
      for (const handler of subscription.handlers) handler.resolve()
    }

    #refused(path, { handlers }, error) {
      this.#subscriptions.delete(path)
      for (const { reject, onError } of handlers) {
        reject(error)
        if (onError) run(onError, error)
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
