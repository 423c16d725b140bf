// Types of QuickIO's client library, quickio.js. How to use it is in docs/client.md. MIT licence.

/** A way to connect. */
export type Transport = 'websocket' | 'stream' | 'poll'

/** What a client is doing; `waiting` is for the next attempt to connect. */
export type State = 'connecting' | 'open' | 'waiting' | 'closed'

/** How long an answer is waited for. */
export interface SendOptions {
  /** Milliseconds until the answer is given up: code -2. Without it, as long as the connection lives. */
  timeout?: number
  /** Gives the answer up when it aborts: code -3. An event that is still queued is not sent. */
  signal?: AbortSignal
}

/**
 * Called once, with the answer to an event.
 *
 * @param data the answer's data; null where there is no answer
 * @param reply answers the server's callback, where it offered one
 * @param code 200; another code of the server; or -1 disconnected, -2 timeout, -3 aborted, -4 queue full
 * @param errMsg what went wrong, in words; null where nothing did or nobody says
 */
export type AnswerHandler<T = any> = (data: T, reply: Reply | undefined, code: number, errMsg: string | null) => void

/** Called for each event of a path. `reply` is there where the server wants an answer. */
export type EventHandler<T = any> = (data: T, reply: Reply | undefined, code: 200, errMsg: null) => void

/** Answers a callback of the server's, once, as long as its connection lives. */
export interface Reply {
  <T = any>(data?: unknown, options?: SendOptions): Promise<T>
  (data: unknown, fn: null): void
  <T = any>(data: unknown, fn: AnswerHandler<T>, options?: SendOptions): void
}

/** Called when a subscription is refused. */
export type RefusalHandler = (error: QuickIOError) => void

/** What a subscription may come with. */
export interface SubscribeOptions {
  /** JSON data for the server's application. That of a path's first handler counts. */
  extra?: unknown
  /** Called when the subscription is refused, now or after a reconnect. Without it `/error` is told. */
  onError?: RefusalHandler
}

/** Why an event, a subscription or a connection failed. */
export interface QuickIOError extends Error {
  name: 'QuickIOError' | 'TimeoutError' | 'AbortError'
  /** A code of the server, or -1 disconnected, -2 timeout, -3 aborted, -4 queue full. */
  code: number
  /** The data of the server's answer. */
  data: any
}

/** The data of client-side events. */
export interface ClientEvents {
  /** There is a connection, over this transport. */
  '/open': Transport
  /** The connection has ended, for this reason. */
  '/close': QuickIOError
  /** What nobody else is told: a failed attempt to connect, a malformed event, a refused subscription. */
  '/error': QuickIOError
  /** The connection is over another transport than the one before. Comes before `/open`. */
  '/transport': Transport
}

/** What is called of a `WebSocket`, or of the class of that name in the package `ws`. */
export interface WebSocketLike {
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  send(text: string): void
  close(): void
}

/** Time, for tests that do not want to wait for it. */
export interface Clock {
  /** Milliseconds. */
  now(): number
  setTimeout(fn: () => void, ms: number): unknown
  clearTimeout(timer: any): void
}

/** What tells of a page's life: `window`, or a stand-in for it. */
export interface Page {
  addEventListener?(name: string, fn: (event: any) => void): void
  removeEventListener?(name: string, fn: (event: any) => void): void
  document?: { visibilityState: string }
}

/** Times are in milliseconds. */
export interface Options {
  /** Which ones to try, in this order: all three. */
  transports?: readonly Transport[]
  /** How long each step of a handshake may take: 5000. The first response to a poll may take twice that. */
  handshakeTimeout?: number
  /** After how long without a sign of life a connection is given up: 65,000. The server sends one each minute. */
  silenceTimeout?: number
  /** The longest pause between an empty response and the next poll: 2000. The pause is random. */
  pollDelay?: number
  /** How many events wait for a connection, or for a request: 4096. */
  queueMax?: number
  /** Over HTTP, whether to go on with the host that the server says it is: false. See docs/client.md. */
  followHostname?: boolean
  /** The class to use: the global one. Null for none. */
  WebSocket?: (new (url: string, protocols: string[]) => WebSocketLike) | null
  /** The function to use: the global one. Null for none. */
  fetch?: typeof fetch | null
  page?: Page
  /** A number from 0 up to, but not including, 1: Math.random. */
  random?: () => number
  clock?: Clock
}

/**
 * A client of a QuickIO server. It connects at once, and again whenever the connection is lost, until it is closed.
 *
 *     const qio = new QuickIO('wss://example.com')
 *     qio.on('/chat/room', (data) => show(data))
 *     const answer = await qio.send('/chat/say', { text: 'hello' })
 */
export class QuickIO {
  /**
   * @param urls one address or a list in the order of preference: `ws(s)://`, `http(s)://` or `host[:port]`. Without
   *     one: the server that the script came from.
   */
  constructor(urls?: string | URL | readonly (string | URL)[], options?: Options)

  /** The class of all errors. */
  static readonly Error: new (code: number, message?: string | null, data?: unknown) => QuickIOError

  /** The address of the script, whose server is the default one. */
  static source: string | undefined

  readonly state: State

  /** The transport in use; null while there is no open connection. */
  readonly transport: Transport | null

  /** Listens to a client-side event. */
  on<P extends keyof ClientEvents>(path: P, fn: (data: ClientEvents[P]) => void): Promise<void>

  /**
   * Subscribes to a path. The promise is resolved when the subscription is active, and rejected when it is refused;
   * nobody has to look at it.
   */
  on<T = any>(path: string, fn: EventHandler<T>, options?: RefusalHandler | SubscribeOptions): Promise<void>

  /** Like `on`, for one event. */
  one<P extends keyof ClientEvents>(path: P, fn: (data: ClientEvents[P]) => void): Promise<void>
  one<T = any>(path: string, fn: EventHandler<T>, options?: RefusalHandler | SubscribeOptions): Promise<void>

  /** Takes a handler away, or all of a path. With the last one the subscription ends. */
  off(path: string, fn?: (...args: any[]) => void): void

  /** Sends an event. The promise is of the answer's data; nobody has to look at it. */
  send<T = any>(path: string, data?: unknown, options?: SendOptions): Promise<T>
  /** Sends an event that the server need not answer. */
  send(path: string, data: unknown, fn: null): void
  /** Sends an event; `fn` is called with the answer, or when there will be none. */
  send<T = any>(path: string, data: unknown, fn: AnswerHandler<T>, options?: SendOptions): void

  /** Ends the connection for good. Handlers stay: `reconnect` subscribes them again. */
  close(): void

  /** Connects at once, anew: ends the connection where there is one, and opens a client that was closed. */
  reconnect(): void
}

export default QuickIO

type Library = typeof QuickIO

declare global {
  /** Set by the classic script. */
  var QuickIO: Library
}
