// Types of the package. docs/applications.md describes its use.

/** A value that can be sent as JSON. `undefined` is sent as `null`. */
export type Data =
  | string
  | number
  | boolean
  | null
  | undefined
  | Json
  | readonly Data[]
  | { toJSON(key?: string): unknown }
  | { readonly [name: string]: any }

/** The return value of a handler. A handler may also return a promise of it. */
export type Result = Data | Answer | Later | typeof NEVER | void
export type Handler = (event: Event) => Result | Promise<Result>
export type ReplyHandler = (reply: Reply) => Result | Promise<Result>
export type OnHook = (subscription: Subscription) => Decision | Promise<Decision>
export type Decision = boolean | LaterDecision | void
export type OffHook = (unsubscribed: Unsubscribed) => unknown
export type Level = 'error' | 'warn' | 'info' | 'debug' | 'trace'

/** A client. While it is connected it is always represented by the same object. */
export class Client {
  private constructor()
  /** The index of the server's shard that owns the client. */
  readonly shard: number
  readonly slot: number
  readonly generation: number
  /** A unique name, which is never used again for another client. */
  readonly id: string
  /** The application's data for this client. Once it has been used, `app.gone` functions run when the client
   * disconnects. */
  readonly data: Record<string, any>
}

/** An event that a client has sent. */
export class Event {
  private constructor()
  readonly client: Client
  /** The path at which the handler is registered. */
  readonly path: string
  /** The rest of the client's path after `path`, with its leading slash. Empty if there is none. */
  readonly extra: string
  /** `path` and `extra` together. */
  readonly fullPath: string
  /** The client's data, parsed on first use. Throws `BadData` if it is not valid JSON. */
  readonly data: any
  /** The client's data as JSON text. It has not been validated. */
  readonly json: Json
  /** `true` if the client waits for an answer. Otherwise an answer is discarded. */
  readonly wantsAnswer: boolean
  /** What the server knows of the client, if the event was registered with `clientInfo: true`. */
  readonly info: ClientInfo
  /** Returns a promise to answer later. The handler need not return it, but must keep it. */
  later(): Later
}

/** A client's reply to a callback. */
export class Reply {
  private constructor()
  readonly client: Client
  readonly data: any
  readonly json: Json
  readonly wantsAnswer: boolean
  later(): Later
}

/** What the server knows of a client, at the time of an event or of a request to subscribe. */
export interface ClientInfo {
  /** The user that the client has authenticated as. */
  readonly user: string | null
  /** The claims of the client's token. */
  readonly claims: { readonly [name: string]: any } | null
  /** The client's IP address; null for a Unix socket. */
  readonly address: string | null
  /** The headers that the server's setting `app-headers` names, by their names in lower case. */
  readonly headers: { readonly [name: string]: string }
  /** The subject of the client's TLS certificate. */
  readonly certificate: string | null
}

/** A client's request to subscribe. `data` is the extra data that the client sent with it. */
export class Subscription {
  private constructor()
  readonly client: Client
  readonly path: string
  readonly extra: string
  readonly fullPath: string
  readonly data: any
  readonly json: Json
  /** The earlier events that the client asks for. `null` if it asks for none. */
  readonly options: SubscribeOptions | null
  /** What the server knows of the client, if the event was registered with `clientInfo: true`. */
  readonly info: ClientInfo
  later(): LaterDecision
}

/** The earlier events that a client asks for with its subscription. Newer servers may have more options. */
export interface SubscribeOptions {
  /** The number of the last events. */
  readonly history?: number | null
  /** The position behind which the client asks for all events. */
  readonly since?: string | null
  readonly [option: string]: unknown
}

/** A subscription that has ended. */
export class Unsubscribed {
  private constructor()
  readonly client: Client
  readonly path: string
  readonly extra: string
  readonly fullPath: string
}

/** An answer with code 200 and data, and optionally a callback that the client may reply to. */
export class Answer {
  constructor(data?: Data, options?: { callback?: ReplyHandler })
  data: Data
  callback: ReplyHandler | undefined
}

/** Returned by a handler if the client must not get any answer. */
export const NEVER: unique symbol

/** A promise to answer an event or a reply once. If it is dropped unanswered, the client is answered 500 when the
 * garbage collector finds it. */
export class Later {
  private constructor()
  answer(data?: Data | Answer | typeof NEVER): void
  error(code: number, message?: string | null, data?: Data): void
}

/** A promise to accept or refuse a subscription once. */
export class LaterDecision {
  private constructor()
  accept(): void
  refuse(): void
}

/** A JSON text that is sent unchanged. The constructor throws a SyntaxError if the text is not valid JSON. */
export class Json {
  constructor(text: string)
  readonly text: string
  toString(): string
  toJSON(): any
}

/** Thrown by a function of the application to answer the client with an error. It is not logged. */
export class Refusal extends Error {
  constructor(code: number, message?: string | null, data?: Data)
  readonly code: number
  readonly data: Data
  /** The message that the client gets. */
  readonly text: string | null
}

/** Thrown when a client's data is not valid JSON. The client is answered 400. */
export class BadData extends Refusal {
  constructor()
}

/** Thrown when a request has already been answered. */
export class AlreadyAnswered extends Error {}
/** Thrown when a client will never reply. If it is not caught, the client of the function is answered 500. */
export class Dropped extends Refusal {
  constructor()
}
/** Thrown when there is no server: the script is still loading or starting, or runs without a server. */
export class NotRunning extends Error {}

/** A timer that has been set. */
export class Timer {
  private constructor()
  /** Prevents all further runs. */
  cancel(): void
}

/** A registered event. */
export class Registration {
  private constructor()
  readonly path: string
  readonly children: boolean
  readonly handler: Handler | undefined
  readonly onHook: OnHook | undefined
  readonly offHook: OffHook | undefined
  /** Sets the on-hook, which decides who may subscribe. */
  on(fn: OnHook): this
  /** Sets the off-hook, which is called for each subscription that has ended. */
  off(fn: OffHook): this
}

export interface EventOptions {
  /** If `true`, the event also handles all paths below it. The default is `false`. */
  children?: boolean
  /** If `false`, clients may not subscribe to it. The default is `true`. */
  subscriptions?: boolean
  /** `event.info` has what the server knows of the client. */
  clientInfo?: boolean
}

export interface SendOptions {
  /** Runs when the client replies. */
  callback?: ReplyHandler
  /** Runs if the client will never reply. */
  dropped?: () => unknown
}

export interface App {
  /** The application's name: the name of its file without the ending. */
  readonly name: string
  /** The index of this worker among the application's instances, from 0. */
  readonly instance: number
  /** The number of the application's instances. */
  readonly instances: number
  /** The section `[app-settings.NAME]` of the server's settings file. */
  readonly settings: Readonly<Record<string, string>>

  /** Registers an event. Without a handler, clients are answered 500. */
  event(path: string, handler?: Handler): Registration
  event(path: string, options: EventOptions, handler?: Handler): Registration

  /** Sends an event to all clients that are subscribed to a path. */
  broadcast(path: string, data?: Data): void
  /** Sends an event to one client, whether or not it is subscribed. */
  send(client: Client, path: string, data?: Data, options?: SendOptions): void
  /** Sends an event to one client, and returns a promise of its reply. Rejects with `Dropped` if the client never
   * replies, or sends invalid JSON. */
  ask(client: Client, path: string, data?: Data): Promise<any>
  /** Closes a client's connection after everything queued for it has been sent. */
  close(client: Client): void
  /** Tells a client to connect to another server, and closes its connection. */
  move(client: Client, address: string): void

  /** Runs a function once, after a time by the server's clock. */
  after(seconds: number, fn: () => unknown): Timer
  /** Runs a function repeatedly, by the server's clock. A run is skipped while the previous one is running. */
  every(seconds: number, fn: () => unknown): Timer
  /** Returns the seconds since the server started, as of the latest message from it. */
  now(): number
  /** Writes a line to the server's log. */
  log(level: Level, text: string): void

  /** Registers a function that runs before the first event. If it throws, the server does not start. */
  start(fn: () => unknown): void
  /** Registers a function that runs at the end, after all requests have been handled. */
  stop(fn: () => unknown): void
  /** Registers a function that runs only for `quickio test-app`. If it throws, the test fails. */
  selfTest(fn: () => unknown): void
  /** Registers a function that runs for each disconnected client whose `data` was used. */
  gone(fn: (client: Client) => unknown): void
}

export const app: App
