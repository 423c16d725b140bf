// Types of the QuickIO client library, quickio.js. docs/client.md explains how to use it. MIT licence.

/** A transport that a client can use. */
export type Transport = 'websocket' | 'stream' | 'poll'

/** The state of a client. `waiting` means that it waits for the next connection attempt. */
export type State = 'connecting' | 'open' | 'waiting' | 'closed'

/** Limits on waiting for an answer. */
export interface SendOptions {
  /**
   * Milliseconds until the answer fails with code -2. The default is no limit while the connection lasts; 2^31 or more,
   * such as `Infinity`, is no limit either.
   */
  timeout?: number
  /** A signal whose abort fails the answer with code -3. An event that is still queued is not sent. */
  signal?: AbortSignal
}

/**
 * Called once, with the answer to an event.
 *
 * @param data the data of the answer; null if there is no answer
 * @param reply a function that sends a reply, if the server requests one
 * @param code 200; another code from the server; or -1 disconnected, -2 timeout, -3 aborted, -4 queue full, -5 too large
 * @param errMsg an error message; null if there was no error, or if the server sent no message
 */
export type AnswerHandler<T = any> = (data: T, reply: Reply | undefined, code: number, errMsg: string | null) => void

/**
 * Called for each event of a path. `reply` is defined if the server requests a reply, and `position` if the event has a
 * position: if the server keeps events of the path, and a handler of it has one of the options `history`, `since`, `recover`
 * and `onRecover`.
 */
export type EventHandler<T = any> = (data: T, reply: Reply | undefined, code: 200, errMsg: null, position?: string) => void

/** What a handler gets from the server when its subscription begins, or begins again. */
export interface Recovery {
  /**
   * The handler gets all events that it has not had yet. If false, it may have missed some: the application has to get its
   * state from elsewhere, or from the last events that the handler gets.
   */
  recovered: boolean
  /** The number of earlier events that the handler gets now, before those that are new. */
  events: number
  /** The position before these events; null if the server keeps no events of the path. */
  position: string | null
  /** Set if the connection is open, but events were dropped because it is slow: their number, or null if it is not known. */
  lost?: number | null
}

/** Options of `history`. */
export interface HistoryOptions extends SendOptions {
  /** The maximum number of events: 100, at most 1000. */
  limit?: number | null
  /** The position before which the events are. The default is the end. */
  before?: string | null
}

/** An earlier event of a path. */
export interface PastEvent<T = any> {
  position: string
  data: T
}

/** Answers a server callback. It works once, and only while the connection lasts. */
export interface Reply {
  <T = any>(fn: AnswerHandler<T>, options?: SendOptions): void
  <T = any>(data?: unknown, options?: SendOptions): Promise<T>
  (data: unknown, fn: null): void
  <T = any>(data: unknown, fn: AnswerHandler<T>, options?: SendOptions): void
}

/** Called when a subscription is refused. */
export type RefusalHandler = (error: QuickIOError) => void

/** Options of a subscription. */
export interface SubscribeOptions {
  /** JSON data for the server's application. Only the data of the first handler of a path is used. */
  extra?: unknown
  /** Called if the subscription is refused, at once or after a reconnect. Without it, the client emits `/error`. */
  onError?: RefusalHandler
  /** Get so many of the last events first, and what is missed while the connection is lost. See docs/client.md. */
  history?: number | null
  /** Get the events after this position first, and what is missed while the connection is lost. Null if there is none yet. */
  since?: string | null
  /** Get what is missed while the connection is lost. Each of `history`, `since` and `onRecover` implies it. */
  recover?: boolean
  /** Called when the subscription begins, and each time it begins again, before its events; and when events were lost. */
  onRecover?: (recovery: Recovery) => void
}

/** Options of a subscription that recovers. */
export type RecoverOptions = SubscribeOptions & ({ history: number } | { since: string | null } | { recover: true } |
  { onRecover: (recovery: Recovery) => void })

/** The reason why an event, a subscription or a connection failed. */
export interface QuickIOError extends Error {
  name: 'QuickIOError' | 'TimeoutError' | 'AbortError'
  /** A code from the server; or -1 disconnected, -2 timeout, -3 aborted, -4 queue full, -5 too large. */
  code: number
  /** The data of the server's answer. */
  data: any
}

/** The events that the client itself emits, and their data. */
export interface ClientEvents {
  /** A connection is open, over this transport. */
  '/open': Transport
  /** The connection has ended, for this reason. */
  '/close': QuickIOError
  /**
   * An error that nothing else reports: a failed connection attempt, a malformed event, a refused subscription, an event
   * without an answer that is too large or does not fit into the queue.
   */
  '/error': QuickIOError
  /** The transport differs from that of the previous connection. Emitted before `/open`. */
  '/transport': Transport
}

/** The members that the client uses of a `WebSocket`, or of the class of that name in the package `ws`. */
export interface WebSocketLike {
  onopen: ((event: any) => void) | null
  onmessage: ((event: any) => void) | null
  onerror: ((event: any) => void) | null
  onclose: ((event: any) => void) | null
  send(text: string): void
  close(): void
}

/** A clock, which tests can replace. */
export interface Clock {
  /** Returns the current time in milliseconds. */
  now(): number
  setTimeout(fn: () => void, ms: number): unknown
  clearTimeout(timer: any): void
}

/** The source of a page's visibility and network events: `window`, or a replacement. */
export interface Page {
  addEventListener?(name: string, fn: (event: any) => void): void
  removeEventListener?(name: string, fn: (event: any) => void): void
  document?: { visibilityState: string }
}

/** Options of a client. Times are in milliseconds; 2^31 or more, such as `Infinity`, is no limit. */
export interface Options {
  /** The transports to try, in this order. The default is all three. */
  transports?: readonly Transport[]
  /** The time limit for each step of a handshake: 5000. The first response to a poll may take twice as long. */
  handshakeTimeout?: number
  /**
   * The time without received data after which a connection is treated as lost: 65,000. It must be longer than the
   * server's setting `heartbeat-interval`.
   */
  silenceTimeout?: number
  /** The longest pause between an empty response and the next poll: 2000, and less than 2^31. The pause is random. */
  pollDelay?: number
  /** The maximum number of events that wait for a connection, or for a request: 4096. */
  queueMax?: number
  /** Over HTTP, send further requests to the host name that the server reports: false. See docs/client.md. */
  followHostname?: boolean
  /**
   * Returns a token that authenticates the client: a JSON Web Token of the application's own server. It is called for each
   * connection, before the token expires, and after an event was refused with 401. Without a token (null) the client stays
   * unknown. See docs/client.md.
   */
  token?: () => string | null | undefined | Promise<string | null | undefined>
  /** The WebSocket class to use. The default is the global one; null disables WebSocket. */
  WebSocket?: (new (url: string, protocols: string[]) => WebSocketLike) | null
  /** The fetch function to use. The default is the global one; null disables HTTP. */
  fetch?: typeof fetch | null
  /** The source of visibility and network events. The default is the global object. */
  page?: Page
  /** Returns a random number from 0 up to, but not including, 1. The default is `Math.random`. */
  random?: () => number
  /** The clock to use. The default is the real one. */
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
   * @param urls one address or a list in order of preference: `ws(s)://`, `http(s)://` or `host[:port]`. The default is
   *     the server that the script was loaded from.
   */
  constructor(urls?: string | URL | readonly (string | URL)[], options?: Options)

  /** The class of all errors. */
  static readonly Error: new (code: number, message?: string | null, data?: unknown) => QuickIOError

  /** The address of the script, if it was loaded by a page. Its server is the default server. */
  static source: string | undefined

  /** The current state. */
  readonly state: State

  /** The transport in use; null while there is no open connection. */
  readonly transport: Transport | null

  /** Adds a handler for an event that the client itself emits. */
  on<P extends keyof ClientEvents>(path: P, fn: (data: ClientEvents[P]) => void): Promise<void>

  /**
   * Subscribes to a path. The promise resolves when the subscription is active, and rejects if it is refused. It may be
   * ignored: a rejection is not reported as unhandled. With `history`, `since`, `recover` or `onRecover`, it resolves to
   * what `onRecover` is called with first.
   */
  on<T = any>(path: string, fn: EventHandler<T>, options: RecoverOptions): Promise<Recovery>
  on<T = any>(path: string, fn: EventHandler<T>, options?: RefusalHandler | SubscribeOptions): Promise<void>

  /** Like `on`, but for one event only. */
  one<P extends keyof ClientEvents>(path: P, fn: (data: ClientEvents[P]) => void): Promise<void>
  one<T = any>(path: string, fn: EventHandler<T>, options?: RefusalHandler | SubscribeOptions): Promise<void>

  /** Removes one handler, or all handlers of a path. The removal of the last one ends the subscription. */
  off(path: string, fn?: (...args: any[]) => void): void

  /** The position of a path behind the last event that was received; null if its events have no positions. */
  position(path: string): string | null

  /** Reads earlier events of a path, the oldest first, without subscribing. The server must keep events of the path. */
  history<T = any>(path: string, options?: HistoryOptions): Promise<PastEvent<T>[]>

  /** Sends an event without data. Calls `fn` once, with the answer or with an error. */
  send<T = any>(path: string, fn: AnswerHandler<T>, options?: SendOptions): void
  /**
   * Sends an event. The promise resolves to the data of the answer. It may be ignored: a rejection is not reported as
   * unhandled.
   */
  send<T = any>(path: string, data?: unknown, options?: SendOptions): Promise<T>
  /** Sends an event without requesting an answer. */
  send(path: string, data: unknown, fn: null): void
  /** Sends an event. Calls `fn` once, with the answer or with an error. */
  send<T = any>(path: string, data: unknown, fn: AnswerHandler<T>, options?: SendOptions): void

  /**
   * Ends the connection permanently, after the events that were passed to `send`. Handlers are kept: `reconnect`
   * subscribes them again. The promise, which may be ignored, resolves when the events have been sent and the connection
   * has ended, or when the server cannot be reached. It never rejects.
   */
  close(): Promise<void>

  /** Opens a new connection at once. Ends the current connection, if any; reopens a closed client. */
  reconnect(): void
}

export default QuickIO

type Library = typeof QuickIO

declare global {
  /** Defined by the classic script. */
  var QuickIO: Library
}
